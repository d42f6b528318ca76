from .bootstrap import Interval as Interval
from .bootstrap import bootstrap_areas as bootstrap_areas
from .bootstrap import bootstrap_measures as bootstrap_measures
from .bootstrap import percentile_interval as percentile_interval
from .hierarchical import crossed_auroc as crossed_auroc
from .hierarchical import crossed_mean as crossed_mean
from .partial import PartialCorrelations as PartialCorrelations
from .partial import partial_rank_correlations as partial_rank_correlations
