"""
=============================
Choosing z with a grid search
=============================

The size of the embedding, ``z``, is a parameter like any other: a grid search over a pipeline finds
the best one for the task. The features of the loss network do not depend on it. With ``memory``,
the encoder computes them once.
"""

# %%
# Frames of a game, and where the lander is in them
# -------------------------------------------------
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, GroupShuffleSplit
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

data = fetch_lunarlander(run=2, n_rollouts=600, stride=15, n_jobs=-1)
train = data.rollouts < 300
images, positions, rollouts = data.images[train], data.positions[train], data.rollouts[train]

# %%
# The search
# ----------
# Frames of one rollout resemble each other, so that a rollout is either trained on or tested on.
# The scorer is the mean distance in pixels, of which a unit of the simulator has 32.


def negative_distance(model, X, y):
    """Mean distance between predicted and true position, negative so that larger is better."""
    return -32 * np.linalg.norm(model.predict(X) - y, axis=1).mean()


pipeline = Pipeline(
    [
        ("encoder", FeaturePredictionEncoder(max_epochs=5, batch_size=32, random_state=0)),
        ("scaler", StandardScaler()),
        ("regressor", MultiOutputRegressor(SVR(C=3, epsilon=0.01))),
    ]
)
with TemporaryDirectory() as folder:
    search = GridSearchCV(
        pipeline.set_params(encoder__memory=folder),
        {"encoder__z": [2, 8, 32, 128]},
        scoring=negative_distance,
        cv=GroupShuffleSplit(n_splits=2, test_size=0.3, random_state=0),
        refit=False,
    )
    search.fit(images, positions, groups=rollouts)

# %%
# Error against z
# ---------------
# A dot is one of the two splits, the line their mean. Two numbers are too few to hold where the
# lander is besides everything else in a frame, and from some number on more do not help.
#
# The first fit on a training set also computes the features, and takes longer; the following ones
# read them.
results = search.cv_results_
z = results["param_encoder__z"].astype(int)
splits = -np.array([results["split0_test_score"], results["split1_test_score"]])
print("best:", search.best_params_)
print(
    "seconds per fit:",
    dict(zip(z.tolist(), results["mean_fit_time"].round(1).tolist(), strict=True)),
)

figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.plot(z, splits.mean(axis=0), color="C0")
ax.plot(z, splits.T, "o", color="C0")
ax.set_xscale("log", base=2)
ax.set_xticks(z, labels=z)
ax.set(
    xlabel="z, numbers per image", ylabel="distance to the true position (pixels)", ylim=(0, None)
)
plt.show()
