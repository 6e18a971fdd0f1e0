"""Features of the loss network: computed once per fit, projected, stored, cached."""

from .extractor import FeatureExtractor
from .projection import PCAProjection
from .store import BATCH_SIZE, FeatureStore, compute_rows

__all__ = ["BATCH_SIZE", "FeatureExtractor", "FeatureStore", "PCAProjection", "compute_rows"]
