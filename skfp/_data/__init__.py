"""Images in any accepted form as tensors, read batch by batch."""

from .._images.formats import ImageFormat
from .decoding import encode, restore_size
from .image_set import ImageSet, Reading, check_images, check_images_like
from .preprocess import InputDecoder, Preprocess

__all__ = [
    "ImageFormat",
    "ImageSet",
    "InputDecoder",
    "Preprocess",
    "Reading",
    "check_images",
    "check_images_like",
    "encode",
    "restore_size",
]
