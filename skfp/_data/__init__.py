"""Images in any accepted form, read batch by batch."""

from .formats import ImageFormat
from .image_set import ImageSet, Reading, as_array, check_images, check_images_like
from .preprocess import InputDecoder, Preprocess
from .sources import Source
from .value_range import kind_of

__all__ = [
    "ImageFormat",
    "ImageSet",
    "InputDecoder",
    "Preprocess",
    "Reading",
    "Source",
    "as_array",
    "check_images",
    "check_images_like",
    "kind_of",
]
