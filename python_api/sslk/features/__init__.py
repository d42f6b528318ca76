"""Extraction of representations and the store that holds them, larger than memory if need be."""

from sslk.features.extract import Progress, extract
from sslk.features.maintain import StoreInfo, store_export, store_info, store_merge, store_verify
from sslk.features.manifest import StoreError, StoreSpec
from sslk.features.reader import Batch
from sslk.features.store import FeatureStore
from sslk.features.writer import StoreWriter

__all__ = [
    "Batch",
    "FeatureStore",
    "Progress",
    "StoreError",
    "StoreInfo",
    "StoreSpec",
    "StoreWriter",
    "extract",
    "store_export",
    "store_info",
    "store_merge",
    "store_verify",
]
