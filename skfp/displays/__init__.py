"""Pictures of fitted encoders, as scikit-learn's Display objects.

Each takes its data in the constructor and draws in `plot`. matplotlib is imported when something
is drawn; call its `show` to open a window.
"""

from ._convergence import ConvergenceDisplay
from ._embedding import EmbeddingDisplay
from ._feature_error import FeatureErrorDisplay
from ._reconstruction import ReconstructionDisplay

__all__ = [
    "ConvergenceDisplay",
    "EmbeddingDisplay",
    "FeatureErrorDisplay",
    "ReconstructionDisplay",
]
