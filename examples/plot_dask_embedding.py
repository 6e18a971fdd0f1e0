"""
========================================
Embedding a collection on a dask cluster
========================================

A collection that is larger than memory lies on disk in chunks. dask hands them to its workers,
which embed them one by one and write the embedding beside it. No process ever holds the whole.
"""

# %%
# A collection in chunks
# ----------------------
# zarr keeps an array as many compressed files. Here are some frames of a game; the same lines
# handle hundreds of millions.
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from dask.distributed import Client, SubprocessCluster

from skfp import FeaturePredictionEncoder
from skfp.datasets import fetch_lunarlander

frames = fetch_lunarlander(run=1, n_rollouts=600, stride=15, n_jobs=-1).images
folder = Path(tempfile.mkdtemp())
da.from_array(frames, chunks=(500, 64, 64, 3)).to_zarr(str(folder / "images.zarr"))

# %%
# An encoder, trained on a part
# -----------------------------
encoder = FeaturePredictionEncoder(z=64, max_epochs=1, random_state=0, verbose=1)
encoder.fit(frames[:2000])

# %%
# Nothing is computed yet
# -----------------------
# ``map_blocks`` calls `transform` for each chunk when the result is asked for. Its parameters say
# what the result looks like: the axes of the images are dropped, and one of `z` numbers is new.
images = da.from_zarr(str(folder / "images.zarr"))
embedding = images.map_blocks(
    encoder.transform,
    dtype="float32",
    drop_axis=[1, 2, 3],
    new_axis=1,
    chunks=(images.chunks[0], (encoder.z,)),
)
print(embedding)

# %%
# One worker, two workers
# -----------------------
# Each worker is a process with one thread. On a cluster of your own, use
# ``Client("scheduler:8786")``; the rest stays the same. Every worker embeds something before the
# clock starts, which leaves out the time that they take to start. The encoder, some 20 MB, travels
# with the graph of tasks: dask warns of graphs above 10 MB.
dask.config.set({"distributed.admin.large-graph-warning-threshold": "100MB"})
speeds = {}
for n_workers in (1, 2):
    with (
        SubprocessCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(encoder.transform, frames[:500])
        start = time.perf_counter()
        embedding.to_zarr(str(folder / "embedding.zarr"), overwrite=True)
        speeds[n_workers] = len(frames) / (time.perf_counter() - start)

# %%
# The embedding that is now on disk is that of an array in memory.
stored = da.from_zarr(str(folder / "embedding.zarr"))
difference = np.abs(stored[:500].compute() - encoder.transform(frames[:500])).max()
print(f"largest difference: {difference:.1e}")

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
bars = ax.bar([str(n_workers) for n_workers in speeds], speeds.values(), width=0.5)
ax.bar_label(bars, fmt="{:,.0f}")
ax.axhline(2 * speeds[1], color="0.5", linestyle=":", label="twice the speed of one worker")
ax.set(xlabel="workers of one thread each", ylabel="images per second", ylim=(0, 2.3 * speeds[1]))
ax.legend(loc="upper left")
plt.show()
