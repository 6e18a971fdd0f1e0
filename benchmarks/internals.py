"""The private names of skfp that benchmarks use; nothing else in this package imports any."""

from skfp._base import SMALL_BATCH
from skfp._data import ImageSet, InputDecoder, Preprocess, Reading, check_images
from skfp._features import FeatureExtractor, FeatureStore, PCAProjection
from skfp._features.extractor import PROJECTION_SAMPLE
from skfp._images.arrays import as_array
from skfp._images.value_range import kind_of
from skfp._loss_network import Inference, load_loss_network
from skfp._loss_network.efficientnet_lite import efficientnet_lite0
from skfp._networks import (
    IMAGE_ENCODERS,
    TRUNKS,
    ImageEncoder,
    ProjectedFeatureLoss,
    fold_batch_norm,
    make_encoder,
)
from skfp._networks.augmentation import flip_and_shift
from skfp._report.numbers import N_NEIGHBOURS, neighbours, overlap
from skfp._training import TrainingSet, completed_epochs, open_checkpoint
from skfp._training.dataset import collate
from skfp._utils.malloc import keep_freed_memory

__all__ = [
    "IMAGE_ENCODERS",
    "N_NEIGHBOURS",
    "PROJECTION_SAMPLE",
    "SMALL_BATCH",
    "TRUNKS",
    "FeatureExtractor",
    "FeatureStore",
    "ImageEncoder",
    "Inference",
    "InputDecoder",
    "PCAProjection",
    "Preprocess",
    "ProjectedFeatureLoss",
    "TrainingSet",
    "collate",
    "completed_epochs",
    "efficientnet_lite0",
    "flip_and_shift",
    "fold_batch_norm",
    "keep_freed_memory",
    "load_loss_network",
    "make_encoder",
    "neighbours",
    "open_checkpoint",
    "overlap",
    "read_images",
]


def read_images(images, resize="auto") -> ImageSet:
    """Read images as fit does by default, or with its parameter `resize`."""
    array = as_array(images, resize)
    return check_images(array, kind_of(images, array), Reading(resize=resize))
