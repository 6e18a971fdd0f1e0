"""
=====================
Serving without torch
=====================

A program that embeds images needs no PyTorch: an ONNX file holds the encoder, and how it reads.
:class:`~skfp.OnnxEncoder` makes a scikit-learn transformer of it, and with a scikit-learn model
behind the encoder the file predicts in any ONNX runtime.
"""

# %%
# Train and export
# ----------------
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfp import FeaturePredictionEncoder, OnnxEncoder
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1)
encoder = FeaturePredictionEncoder(z=64, max_epochs=4, random_state=0, verbose=1)
encoder.fit(frames.images[:3000])

folder = TemporaryDirectory()
path = Path(folder.name, "encoder.onnx")
encoder.to_onnx(path)
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

# %%
# Embed elsewhere
# ---------------
# With NumPy, scikit-learn, Pillow and ONNX Runtime (``pip install 'skfp[serve]'``), the file gives
# the same numbers, from images of any type and layout that the encoder takes.
served = OnnxEncoder(path)
unseen = fetch_lunarlander(run=3, n_rollouts=100, stride=15, n_jobs=-1)
by_skfp = encoder.transform(unseen.images)
by_onnx = served.transform(unseen.images)
of_floats = served.transform(unseen.images.transpose(0, 3, 1, 2) / 255)
print(f"greatest difference: {np.abs(by_onnx - by_skfp).max():.1e}")
print(f"of floats, channels first: {np.abs(of_floats - by_skfp).max():.1e}")

# %%
# Predict in one file
# -------------------
# A regressor learns where the lander is, and goes into the file too: frames in, positions out.
head = make_pipeline(
    StandardScaler(),
    MLPRegressor(hidden_layer_sizes=(128,), early_stopping=True, max_iter=300, random_state=0),
)
head.fit(encoder.transform(frames.images), frames.positions)
encoder.to_onnx(Path(folder.name, "model.onnx"), head=head)

session = onnxruntime.InferenceSession(Path(folder.name, "model.onnx"))
for tensor in (*session.get_inputs(), *session.get_outputs()):
    print(tensor.name, tensor.type, tensor.shape)
(positions,) = session.run(["prediction"], {"images": unseen.images})

# %%
# The same numbers, and what they are good for
# --------------------------------------------
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
left.hist(np.abs(by_onnx - by_skfp).ravel(), bins=np.geomspace(1e-10, 1e-4, 61))
left.axvline(1e-5, color="black", linestyle=":", label="promised: at most 1e-5")
left.set(xscale="log", xlabel="absolute difference", ylabel="numbers", title="Embeddings differ by")
left.legend()
right.plot(*unseen.positions[:200].T, "k.", label="true")
right.plot(*positions[:200].T, ".", label="from model.onnx")
right.set(xlabel="x", ylabel="y", title="Positions of the lander", aspect="equal")
right.legend()
plt.show()
folder.cleanup()
