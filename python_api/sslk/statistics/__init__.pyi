from .bootstrap import Interval as Interval
from .bootstrap import bootstrap_areas as bootstrap_areas
from .bootstrap import bootstrap_measures as bootstrap_measures
from .bootstrap import percentile_interval as percentile_interval
