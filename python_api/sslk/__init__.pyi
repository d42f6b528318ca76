from .data.load import load_dataset as load_dataset
from .evaluation.several import evaluate as evaluate
from .features.extraction import extract as extract
from .features.settings import ExtractSettings as ExtractSettings
from .features.store import FeatureStore as FeatureStore
from .interpret.heatmaps import feature_heatmaps as feature_heatmaps
from .masked.study import masked_study as masked_study
from .models.load import load_backbone as load_backbone
from .probes.kfold import kfold_probe as kfold_probe
from .probes.knn import knn_probe as knn_probe
from .probes.linear import linear_probe as linear_probe
from .probes.settings import LinearSettings as LinearSettings
from .quality.discovery import discover as discover
from .quality.discovery import eps_sweep as eps_sweep
from .quality.discriminative import DiscriminativeFeatures as DiscriminativeFeatures
from .quality.failure import failure_prediction as failure_prediction
from .quality.regularizer import QScoreRegularizer as QScoreRegularizer
from .quality.score import QScores as QScores
from .quality.score import qscore as qscore
from .quality.subsets import compression as compression
from .results.run import Run as Run
from .reverse.protocol import reverse_probe as reverse_probe

__version__: str
