"""Fitted encoders for programs without skfp: torch modules and ONNX files."""

import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skfp
from skfp import FeaturePredictionEncoder, OnnxEncoder, PerceptualAutoencoder, PixelAutoencoder


class TestTorch:
    @pytest.mark.parametrize("fold_batch_norm", [False, True])
    def test_embeds_as_transform(self, trained, frames, fold_batch_norm):
        module = trained.to_torch(fold_batch_norm=fold_batch_norm)

        embedding = module(torch.from_numpy(frames))

        assert embedding.dtype == torch.float32
        np.testing.assert_allclose(
            embedding.detach().numpy(), trained.transform(frames), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.filterwarnings("ignore:X has rows of")
    @pytest.mark.parametrize(
        ("store", "image_shape"),
        [
            (lambda X: X / 255, None),
            (lambda X: (X / 127.5 - 1).astype(np.float32), None),
            (lambda X: X.transpose(0, 3, 1, 2), None),
            (lambda X: np.concatenate([X, X[..., :1]], axis=-1), None),
            (lambda X: X[..., 0], None),
            (lambda X: X.reshape(len(X), -1), (20, 28, 3)),
            (lambda X: X.reshape(len(X), -1), None),
        ],
        ids=["unit", "-1 to 1", "chw", "rgba", "hw", "rows", "rows of no known shape"],
    )
    def test_takes_images_as_fit_has(self, noise, store, image_shape):
        X = np.ascontiguousarray(store(noise(6, 20, 28, 3)))
        encoder = PixelAutoencoder(z=2, max_epochs=1, image_shape=image_shape, random_state=0)
        encoder.fit(X)

        embedding = encoder.to_torch()(torch.from_numpy(X))

        np.testing.assert_allclose(
            embedding.detach().numpy(), encoder.transform(X), rtol=1e-4, atol=1e-5
        )

    def test_takes_any_size_that_is_resized(self, noise):
        encoder = PixelAutoencoder(z=2, max_epochs=1, resize=(72, 64), random_state=0)
        module = encoder.fit(noise(6, 64, 64, 3)).to_torch()
        for shape in ((64, 64), (72, 64), (30, 200)):
            X = noise(3, *shape, 3)
            np.testing.assert_allclose(
                module(torch.from_numpy(X)).detach().numpy(), encoder.transform(X), atol=1e-5
            )

    def test_folds_batch_norm_on_request(self, noise):
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(noise(6, 64, 64, 3))

        def layers(**parameters):
            return [type(layer) for layer in encoder.to_torch(**parameters).modules()]

        assert layers().count(nn.BatchNorm2d) == 4
        assert layers(fold_batch_norm=True).count(nn.BatchNorm2d) == 0

    def test_is_a_copy_that_can_be_trained(self, noise):
        X = noise(6, 64, 64, 3)
        encoder = FeaturePredictionEncoder(
            z=2, encoder="features", loss_network=nn.AvgPool2d(8), max_epochs=1, random_state=0
        ).fit(X)
        before = encoder.transform(X)
        module = encoder.to_torch()
        assert not module.training
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

        for _ in range(3):
            optimizer.zero_grad()
            loss = module(torch.from_numpy(X)).square().mean()
            loss.backward()
            optimizer.step()

        assert module(torch.from_numpy(X)).square().mean() < (before**2).mean()
        np.testing.assert_array_equal(encoder.transform(X), before)

    def test_loss_network_stays_frozen(self, noise):
        encoder = FeaturePredictionEncoder(
            z=2,
            encoder="features",
            loss_network=nn.Conv2d(3, 4, 16, stride=16),
            max_epochs=1,
            random_state=0,
        ).fit(noise(6, 64, 64, 3))

        trainable = {p.shape for p in encoder.to_torch().parameters() if p.requires_grad}

        assert (4, 3, 16, 16) in {tuple(p.shape) for p in encoder.to_torch().parameters()}
        assert (4, 3, 16, 16) not in {tuple(shape) for shape in trainable}

    def test_unfitted(self, quick):
        with pytest.raises(NotFittedError):
            quick().to_torch()


# Together: three estimators, both encoders, all kinds of layouts and ranges, tiling, gamma.
EXPORTED = {
    "uint8 hwc": (
        FeaturePredictionEncoder(z=4, max_epochs=1, random_state=0),
        lambda frames: frames,
    ),
    "float hwc, features": (
        FeaturePredictionEncoder(z=4, encoder="features", max_epochs=1, random_state=0),
        lambda frames: (frames / 25.5 - 3).astype(np.float32),
    ),
    "rows of no known shape": (
        PixelAutoencoder(z=4, max_epochs=1, random_state=0),
        lambda frames: frames[:, ::2, ::2, 0].reshape(16, -1)[:, :1000] / 255.0,
    ),
    "tiled grey, variational": (
        PerceptualAutoencoder(
            z=4, loss_network=nn.AvgPool2d(8), gamma=0.1, max_epochs=1, random_state=0
        ),
        lambda frames: np.ascontiguousarray(frames[:, ::2, ::2, 0]),
    ),
}


@pytest.fixture(scope="module", params=EXPORTED)
def exported(request, frames, tmp_path_factory):
    """A fitted encoder, its images as the file takes them, and the file."""
    encoder, store = EXPORTED[request.param]
    X = store(frames)
    path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    encoder.fit(X).to_onnx(path)
    return encoder, X if X.dtype == np.uint8 else X.astype(np.float32), path


@pytest.mark.filterwarnings("ignore:X has rows of")
class TestOnnx:
    def test_embeds_as_transform_in_batches_of_any_size(self, exported):
        encoder, X, path = exported
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        expected = encoder.transform(X)
        assert np.ptp(expected) > 1e-2  # else all embeddings would do

        for n_images in (1, 2, 5, 16):
            (embedding,) = session.run(None, {"images": X[:n_images]})
            assert embedding.dtype == np.float32
            np.testing.assert_allclose(embedding, expected[:n_images], rtol=0, atol=1e-4)

    def test_is_one_valid_file_that_names_its_ends(self, exported):
        _, X, path = exported

        onnx.checker.check_model(path, full_check=True)

        (images,) = onnx.load(path).graph.input
        (embedding,) = onnx.load(path).graph.output
        assert (images.name, embedding.name) == ("images", "embedding")
        kind = onnx.TensorProto.UINT8 if X.dtype == np.uint8 else onnx.TensorProto.FLOAT
        assert images.type.tensor_type.elem_type == kind
        first, *rest = images.type.tensor_type.shape.dim
        assert first.dim_param
        assert tuple(dim.dim_value for dim in rest) == X.shape[1:]
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_leaves_the_encoder_as_it_is(self, frames, tmp_path, capsys):
        encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(frames)
        before, score = encoder.transform(frames), encoder.score(frames)

        encoder.to_onnx(str(tmp_path / "encoder.onnx"))

        np.testing.assert_array_equal(encoder.transform(frames), before)
        assert encoder.score(frames) == score
        assert capsys.readouterr().out == ""

    def test_unfitted(self, quick, tmp_path):
        with pytest.raises(NotFittedError):
            quick().to_onnx(tmp_path / "encoder.onnx")
        assert list(tmp_path.iterdir()) == []


def test_onnx_names_no_folder_of_this_machine(frames, tmp_path):
    path = tmp_path / "encoder.onnx"
    encoder = PixelAutoencoder(z=2, max_epochs=1, random_state=0).fit(frames)
    encoder.to_onnx(path)
    assert os.path.dirname(skfp.__file__).encode() not in path.read_bytes()


@pytest.fixture(scope="module")
def encoder(frames):
    """An encoder of uint8 frames."""
    return PixelAutoencoder(z=4, max_epochs=1, random_state=0).fit(frames)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestHead:
    """A scikit-learn model behind the encoder, in the same file."""

    def run(self, encoder, head, frames, path):
        encoder.to_onnx(path, head=head)
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"images": frames}), strict=True))

    @pytest.mark.parametrize(
        "classifier", [LogisticRegression(), MLPClassifier((8,), max_iter=20, random_state=0)]
    )
    def test_classes(self, encoder, frames, tmp_path, classifier):
        y = np.array(["crash", "land"])[np.arange(len(frames)) % 2]
        embedding = encoder.transform(frames)
        head = make_pipeline(StandardScaler(), classifier).fit(embedding, y)

        outputs = self.run(encoder, head, frames, tmp_path / "model.onnx")

        assert outputs["label"].tolist() == head.predict(embedding).tolist()
        np.testing.assert_allclose(
            outputs["probabilities"], head.predict_proba(embedding), atol=1e-3
        )

    @pytest.mark.parametrize("n_axes", [1, 2])
    @pytest.mark.parametrize("regressor", [Ridge(), MLPRegressor(max_iter=20, random_state=0)])
    def test_positions(self, encoder, frames, tmp_path, regressor, n_axes):
        embedding = encoder.transform(frames)
        position = np.arange(2.0 * len(frames)).reshape(-1, 2)
        head = make_pipeline(StandardScaler(), regressor)
        head.fit(embedding, position if n_axes == 2 else position[:, 0])

        outputs = self.run(encoder, head, frames, tmp_path / "model.onnx")

        np.testing.assert_allclose(outputs["prediction"], head.predict(embedding), atol=1e-3)

    def test_is_no_encoder(self, encoder, frames, tmp_path):
        head = LogisticRegression().fit(encoder.transform(frames), np.arange(len(frames)) % 2)
        encoder.to_onnx(tmp_path / "model.onnx", head=head)
        with pytest.raises(ValueError, match="does not say how"):
            OnnxEncoder(tmp_path / "model.onnx").fit()

    def test_that_cannot_be_converted(self, encoder, tmp_path):
        with pytest.raises(ValueError, match="skl2onnx cannot convert the head"):
            encoder.to_onnx(tmp_path / "model.onnx", head=LogisticRegression())
        assert not (tmp_path / "model.onnx").exists()
