"""
=================
Exporting to ONNX
=================

A program that embeds images needs neither this package nor PyTorch: an ONNX file holds the encoder
with its preprocessing, and any ONNX runtime computes the same embedding from the same images.
"""

# %%
# Train and export
# ----------------
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1).images
encoder = FeaturePredictionEncoder(z=64, max_epochs=4, random_state=0, verbose=1)
encoder.fit(frames[:3000])

folder = TemporaryDirectory()
path = Path(folder.name, "encoder.onnx")
encoder.to_onnx(path)
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

# %%
# Embed elsewhere
# ---------------
# The file takes images in the layout and type of those in `fit`, here uint8 with the channels last,
# in batches of any size.
session = onnxruntime.InferenceSession(path)
for tensor in (*session.get_inputs(), *session.get_outputs()):
    print(tensor.name, tensor.type, tensor.shape)

unseen = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1).images
(by_onnx,) = session.run(["embedding"], {"images": unseen})
by_skfp = encoder.transform(unseen)
difference = np.abs(by_onnx - by_skfp)
print(f"greatest difference: {difference.max():.1e}")

# %%
# The same numbers
# ----------------
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
left.plot(by_skfp.ravel(), by_onnx.ravel(), ".", ms=2, rasterized=True)
left.set(xlabel="transform", ylabel="onnxruntime", title="All numbers of all embeddings")
left.set_aspect("equal")
right.hist(difference.ravel(), bins=np.geomspace(1e-9, 1e-3, 61))
right.axvline(1e-4, color="black", linestyle=":", label="promised: at most 1e-4")
right.set(xscale="log", xlabel="absolute difference", ylabel="numbers", title="How far they differ")
right.legend()
plt.show()
folder.cleanup()
