"""Embedding with ONNX Runtime: the numbers of the fitted estimator, without torch."""

import json
import pickle

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skfp import FeaturePredictionEncoder, ImageLoader, OnnxEncoder, PixelAutoencoder


def same(onnx_encoder, encoder, X):
    """Compare embeddings that are different enough from each other for a comparison."""
    expected = encoder.transform(X)
    embedding = onnx_encoder.transform(X)
    assert embedding.dtype == np.float32
    assert len(X) < 2 or np.ptp(np.asarray(expected), axis=0).max() > 1e-3
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Fit an encoder quickly, and return it and its file."""

    def fit(X, **parameters):
        parameters = {"z": 3, "max_epochs": 1, "random_state": 0, **parameters}
        encoder = PixelAutoencoder(**parameters).fit(X)
        path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
        encoder.to_onnx(path)
        return encoder, path

    return fit


@pytest.fixture(scope="module")
def served(export, frames):
    """An encoder of uint8 frames, and its file."""
    return export(frames)


@pytest.fixture(scope="module")
def resized(export, frames):
    """An encoder that takes images of any size, and its file."""
    return export(frames, resize=(72, 80))


TRANSFORMED = {
    "as in fit": lambda frames: frames,
    "one": lambda frames: frames[:1],
    "channels first": lambda frames: frames.transpose(0, 3, 1, 2),
    "flattened": lambda frames: frames.reshape(len(frames), -1),
    "table of pixels": lambda frames: pd.DataFrame(frames.reshape(len(frames), -1)),
    "floats to 1": lambda frames: frames / 255,
    "float32 to 1": lambda frames: (frames / 255).astype(np.float32),
    "float16": lambda frames: (frames / 255).astype(np.float16),
    "floats to 255": lambda frames: frames * 0.99,
    "int64": lambda frames: frames.astype(np.int64),
    "big-endian": lambda frames: frames.astype(">u2"),
    "bool": lambda frames: frames > 100,
    "PIL images": lambda frames: [Image.fromarray(frame) for frame in frames],
    "PIL images with alpha": lambda frames: [
        Image.fromarray(frame).convert("RGBA") for frame in frames
    ],
    "column of PIL images": lambda frames: pd.DataFrame({"image": map(Image.fromarray, frames)}),
    "list of arrays": list,
    "nested lists": lambda frames: frames[::8].tolist(),
    "tensor": torch.from_numpy,
    "strided": lambda frames: frames[::-2],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TRANSFORMED)
def test_takes_what_transform_takes(served, frames, name):
    encoder, path = served
    same(OnnxEncoder(path), encoder, TRANSFORMED[name](frames))


FITTED = {
    "floats to 1": (lambda frames: frames / 255, {}),
    "floats from -1": (lambda frames: (frames / 127.5 - 1).astype(np.float32), {}),
    "12 bits": (lambda frames: frames.astype(np.uint16) * 16, {}),
    "bool": (lambda frames: frames[..., 0] > 100, {}),
    "grey": (lambda frames: frames[..., 1], {}),
    "channels first": (lambda frames: frames.transpose(0, 3, 1, 2), {}),
    "rows": (lambda frames: frames.reshape(16, -1), {"image_shape": (64, 64, 3)}),
    "clipped": (lambda frames: frames, {"value_range": (40, 180)}),
    "tiled": (lambda frames: frames[:, ::2, ::3], {"resize": "tile"}),
    "enlarged": (lambda frames: frames[:, ::2, ::3], {}),
    "alpha": (
        lambda frames: np.concatenate([frames, frames[..., :1]], axis=-1),
        {"channels": "rgba"},
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FITTED)
def test_reads_other_images_as_the_fitted_estimator_does(export, frames, name):
    store, parameters = FITTED[name]
    X = store(frames)
    encoder, path = export(X, **parameters)
    onnx_encoder = OnnxEncoder(path)
    same(onnx_encoder, encoder, X)
    others = [X.reshape(len(X), -1)]
    if X.dtype == np.uint8:
        others += [X / 1.0 if name == "clipped" else X / 255]
    elif name != "12 bits":
        others += [frames[..., 0] if X.ndim == 3 else frames]
    if name == "alpha":
        others += [frames]
    for other in others:
        same(onnx_encoder, encoder, other)


class TestAnySize:
    @pytest.mark.parametrize("shape", [(64, 64), (72, 80), (40, 200), (150, 90)])
    def test_arrays(self, resized, noise, shape):
        encoder, path = resized
        X = noise(4, *shape, 3)
        for images in (X, X / 255, X.transpose(0, 3, 1, 2)):
            same(OnnxEncoder(path), encoder, images)

    def test_mixed(self, resized, noise):
        encoder, path = resized
        X = [Image.fromarray(noise(20 * n, 100, 3, seed=n)) for n in range(2, 8)]
        same(OnnxEncoder(path), encoder, X)

    def test_fitted_on_mixed(self, export, noise):
        X = [noise(30 * n, 100, 3, seed=n) for n in range(2, 8)]
        encoder, path = export(X, resize=64)
        same(OnnxEncoder(path), encoder, X)

    def test_other_size_without_resize(self, served, noise):
        with pytest.raises(ValueError, match="resize"):
            OnnxEncoder(served[1]).transform(noise(2, 32, 32, 3))


def test_image_files(served, frames, tmp_path):
    encoder, path = served
    files = [tmp_path / f"{n}.png" for n in range(4)]
    for file, frame in zip(files, frames[::4], strict=True):
        Image.fromarray(frame).save(file)
    pipeline = make_pipeline(ImageLoader(), OnnxEncoder(path))
    expected = make_pipeline(ImageLoader(), encoder).transform(files)
    np.testing.assert_allclose(pipeline.transform(files), expected, rtol=0, atol=1e-5)


def test_encoder_of_features(frames, tmp_path):
    encoder = FeaturePredictionEncoder(
        z=3, encoder="features", loss_network=nn.Conv2d(3, 4, 8, 8), max_epochs=1, random_state=0
    ).fit(frames)
    encoder.to_onnx(tmp_path / "encoder.onnx")
    same(OnnxEncoder(tmp_path / "encoder.onnx"), encoder, frames)


class TestScikitLearn:
    def test_names_are_those_of_the_estimator(self, served, frames):
        encoder, path = served
        table = OnnxEncoder(path).set_output(transform="pandas").transform(frames)
        assert table.columns.tolist() == encoder.get_feature_names_out().tolist()

    def test_classifier_fitted_on_torch_is_served_without(self, served, frames):
        encoder, path = served
        y = np.arange(len(frames)) % 2
        trained = make_pipeline(FrozenEstimator(encoder), LogisticRegression()).fit(frames, y)
        model = make_pipeline(FrozenEstimator(OnnxEncoder(path)), trained[-1])
        np.testing.assert_allclose(
            model.predict_proba(frames), trained.predict_proba(frames), atol=1e-4
        )

    def test_pipeline_fits(self, served, frames):
        model = make_pipeline(OnnxEncoder(served[1]), LogisticRegression())
        assert model.fit(frames, np.arange(len(frames)) % 2).predict(frames).shape == (16,)

    def test_pickle_needs_no_file(self, export, frames, tmp_path):
        encoder, path = export(frames)
        model = OnnxEncoder(path)
        joblib.dump(model, tmp_path / "model.joblib")
        again = [clone(model), pickle.loads(pickle.dumps(model))]
        same(again[0], encoder, frames)
        path.unlink()
        for copy in (again[1], joblib.load(tmp_path / "model.joblib")):
            same(copy, encoder, frames)

    def test_another_file(self, served, export, frames):
        model = OnnxEncoder(served[1]).fit()
        encoder, path = export(frames, random_state=1)
        same(model.set_params(path=path), encoder, frames)

    def test_tables_keep_their_columns(self, export, frames):
        X = pd.DataFrame(frames.reshape(16, -1)).add_prefix("pixel")
        encoder, path = export(X, image_shape=(64, 64, 3))
        model = OnnxEncoder(path)
        same(model, encoder, X)
        with pytest.raises(ValueError, match="feature names"):
            model.transform(X.iloc[:, ::-1])

    def test_out(self, served, frames):
        encoder, path = served
        out = np.empty((16, 3), np.float32)
        assert OnnxEncoder(path).transform(frames, out=out) is out
        np.testing.assert_allclose(out, encoder.transform(frames), atol=1e-5)
        with pytest.raises(ValueError, match="out has shape"):
            OnnxEncoder(path).transform(frames, out=out[1:])


def _n_threads(model):
    return model._loaded()._session.get_session_options().intra_op_num_threads


class TestThreads:
    def test_all_processors_unless_told_otherwise(self, served, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert _n_threads(OnnxEncoder(served[1])) == joblib.cpu_count()
        assert _n_threads(OnnxEncoder(served[1], n_jobs=1)) == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert _n_threads(OnnxEncoder(served[1])) == 3

    def test_joblib_workers_share_them(self, served, frames, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        model = OnnxEncoder(served[1]).fit()
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            found = joblib.Parallel(n_jobs=2)(joblib.delayed(_n_threads)(model) for _ in range(2))
        assert found == [1, 1]


class TestForeignFiles:
    def test_no_onnx(self, tmp_path):
        (tmp_path / "a.onnx").write_bytes(b"\x08\x07 no graph")
        with pytest.raises(ValueError, match="not an ONNX file"):
            OnnxEncoder(tmp_path / "a.onnx").fit()

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"a\.onnx"):
            OnnxEncoder(tmp_path / "a.onnx").fit()

    @pytest.mark.parametrize(
        ("alter", "reason"),
        [
            (lambda notes: None, "does not say how"),
            (lambda notes: notes["format"].update(low=3.0), "altered"),
            (lambda notes: notes.update(notes_format=99), "upgrade skfp"),
            (lambda notes: notes.pop("feature_names_out"), "feature_names_out"),
        ],
    )
    def test_of_other_programs_or_altered(self, served, tmp_path, alter, reason):
        model = onnx.load(served[1])
        (entry,) = model.metadata_props
        notes = json.loads(entry.value)
        if alter(notes) is None and reason == "does not say how":
            model.ClearField("metadata_props")
        else:
            entry.value = json.dumps(notes)
        onnx.save(model, tmp_path / "a.onnx")
        with pytest.raises(ValueError, match=reason):
            OnnxEncoder(tmp_path / "a.onnx").transform(np.zeros((2, 64, 64, 3), np.uint8))
