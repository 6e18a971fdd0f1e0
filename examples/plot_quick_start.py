"""
===========
Quick start
===========

Many unlabelled images, few labels: pretrain an encoder on the former, and let a small network learn
from the latter. The images are frames of a game, and the label is where the lander is.
"""

# %%
# Unlabelled frames
# -----------------
# The frames are generated here by the simulator. Nobody says where the lander is.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

unlabelled = fetch_lunarlander(run=1, n_rollouts=200, stride=10, n_jobs=-1)
encoder = FeaturePredictionEncoder(z=64, max_epochs=10, random_state=0, verbose=1)
encoder.fit(unlabelled.images)

# %%
# Few labels
# ----------
# The encoder is frozen: only the regressor learns from the labelled frames.
labelled = fetch_lunarlander(run=2, n_rollouts=60, stride=10, n_jobs=-1)
model = make_pipeline(
    FrozenEstimator(encoder),
    StandardScaler(),
    MLPRegressor(hidden_layer_sizes=(64,), max_iter=300, early_stopping=True, random_state=0),
)
model.fit(labelled.images, labelled.positions)

# %%
# Frames that neither has seen
# ----------------------------
test = fetch_lunarlander(run=3, n_rollouts=10, stride=10, n_jobs=-1)
predicted = model.predict(test.images)

fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for axis, name, true, guess in zip(axes, "xy", test.positions.T, predicted.T, strict=True):
    axis.scatter(true, guess, s=8)
    ends = np.array([true.min(), true.max()])
    axis.plot(ends, ends, color="black", linewidth=1)
    axis.set(title=f"position {name} of the lander", xlabel="true", ylabel="predicted")
plt.show()
