from .build import build_atlas as build_atlas
