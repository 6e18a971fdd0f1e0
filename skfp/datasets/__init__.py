"""Image collections of the paper, each as a scikit-learn ``Bunch``."""

from ._lunarlander import fetch_lunarlander
from ._published import fetch_fashion_mnist, fetch_stl10, fetch_svhn

__all__ = ["fetch_fashion_mnist", "fetch_lunarlander", "fetch_stl10", "fetch_svhn"]
