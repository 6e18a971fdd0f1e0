"""Image embeddings for scikit-learn, by feature prediction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skfp.estimators import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

__version__ = "0.1.0"
__all__ = ["FeaturePredictionEncoder", "PerceptualAutoencoder", "PixelAutoencoder"]


def __getattr__(name: str) -> Any:
    # Processes that only make data sets should not have to load torch.
    if name in __all__:
        return getattr(import_module("skfp.estimators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
