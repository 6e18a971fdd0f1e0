"""
======================
Learning from a stream
======================

Images that do not fit into memory, or are not all there yet, come in batches. ``partial_fit``
trains on each batch once and may then forget it.
"""

# %%
# A stream
# --------
# Each batch holds frames of a game that no batch before has shown. The first one is the largest:
# from it the encoder also learns what to predict.
import matplotlib.pyplot as plt
import numpy as np

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1).images
unseen = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1).images


def stream():
    yield frames[:2000]
    yield from np.array_split(frames[2000:], 8)


# %%
# Learn as they come
# ------------------
# After each batch the score, which is the negative loss, says how well the features of unseen
# frames are predicted. Small training steps (`batch_size`) make more of few images.
encoder = FeaturePredictionEncoder(z=64, batch_size=32, lr=1e-3, lr_schedule=None, random_state=0)
n_seen, losses = [], []
for batch in stream():
    encoder.partial_fit(batch)
    n_seen.append(len(batch))
    losses.append(-encoder.score(unseen))
n_seen = np.cumsum(n_seen)

# %%
# One pass against several
# ------------------------
# `fit` sees all frames several times, and ends at a lower loss: a stream is for where that cannot
# be had.
fitted = FeaturePredictionEncoder(z=64, max_epochs=5, random_state=0).fit(frames)

figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.plot(n_seen, losses, "o-", label="partial_fit, each frame once")
ax.axhline(-fitted.score(unseen), color="C1", linestyle="--", label="fit, five epochs")
ax.set(xlabel="frames seen", ylabel="loss on unseen frames", ylim=(0, None))
ax.legend()
plt.show()
