"""Fits give what version 0.1 gave: its embeddings, losses and files are stored in tests/golden."""

import sys
from pathlib import Path

import numpy as np
import pytest

from skfp import FeaturePredictionEncoder

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import make_stored_fits as stored  # noqa: E402


@pytest.fixture(scope="module")
def stored_frames():
    return np.load(GOLDEN / "frames.npz")["frames"]


@pytest.fixture(scope="module")
def assert_as_stored():
    """Compare bit for bit where arithmetic rounds as it did when the results were stored."""
    rounding = np.load(GOLDEN / "stored_fits.npz")["rounding"]
    if np.array_equal(rounding, stored.rounding_of_this_processor()):
        return np.testing.assert_array_equal
    # Training enlarges the differences of rounding between processors.
    return lambda actual, expected: np.testing.assert_allclose(
        actual, expected, rtol=0.05, atol=0.05
    )


def test_every_procedure_trains_as_in_version_0_1(stored_frames, assert_as_stored):
    expected = np.load(GOLDEN / "stored_fits.npz")
    results = stored.results(stored_frames)
    assert {*results} == {*expected.files} - {"rounding"}
    for name, values in results.items():
        assert_as_stored(values, expected[name])


def test_a_file_saved_by_version_0_1_loads(stored_frames):
    encoder = FeaturePredictionEncoder.load(GOLDEN / "version_0_1.safetensors")
    expected = np.load(GOLDEN / "version_0_1.npy")
    np.testing.assert_allclose(encoder.transform(stored_frames), expected, atol=1e-5)
    again = encoder.partial_fit(stored_frames[:8])
    assert np.isfinite(again.transform(stored_frames)).all()


def test_an_onnx_file_of_version_0_1_embeds_as_the_saved_encoder(stored_frames):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    session = onnxruntime.InferenceSession(GOLDEN / "version_0_1.onnx")
    (embedding,) = session.run(None, {"images": stored_frames})
    encoder = FeaturePredictionEncoder.load(GOLDEN / "version_0_1.safetensors")
    np.testing.assert_allclose(encoder.transform(stored_frames), embedding, atol=1e-4)
