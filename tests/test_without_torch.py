"""An environment of the packages that serving needs, made of links to those installed here."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from skfp import PixelAutoencoder

ROOT = Path(__file__).parents[1]


def required(requirements, extra=""):
    """Names of the packages that some need, and of all that these need."""
    names = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        if one.name not in names and (one.marker is None or one.marker.evaluate({"extra": extra})):
            names.add(one.name)
            waiting += map(Requirement, importlib.metadata.requires(one.name) or [])
    return names


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Run Python where only the packages of the extra "serve" are installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "skfp").symlink_to(ROOT / "skfp")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["serve"]
    for name in required([*project["dependencies"], *extra]):
        distribution = importlib.metadata.distribution(name)
        for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))

    def run(*arguments, **options):
        # Without site-packages.
        return subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            **options,
        )

    return run


SERVE = """
import pickle, sys
import numpy as np
from PIL import Image
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skfp import ImageLoader, OnnxEncoder

folder = sys.argv[1]
frames = np.load(f"{folder}/frames.npy")
encoder = OnnxEncoder(f"{folder}/encoder.onnx")
model = make_pipeline(FrozenEstimator(encoder), StandardScaler()).fit(frames)
assert pickle.loads(pickle.dumps(model)).transform(frames).shape == (16, 3)
for number, frame in enumerate(frames):
    Image.fromarray(frame).save(f"{folder}/{number}.png")
files = [f"{folder}/{number}.png" for number in range(16)]
np.save(f"{folder}/embeddings.npy", [
    encoder.transform(frames),
    encoder.transform(frames / 255),
    encoder.transform([Image.open(file) for file in files]),
    make_pipeline(ImageLoader(64), encoder).transform(files),
])
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def folder(frames, tmp_path_factory):
    """Frames, an encoder of them and its embedding."""
    folder = tmp_path_factory.mktemp("served")
    encoder = PixelAutoencoder(z=3, max_epochs=1, random_state=0).fit(frames)
    encoder.to_onnx(folder / "encoder.onnx")
    np.save(folder / "frames.npy", frames)
    np.save(folder / "expected.npy", encoder.transform(frames))
    return folder


def test_embeds(python, folder):
    done = python("-c", SERVE, folder)
    assert done.returncode == 0, done.stderr
    expected = np.load(folder / "expected.npy")
    for embedding in np.load(folder / "embeddings.npy"):
        np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)


def test_embeds_a_folder(python, folder, tmp_path):
    for number, frame in enumerate(np.load(folder / "frames.npy")):
        Image.fromarray(frame).save(tmp_path / f"{number:02}.png")
    command = ["-m", "skfp", "embed", tmp_path, "--encoder", folder / "encoder.onnx", "--out"]

    done = python(*command, tmp_path / "out.csv")

    assert done.returncode == 0, done.stderr
    numbers = np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3))
    np.testing.assert_allclose(numbers, np.load(folder / "expected.npy"), rtol=0, atol=1e-5)
    refused = python(*command, tmp_path / "out.parquet")
    assert refused.returncode == 2
    assert "pip install pyarrow" in refused.stderr


@pytest.mark.parametrize(
    "code",
    [
        "from skfp import FeaturePredictionEncoder",
        "from skfp.datasets import fetch_stl10; fetch_stl10()",
        "from skfp.datasets import fetch_cifar10; fetch_cifar10(data_home='nothing')",
    ],
)
def test_what_needs_torch_says_so(python, code):
    done = python("-c", code)
    assert "pip install 'skfp[train]'" in done.stderr.splitlines()[-1]
