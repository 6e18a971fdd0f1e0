"""Encoders, decoders and losses as torch modules."""

from .autoencoder import Architecture, Autoencoder, Decoded
from .decoders import FeatureDecoder, ImageDecoder
from .encoders import (
    FEATURE_ENCODERS,
    IMAGE_ENCODERS,
    CustomEncoder,
    Encoder,
    FeatureEncoder,
    ImageEncoder,
    fold_batch_norm,
    make_encoder,
)
from .losses import (
    FeaturePredictionLoss,
    PerceptualLoss,
    PixelLoss,
    ProjectedFeatureLoss,
    variational_term,
)
from .trunks import TRUNKS

__all__ = [
    "FEATURE_ENCODERS",
    "IMAGE_ENCODERS",
    "TRUNKS",
    "Architecture",
    "Autoencoder",
    "CustomEncoder",
    "Decoded",
    "Encoder",
    "FeatureDecoder",
    "FeatureEncoder",
    "FeaturePredictionLoss",
    "ImageDecoder",
    "ImageEncoder",
    "PerceptualLoss",
    "PixelLoss",
    "ProjectedFeatureLoss",
    "fold_batch_norm",
    "make_encoder",
    "variational_term",
]
