"""Image collections, each as a scikit-learn ``Bunch``."""

from ._cifar10 import fetch_cifar10
from ._fashion_mnist import fetch_fashion_mnist
from ._lunarlander import fetch_lunarlander
from ._stl10 import fetch_stl10
from ._svhn import fetch_svhn

__all__ = [
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_lunarlander",
    "fetch_stl10",
    "fetch_svhn",
]
