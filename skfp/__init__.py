"""Image embeddings for scikit-learn, by feature prediction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skfp.displays import (
        ConvergenceDisplay,
        EmbeddingDisplay,
        FeatureErrorDisplay,
        ReconstructionDisplay,
    )
    from skfp.estimators import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
    from skfp.image_loader import ImageLoader
    from skfp.loss_network import LossNetwork, loss_networks

__version__ = "0.1.0"

_MODULES = {
    "ConvergenceDisplay": "skfp.displays",
    "EmbeddingDisplay": "skfp.displays",
    "FeatureErrorDisplay": "skfp.displays",
    "FeaturePredictionEncoder": "skfp.estimators",
    "ImageLoader": "skfp.image_loader",
    "LossNetwork": "skfp.loss_network",
    "PerceptualAutoencoder": "skfp.estimators",
    "PixelAutoencoder": "skfp.estimators",
    "ReconstructionDisplay": "skfp.displays",
    "loss_networks": "skfp.loss_network",
}
__all__ = [
    "ConvergenceDisplay",
    "EmbeddingDisplay",
    "FeatureErrorDisplay",
    "FeaturePredictionEncoder",
    "ImageLoader",
    "LossNetwork",
    "PerceptualAutoencoder",
    "PixelAutoencoder",
    "ReconstructionDisplay",
    "loss_networks",
]


def __getattr__(name: str) -> Any:
    # Processes that only make data sets should not have to load torch.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
