"""
=======================
Few labels, many images
=======================

Images are cheap and labels are not. An encoder is pretrained on all images, of which nobody has
said anything, and frozen; what comes after it in a pipeline learns from the few that have labels.
"""

# %%
# Pretrain without labels
# -----------------------
# The frames of a game are unlabelled here. Beside the encoder, principal components of the pixels
# are learned from the same frames.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

unlabelled = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1)
encoder = FeaturePredictionEncoder(z=64, max_epochs=6, random_state=0, verbose=1)
encoder.fit(unlabelled.images)


def to_rows(images):
    """Pixels of each image as one row in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


pixel_pca = make_pipeline(
    FunctionTransformer(to_rows), PCA(n_components=64, svd_solver="randomized", random_state=0)
)
pixel_pca.fit(unlabelled.images)

# %%
# Learn from ever more labels
# ---------------------------
# :class:`~sklearn.frozen.FrozenEstimator` keeps what was pretrained: fitting the pipeline fits the
# regressor only. It learns where the lander is from a growing number of labelled frames, three
# times from other ones.
labelled = fetch_lunarlander(run=2, n_rollouts=600, stride=15, n_jobs=-1)
test = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1)

numbers_of_labels = [25, 50, 100, 200, 400, 800]
embeddings = {"FeaturePredictionEncoder": encoder, "principal components of pixels": pixel_pca}
distances = {name: np.empty((3, len(numbers_of_labels))) for name in embeddings}
for row in range(3):
    order = np.random.default_rng(row).permutation(len(labelled.images))
    for column, n_labels in enumerate(numbers_of_labels):
        chosen = order[:n_labels]
        for name, embedding in embeddings.items():
            model = make_pipeline(
                FrozenEstimator(embedding),
                StandardScaler(),
                MultiOutputRegressor(SVR(C=3, epsilon=0.01)),
            )
            model.fit(labelled.images[chosen], labelled.positions[chosen])
            errors = model.predict(test.images) - test.positions
            # 32 pixels are a unit of the simulator.
            distances[name][row, column] = 32 * np.linalg.norm(errors, axis=1).mean()

# %%
# Error against labels
# --------------------
# Lines are means of three draws of labelled frames, bands their range.
guess = 32 * np.linalg.norm(labelled.positions.mean(axis=0) - test.positions, axis=1).mean()

figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for (name, values), marker in zip(distances.items(), "os", strict=True):
    ax.plot(numbers_of_labels, values.mean(axis=0), marker=marker, label=name)
    ax.fill_between(numbers_of_labels, values.min(axis=0), values.max(axis=0), alpha=0.2)
    print(name, dict(zip(numbers_of_labels, values.mean(axis=0).round(1).tolist(), strict=True)))
ax.axhline(guess, color="black", linestyle=":", label="always the mean position")
ax.set_xscale("log")
ax.set_xticks(numbers_of_labels, labels=numbers_of_labels)
ax.minorticks_off()
ax.set(xlabel="labelled frames", ylabel="distance to the true position (pixels)", ylim=(0, None))
ax.legend()
plt.show()
