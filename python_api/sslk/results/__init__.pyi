from .figure import Picture as Picture
from .figure import picture as picture
from .figure import save_figure as save_figure
from .run import RESULTS as RESULTS
from .run import Run as Run
from .run import RunError as RunError
from .run import RunFigure as RunFigure
from .run import RunTable as RunTable
