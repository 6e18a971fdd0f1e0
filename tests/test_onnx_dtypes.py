"""ONNX files with weights of 16 bits, and with arithmetic in 8 bits."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from skfp import FeaturePredictionEncoder, OnnxEncoder

DTYPES = ("float32", "float16", "int8")


@pytest.fixture(scope="module", params=["image", "pretrained"])
def files(request, frames, tmp_path_factory):
    """A fitted encoder and its files, by dtype."""
    encoder = FeaturePredictionEncoder(
        z=8, encoder=request.param, max_epochs=1, batch_size=16, random_state=0
    ).fit(frames)
    folder = tmp_path_factory.mktemp("onnx")
    for dtype in DTYPES:
        encoder.to_onnx(folder / f"{dtype}.onnx", dtype=dtype, X=frames)
    return encoder, {dtype: folder / f"{dtype}.onnx" for dtype in DTYPES}


def neighbours(embedding):
    return NearestNeighbors(n_neighbors=4).fit(embedding).kneighbors()[1]


def test_float16_gives_nearly_the_same(files, frames):
    encoder, paths = files
    expected = encoder.transform(frames)

    embedding = OnnxEncoder(paths["float16"]).transform(frames)

    assert not np.array_equal(embedding, OnnxEncoder(paths["float32"]).transform(frames))
    error = np.sqrt(np.mean((embedding - expected) ** 2))
    assert error < 1e-2 * expected.std()


def test_int8_keeps_most_neighbours(files, frames):
    encoder, paths = files

    embedding = OnnxEncoder(paths["int8"]).transform(frames)

    pairs = zip(neighbours(embedding), neighbours(encoder.transform(frames)), strict=True)
    assert np.mean([len(np.intersect1d(*pair)) / 4 for pair in pairs]) > 0.7  # 0.27 by chance


def test_files_are_smaller_and_valid(files):
    _, paths = files
    for path in paths.values():
        onnx.checker.check_model(path, full_check=True)
    sizes = {dtype: path.stat().st_size for dtype, path in paths.items()}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["int8"] < 0.45 * sizes["float32"]
    assert len(list(paths["int8"].parent.iterdir())) == 3


def test_only_int8_computes_in_8_bits_after_preparing_images(files):
    _, paths = files
    operators = {
        dtype: [node.op_type for node in onnx.load(path).graph.node]
        for dtype, path in paths.items()
    }
    assert "QuantizeLinear" not in operators["float32"] + operators["float16"]
    before = operators["int8"][: operators["int8"].index("QuantizeLinear")]
    assert {"Cast", "Div"} <= set(before)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_onnx_encoder_reads_what_transform_takes(files, frames, dtype):
    _, paths = files
    session = onnxruntime.InferenceSession(paths[dtype], providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"images": frames})
    model = OnnxEncoder(paths[dtype])
    for X in (frames, frames / 255, frames.transpose(0, 3, 1, 2)):
        np.testing.assert_allclose(model.transform(X), expected, rtol=0, atol=1e-2 * expected.std())
    (entry,) = onnx.load(paths[dtype]).metadata_props
    assert json.loads(entry.value)["dtype"] == dtype


@pytest.mark.parametrize("files", ["image"], indirect=True)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_with_a_head(files, frames, tmp_path, dtype):
    encoder, paths = files
    embedding = OnnxEncoder(paths[dtype]).transform(frames)
    head = LogisticRegression().fit(embedding, np.arange(16) % 2)
    encoder.to_onnx(tmp_path / "model.onnx", head=head, dtype=dtype, X=frames)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    probabilities = session.run(["probabilities"], {"images": frames})[0]
    np.testing.assert_allclose(probabilities, head.predict_proba(embedding), atol=1e-3)


@pytest.mark.parametrize("files", ["image"], indirect=True)
def test_int8_calibrates_on_images_in_any_form(files, frames, tmp_path):
    encoder, paths = files
    encoder.to_onnx(tmp_path / "again.onnx", dtype="int8", X=frames.transpose(0, 3, 1, 2) / 255)
    expected = OnnxEncoder(paths["int8"]).transform(frames)
    embedding = OnnxEncoder(tmp_path / "again.onnx").transform(frames)
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-2 * expected.std())


@pytest.mark.parametrize("files", ["image"], indirect=True)
class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dtype": "int4"}, "expected 'float32', 'float16' or 'int8'"),
            ({"dtype": "int8"}, "needs images X"),
            ({"dtype": "int8", "X": np.zeros((2, 32, 32, 3), np.uint8)}, "32"),
        ],
    )
    def test_write_nothing(self, files, tmp_path, options, message):
        encoder, _ = files
        with pytest.raises(ValueError, match=message):
            encoder.to_onnx(tmp_path / "encoder.onnx", **options)
        assert list(tmp_path.iterdir()) == []

    def test_without_onnxruntime(self, files, frames, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
        with pytest.raises(ImportError, match=r"skfp\[onnx,serve\]"):
            files[0].to_onnx(tmp_path / "encoder.onnx", dtype="int8", X=frames)
