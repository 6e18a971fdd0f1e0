"""Image embeddings for scikit-learn, by feature prediction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._autoencoders import PerceptualAutoencoder, PixelAutoencoder
    from ._feature_prediction import FeaturePredictionEncoder
    from ._image_loader import ImageLoader
    from ._loss_network import LossNetwork, loss_networks
    from ._report import EncoderReport
    from .displays import (
        ConvergenceDisplay,
        EmbeddingDisplay,
        FeatureErrorDisplay,
        ReconstructionDisplay,
    )

__version__ = "0.2.0.dev0"

_MODULES = {
    "ConvergenceDisplay": "displays",
    "EmbeddingDisplay": "displays",
    "EncoderReport": "_report",
    "FeatureErrorDisplay": "displays",
    "FeaturePredictionEncoder": "_feature_prediction",
    "ImageLoader": "_image_loader",
    "LossNetwork": "_loss_network",
    "PerceptualAutoencoder": "_autoencoders",
    "PixelAutoencoder": "_autoencoders",
    "ReconstructionDisplay": "displays",
    "loss_networks": "_loss_network",
}
__all__ = [
    "ConvergenceDisplay",
    "EmbeddingDisplay",
    "EncoderReport",
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
    # Data sets alone do not need torch, which takes seconds to import.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
