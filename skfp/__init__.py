"""Image embeddings for scikit-learn, by feature prediction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._autoencoders import PerceptualAutoencoder, PixelAutoencoder
    from ._feature_prediction import FeaturePredictionEncoder
    from ._image_loader import ImageLoader
    from ._loss_network import LossNetwork, loss_networks
    from ._onnx_encoder import OnnxEncoder
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
    "OnnxEncoder": "_onnx_encoder",
    "PerceptualAutoencoder": "_autoencoders",
    "PixelAutoencoder": "_autoencoders",
    "ReconstructionDisplay": "displays",
    "loss_networks": "_loss_network",
}
# Packages of the extra "train".
_TRAIN = ("filelock", "safetensors", "skorch", "torch", "torchvision")
__all__ = [
    "ConvergenceDisplay",
    "EmbeddingDisplay",
    "EncoderReport",
    "FeatureErrorDisplay",
    "FeaturePredictionEncoder",
    "ImageLoader",
    "LossNetwork",
    "OnnxEncoder",
    "PerceptualAutoencoder",
    "PixelAutoencoder",
    "ReconstructionDisplay",
    "loss_networks",
]


def __getattr__(name: str) -> Any:
    # OnnxEncoder, ImageLoader and data sets do without torch, which takes seconds to import.
    if name in _MODULES:
        try:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name not in _TRAIN:
                raise
            raise ImportError(
                f"skfp.{name} needs {error.name}: pip install 'skfp[train]'. OnnxEncoder and "
                "ImageLoader work without it."
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
