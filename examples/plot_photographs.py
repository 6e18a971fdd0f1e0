"""
=====================================
Few labels in a folder of photographs
=====================================

A folder of photographs, a large network to learn from, a small encoder, a classifier. Pass a folder
with a subfolder for each class to use photographs of your own::

    python examples/plot_photographs.py FOLDER
"""

# %%
# The photographs
# ---------------
# Stand-ins for your own are crops of two photographs. Their class is the photograph, and whether
# they come from its upper or lower half.
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfp import EmbeddingDisplay, FeaturePredictionEncoder, ImageLoader


def cut_photographs(folder):
    """Write crops into class folders."""
    random = np.random.default_rng(0)
    for name in ("china", "flower"):
        photograph = load_sample_image(f"{name}.jpg")
        middle = len(photograph) // 2
        for half, part in (("upper", photograph[:middle]), ("lower", photograph[middle:])):
            crops = Path(folder, f"{name}, {half} half")
            crops.mkdir()
            for number in range(150):
                top, left = random.integers(0, np.array(part.shape[:2]) - 96)
                crop = Image.fromarray(part[top : top + 96, left : left + 96])
                crop.save(crops / f"{number:03}.jpg")


own = sys.argv[1:2] if Path(sys.argv[0]).name.startswith("plot_") else []
temporary = TemporaryDirectory()
folder = Path(own[0] if own else temporary.name)
if not own:
    cut_photographs(folder)
paths = np.array(sorted(path for path in folder.glob("*/*") if path.is_file()))
labels = np.array([path.parent.name for path in paths])
images = ImageLoader(size=96).fit_transform(paths)
print(f"{len(images)} photographs of {len(set(labels))} classes")

# %%
# An encoder for these photographs
# --------------------------------
# ``loss_network="photo"`` is EfficientNet-Lite0, whose weights come with the package. The encoder
# learns from all photographs, and no label.
start = time.perf_counter()
encoder = FeaturePredictionEncoder(z=64, loss_network="photo", max_epochs=15, random_state=0)
encoder.fit(images)
print(f"Trained in {time.perf_counter() - start:.0f} s")

# %%
# Five labels of each class
# -------------------------
# Principal components of the pixels, of the same number, show what the labels alone can do.
n_labelled = 5 * len(set(labels))
labelled, test, y, y_test = train_test_split(
    images, labels, train_size=n_labelled, stratify=labels, random_state=0
)
pixels = PCA(64, random_state=0).fit(images.reshape(len(images), -1))
for name, embed in (("encoder", encoder.transform), ("pixels", None)):
    if embed is None:
        embed = lambda X: pixels.transform(X.reshape(len(X), -1))  # noqa: E731
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(embed(labelled), y)
    print(f"{name}: accuracy {model.score(embed(test), y_test):.3f} with {n_labelled} labels")

# %%
# The encoder and a classifier are one model, which takes images.
model = make_pipeline(FrozenEstimator(encoder), StandardScaler(), LogisticRegression(max_iter=1000))
model.fit(labelled, y)
print(model.predict(test[:3]))

# %%
# The embedding
# -------------
EmbeddingDisplay.from_estimator(encoder, images, labels, random_state=0)
plt.show()
temporary.cleanup()
