"""The private names of skfp that benchmarks use; nothing else in this package imports any."""

from skfp._data import Preprocess, check_images
from skfp._features import FeatureExtractor, FeatureStore, PCAProjection
from skfp._features.extractor import PROJECTION_SAMPLE
from skfp._loss_network import load_loss_network
from skfp._networks import IMAGE_ENCODERS, ImageEncoder, ProjectedFeatureLoss, fold_batch_norm
from skfp._training import TrainingSet, completed_epochs, open_checkpoint
from skfp._training.dataset import collate
from skfp._utils.malloc import keep_freed_memory

__all__ = [
    "IMAGE_ENCODERS",
    "PROJECTION_SAMPLE",
    "FeatureExtractor",
    "FeatureStore",
    "ImageEncoder",
    "PCAProjection",
    "Preprocess",
    "ProjectedFeatureLoss",
    "TrainingSet",
    "check_images",
    "collate",
    "completed_epochs",
    "fold_batch_norm",
    "keep_freed_memory",
    "load_loss_network",
    "open_checkpoint",
]
