"""
=============================
What autoencoders reconstruct
=============================

Two of the three estimators decode an embedding to an image again. One compares the pixels of the
image with those of the original, the other their features in a pretrained network.
"""

# %%
# Train both
# ----------
# An epoch of the second takes longer, because its loss network processes the decoded images in
# every training step.
import matplotlib.pyplot as plt
import numpy as np

from skfp import PerceptualAutoencoder, PixelAutoencoder, ReconstructionDisplay
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1).images[:2000]
settings = {"z": 64, "max_epochs": 8, "batch_size": 64, "random_state": 0, "verbose": 1}
pixel = PixelAutoencoder(**settings).fit(frames)
perceptual = PerceptualAutoencoder(**settings).fit(frames)

# %%
# What comes back
# ---------------
# Frames of rollouts that neither was trained on. Both were trained for a few epochs only. The pixel
# autoencoder draws the ground and leaves the lander out, whose few pixels hardly count. The
# perceptual one draws it less cleanly, and covers the sky with a grid that its loss network
# tolerates; of the lander there is a spot of colour at best. How well the embeddings of both tell
# where it is, :ref:`sphx_glr_gallery_plot_six_procedures.py` measures.
unseen = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1).images
chosen = np.random.default_rng(0).choice(len(unseen), 8, replace=False)

display = ReconstructionDisplay.from_estimator(pixel, unseen[chosen])
display.figure_.suptitle("PixelAutoencoder")
display = ReconstructionDisplay.from_estimator(perceptual, unseen[chosen])
display.figure_.suptitle("PerceptualAutoencoder")
plt.show()
