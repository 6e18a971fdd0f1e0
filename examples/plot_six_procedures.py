"""
===============================
The six procedures side by side
===============================

Three estimators, each with an encoder that takes the image or its features, are the six
procedures of the paper. They are trained here on the same frames for the same small number of
epochs, which is not the same number of seconds.
"""

# %%
# Names
# -----
# The paper's names say (encoder)-(decoder)-(loss): I stands for image and F for features; FP for
# feature prediction, PS for perceptual similarity and PW for pixel-wise comparison.
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
from skfp.datasets import fetch_lunarlander

budget = {"z": 64, "max_epochs": 4, "batch_size": 64, "random_state": 0}
procedures = {
    "I-F-FP": FeaturePredictionEncoder(**budget),
    "F-F-FP": FeaturePredictionEncoder(encoder="features", **budget),
    "I-I-PS": PerceptualAutoencoder(**budget),
    "F-I-PS": PerceptualAutoencoder(encoder="features", **budget),
    "I-I-PW": PixelAutoencoder(**budget),
    "F-I-PW": PixelAutoencoder(encoder="features", **budget),
}

# %%
# Train all of them
# -----------------
# Every embedding goes through the same small regressor, which learns where the lander is.
unlabelled = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1)
labelled = fetch_lunarlander(run=2, n_rollouts=600, stride=15, n_jobs=-1)
test = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1)

measured = {}
for name, estimator in procedures.items():
    start = time.perf_counter()
    estimator.fit(unlabelled.images[:1500])
    seconds = time.perf_counter() - start
    probe = make_pipeline(StandardScaler(), MultiOutputRegressor(SVR(C=3, epsilon=0.01)))
    probe.fit(estimator.transform(labelled.images[:2000]), labelled.positions[:2000])
    errors = probe.predict(estimator.transform(test.images)) - test.positions
    # 32 pixels are a unit of the simulator.
    distance = 32 * np.linalg.norm(errors, axis=1).mean()
    measured[name] = seconds, distance
    print(f"{name}: {seconds:5.1f} s, {distance:4.1f} pixels")

# %%
# Error against seconds
# ---------------------
# After so few epochs on so few frames none of them is done, and the order may yet change; the paper
# trained for 50 epochs on 84,000 frames. What shows already: feature prediction takes the least
# time, as it decodes no image and computes its targets once; and comparing pixels teaches little
# about a lander that is a few of them.
guess = 32 * np.linalg.norm(labelled.positions.mean(axis=0) - test.positions, axis=1).mean()
colors = {"FP": "C0", "PS": "C1", "PW": "C2"}
losses = {"FP": "feature prediction", "PS": "perceptual similarity", "PW": "pixel-wise"}

figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, (seconds, distance) in measured.items():
    ax.plot(seconds, distance, "o" if name.startswith("I") else "s", ms=10, color=colors[name[-2:]])
    ax.annotate(name, (seconds, distance), xytext=(8, -14), textcoords="offset points")
ax.axhline(guess, color="black", linestyle=":", label="always the mean position")
for loss, label in losses.items():
    ax.plot([], [], "o", color=colors[loss], label=label)
ax.plot([], [], "o", color="0.5", label="encoder takes the image")
ax.plot([], [], "s", color="0.5", label="encoder takes features")
ax.set(
    xlabel="seconds of fit",
    ylabel="distance to the true position (pixels)",
    xlim=(0, 1.15 * max(s for s, _ in measured.values())),
    ylim=(0, 1.15 * guess),
)
ax.legend(loc="lower right")
plt.show()
