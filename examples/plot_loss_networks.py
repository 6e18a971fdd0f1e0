"""
===========================
Which network to learn from
===========================

The encoder learns to predict the features of a loss network. A :class:`~skfp.LossNetwork` says
which network that is, where it is cut and what is done with its features. A search can vary its
parameters like all others.
"""

# %%
# What is offered
# ---------------
# The weights of AlexNet's first two layers come with the package. Others are downloaded when they
# are first used. Any other model of torchvision or timm, and any module or function, may be a loss
# network too.
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline

from skfp import FeaturePredictionEncoder, LossNetwork, loss_networks
from skfp.datasets import fetch_lunarlander

pd.DataFrame(loss_networks())

# %%
# Four candidates
# ---------------
# The second layer as in the paper; the first layer; the second layer in a coarse grid; and the
# first two together, the second with twice the share. The small encoder has half the channels of
# the paper's.
candidates = {
    "relu2": "alexnet",
    "relu1": LossNetwork("alexnet", layer="features.1"),
    "relu2, grid of 3": LossNetwork("alexnet", pool=3),
    "relu1 and relu2": [
        LossNetwork("alexnet", layer="features.1"),
        LossNetwork("alexnet", weight=2.0),
    ],
}
encoder = FeaturePredictionEncoder(z=64, encoder="small", max_epochs=6, random_state=0)
probe = MLPRegressor(hidden_layer_sizes=(64,), early_stopping=True, max_iter=300, random_state=0)
search = GridSearchCV(
    Pipeline([("encoder", encoder), ("probe", probe)]),
    {"encoder__loss_network": list(candidates.values())},
    scoring="neg_mean_absolute_error",
    cv=2,
    refit=False,
)

# %%
# Search
# ------
# Each candidate is trained on one half of the frames, and judged by where a probe thinks that the
# lander of a frame of the other half is. Here the labels are as many as the images; with few
# labels, train the encoder on all images first (see :ref:`sphx_glr_gallery_plot_few_labels.py`).
data = fetch_lunarlander(run=2, n_rollouts=600, stride=15, n_jobs=-1)
search.fit(data.images[:4000], data.positions[:4000])

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
# An error of 1 is half the width of the image, 32 pixels.
error = -32 * search.cv_results_["mean_test_score"]
ax.barh(list(candidates), error, xerr=32 * search.cv_results_["std_test_score"], color="0.6")
ax.invert_yaxis()
ax.set_xlabel("mean error of a coordinate of the lander (pixels)")
ax.set_title("The same encoder, taught by four loss networks")
plt.show()
