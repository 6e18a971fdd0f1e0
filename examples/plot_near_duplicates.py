"""
=======================
Finding near-duplicates
=======================

Copies of an image that were moved a little, recompressed or made brighter differ from it in every
pixel, and look the same. In the embedding they are neighbours.
"""

# %%
# Crops of two photographs
# ------------------------
# The collection holds crops of the photographs that come with scikit-learn. They overlap,
# so that a crop has true neighbours beside its copy. Crops of nothing but sky or shadow are left
# out.
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from skfp import FeaturePredictionEncoder

side, margin = 64, 4
random = np.random.default_rng(0)
photographs = load_sample_images().images


def crop(photograph, top, left):
    """One square of a photograph."""
    return photographs[photograph][top : top + side, left : left + side]


# Both photographs are of one size; copies are cut up to `margin` pixels away.
height, width = photographs[0].shape[:2]
places = np.column_stack(
    [
        random.integers(len(photographs), size=6000),
        random.integers(margin, height - side - margin, size=6000),
        random.integers(margin, width - side - margin, size=6000),
    ]
)
contrasts = np.array([crop(*place).std(axis=(0, 1)).mean() for place in places])
places = places[contrasts > 25][:3000]
collection = np.stack([crop(*place) for place in places])
print(len(collection), "crops")

# %%
# Copies
# ------
# Each of 500 crops is cut anew up to four pixels away, brightened or darkened, and compressed hard.


def altered_copy(photograph, top, left):
    """The crop moved, brighter or darker, and recompressed."""
    down, right = random.integers(-margin, margin + 1, size=2)
    image = Image.fromarray(crop(photograph, top + down, left + right))
    image = ImageEnhance.Brightness(image).enhance(random.uniform(0.7, 1.3))
    file = BytesIO()
    image.save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file))


originals = random.choice(len(collection), 500, replace=False)
copies = np.stack([altered_copy(*places[row]) for row in originals])

# %%
# Neighbours
# ----------
# How many of the copies have their original as nearest neighbour, in the embedding and among
# principal components of the pixels?
encoder = FeaturePredictionEncoder(z=64, max_epochs=15, random_state=0, verbose=1)
embedded = encoder.fit_transform(collection)
neighbours = NearestNeighbors(n_neighbors=5).fit(embedded)
distances, found = neighbours.kneighbors(encoder.transform(copies))

pca = PCA(n_components=64, random_state=0)
pixels = pca.fit_transform(collection.reshape(len(collection), -1) / 255)
found_by_pixels = (
    NearestNeighbors(n_neighbors=5)
    .fit(pixels)
    .kneighbors(pca.transform(copies.reshape(len(copies), -1) / 255), return_distance=False)
)
for name, rows in (("embedding", found), ("pixels", found_by_pixels)):
    first = np.mean(rows[:, 0] == originals)
    five = np.mean((rows == originals[:, None]).any(axis=1))
    print(f"{name}: original found first {first:.0%}, among the first five {five:.0%}")

# %%
# A row is one of the first six copies and the five crops nearest to it in the embedding; the
# original is framed. The others overlap with it: where one does almost wholly, it may come first.
figure, axes = plt.subplots(6, 6, figsize=(8, 8.4), layout="constrained")
for row, panels in zip(range(6), axes, strict=True):
    panels[0].imshow(copies[row])
    for panel, neighbour, distance in zip(panels[1:], found[row], distances[row], strict=True):
        panel.imshow(collection[neighbour])
        panel.set_xlabel(f"{distance:.2f}", labelpad=2)
        if neighbour == originals[row]:
            panel.spines[:].set(color="C1", linewidth=4)
for panel in axes.flat:
    panel.set(xticks=[], yticks=[])
axes[0, 0].set_title("altered copy", fontsize=10)
axes[0, 1].set_title("nearest", fontsize=10)
figure.supxlabel("distance in the embedding")
plt.show()
