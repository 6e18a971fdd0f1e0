"""Image collections, each as a scikit-learn ``Bunch``."""

from ._cifar10 import fetch_cifar10
from ._fashion_mnist import fetch_fashion_mnist
from ._image_folder import fetch_image_folder
from ._lunarlander import fetch_lunarlander
from ._stl10 import fetch_stl10
from ._svhn import fetch_svhn

__all__ = [
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_image_folder",
    "fetch_lunarlander",
    "fetch_stl10",
    "fetch_svhn",
]
