"""Images in any accepted form, read batch by batch."""

from .formats import ImageFormat
from .image_set import ImageSet, as_array, check_images, check_images_like
from .preprocess import InputDecoder, Preprocess
from .sources import Source

__all__ = [
    "ImageFormat",
    "ImageSet",
    "InputDecoder",
    "Preprocess",
    "Source",
    "as_array",
    "check_images",
    "check_images_like",
]
