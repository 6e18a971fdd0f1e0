"""Pictures of fitted encoders, as scikit-learn Display objects."""

from ._displays import (
    ConvergenceDisplay,
    EmbeddingDisplay,
    FeatureErrorDisplay,
    ReconstructionDisplay,
)

__all__ = [
    "ConvergenceDisplay",
    "EmbeddingDisplay",
    "FeatureErrorDisplay",
    "ReconstructionDisplay",
]
