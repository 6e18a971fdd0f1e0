"""What tests share: real frames, the six procedures, small disks, a dask cluster."""

import contextlib
import functools
import os
import subprocess

# Networks of tests are small: threads cost them more than they bring, above all where joblib runs
# several processes. Set before torch is imported, which reads it once; processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder
from skfp.datasets import fetch_lunarlander

# Plugins of pytest may have loaded numpy before; with other threads it rounds otherwise, and a test
# would not learn the same as a process it starts.
threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))

# `make test` and `make test-all` try the same cases each time, `make fuzz` new ones.
_profile = {"deadline": None, "database": None, "print_blob": True}
settings.register_profile("fast", max_examples=200, derandomize=True, **_profile)
settings.register_profile("all", max_examples=2_000, derandomize=True, **_profile)
settings.register_profile("fuzz", max_examples=50_000, **_profile)
settings.load_profile("fast")

PROCEDURES = {
    "I-F-FP": (FeaturePredictionEncoder, "image"),
    "F-F-FP": (FeaturePredictionEncoder, "features"),
    "I-I-PS": (PerceptualAutoencoder, "image"),
    "F-I-PS": (PerceptualAutoencoder, "features"),
    "I-I-PW": (PixelAutoencoder, "image"),
    "F-I-PW": (PixelAutoencoder, "features"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that start a cluster are slow."""
    for item in items:
        if {"dask_client", "ray"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def lander(tmp_path_factory):
    """Forty LunarLander frames, ten from each of four rollouts, with positions."""
    home = tmp_path_factory.mktemp("skfp_data")
    return fetch_lunarlander(n_rollouts=4, n_steps=30, stride=3, data_home=home)


@pytest.fixture(scope="session")
def frames(lander):
    """Sixteen frames of all four rollouts, uint8, 64 by 64."""
    return np.concatenate([lander.images[lander.rollouts == rollout][:4] for rollout in range(4)])


@pytest.fixture(scope="session")
def noise():
    """Make noise images of any shape, uint8, that use the whole range."""

    def make(*shape, seed=0):
        images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        images.flat[:2] = 0, 255
        return images

    return make


@pytest.fixture(scope="session")
def resident_bytes():
    """Measure how much memory this process holds, mapped files included."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs Linux's /proc")

    def read():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    return read


@pytest.fixture
def small_disk(tmp_path):
    """Mount file systems of so many KiB, in memory."""
    with contextlib.ExitStack() as stack:

        def mount(kib, read_only=False):
            folder = tmp_path / f"disk of {kib} KiB"
            folder.mkdir()
            options = f"size={kib}k{',ro' if read_only else ''}"
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"needs to mount a file system: {error}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield mount


@pytest.fixture(scope="session", params=PROCEDURES)
def procedure(request):
    """Make an estimator of one of the six procedures, small and quick by default."""
    estimator, encoder = PROCEDURES[request.param]
    return functools.partial(
        estimator, encoder=encoder, z=3, max_epochs=1, batch_size=16, random_state=0
    )


@pytest.fixture(scope="session")
def trained(procedure, frames):
    """An estimator of one of the six procedures, fitted to frames; validated on the first seven."""
    return procedure(max_epochs=2, batch_size=9).fit(frames, X_val=frames[:7])


@pytest.fixture(
    scope="session", params=[FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder]
)
def quick(request):
    """Make one of the three estimators, small and quick by default."""
    return functools.partial(request.param, z=3, max_epochs=1, batch_size=16, random_state=0)


@pytest.fixture(scope="session")
def dask_client():
    """Two dask workers, each a process with one thread."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
