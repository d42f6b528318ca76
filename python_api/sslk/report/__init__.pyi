from .beside_paper import Comparison as Comparison
from .beside_paper import compare as compare
from .collect import find_runs as find_runs
from .leaderboard import leaderboards as leaderboards
from .leaderboard import write_measures as write_measures
from .page import render_page as render_page
from .page import write_page as write_page
from .watch import serve as serve
