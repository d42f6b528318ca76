from .build import AtlasInputs as AtlasInputs
from .build import build_atlas as build_atlas
