"""
============================
Features of the loss network
============================

The encoder learns to predict features of a pretrained network instead of pixels. Here is what these
features look like, and where in an image they are predicted badly.
"""

# %%
# Feature maps
# ------------
# The loss network is AlexNet, trained on photographs and cut after its second ReLU. It turns an
# image into 192 maps; a sigmoid brings them to between 0.5, where a channel finds nothing, and 1.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_image

from skfp import FeatureErrorDisplay, FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1).images
encoder = FeaturePredictionEncoder(z=64, max_epochs=6, random_state=0, verbose=1)
encoder.fit(frames[:4000])

photograph = load_sample_image("china.jpg")
pixels = torch.tensor(photograph).permute(2, 0, 1)[None] / 255
loss_network = encoder.loss_network_
maps = loss_network(pixels).unflatten(1, loss_network.maps_shape(photograph.shape[:2]))[0].numpy()
print("feature maps of the photograph:", maps.shape)

# %%
# The eleven channels whose maps vary most: some answer to the plain sky, some to leaves, some to
# the edges of the roofs.
strongest = np.argsort(maps.std(axis=(1, 2)))[::-1][:11]
figure, axes = plt.subplots(3, 4, figsize=(9, 5), layout="constrained")
axes.flat[0].imshow(photograph)
axes.flat[0].set_title("photograph", fontsize=9)
for ax, channel in zip(axes.flat[1:], strongest, strict=True):
    ax.imshow(maps[channel], cmap="magma", vmin=0.5, vmax=1)
    ax.set_title(f"channel {channel}", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()

# %%
# What is predicted badly
# -----------------------
# The frames of a game are what the encoder was trained on; of each, 64 numbers are left. The
# display lays the error of the predicted features over frames that the encoder was not trained on.
# The sky is predicted well. Errors remain along the outline of the ground, above all far from the
# flat pad in the middle, and around the lander: that is where frames differ.
unseen = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1).images
chosen = np.random.default_rng(0).choice(len(unseen), 8, replace=False)
FeatureErrorDisplay.from_estimator(encoder, unseen[chosen])
plt.show()
