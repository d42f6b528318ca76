from .dataset import Annotation as Annotation
from .dataset import Dataset as Dataset
from .dataset import UnreadableImageError as UnreadableImageError
from .load import DATASET_NAMES as DATASET_NAMES
from .load import load_dataset as load_dataset
from .splits import splits_of as splits_of
