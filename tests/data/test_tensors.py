"""torch tensors: what goes in as one comes out as one, with the numbers of arrays."""

import numpy as np
import pytest
import torch

from skfp import FeaturePredictionEncoder, PerceptualAutoencoder, PixelAutoencoder

LAYOUTS = {
    "hwc": (lambda X: X, None),
    "chw": (lambda X: X.transpose(0, 3, 1, 2), None),
    "hw": (lambda X: X[..., 0], None),
    "rgba": (lambda X: np.concatenate([X, X[..., :1]], axis=-1), None),
    "rows": (lambda X: X.reshape(len(X), -1), (20, 28, 3)),
    "rows of no known shape": (lambda X: X.reshape(len(X), -1), None),
}
# How bytes become a tensor of another type or range, and whatever an array holds for it.
TYPES = {
    "uint8": lambda X: X,
    "float32 in [0, 1]": lambda X: X.to(torch.float32) / 255,
    "float64 in [0, 1]": lambda X: X.to(torch.float64) / 255,
    "float32 in [-1, 1]": lambda X: X.to(torch.float32) / 127.5 - 1,
    "bool": lambda X: X > 127,
    "int64": lambda X: X.to(torch.int64) - 1000,
    "int16": lambda X: X.to(torch.int16) * 100,
    "uint16": lambda X: X.to(torch.uint16),
    "half in [0, 1]": lambda X: (X / 255).half(),
    "half": lambda X: X.half() - 100,
}


def autoencoder(**parameters):
    return PixelAutoencoder(z=2, max_epochs=1, batch_size=6, random_state=0, **parameters)


@pytest.fixture(scope="module")
def images(noise):
    return noise(8, 20, 28, 3)


@pytest.fixture(scope="module")
def fitted(images):
    return autoencoder().fit(images)


class TestSameNumbersAsArrays:
    @pytest.mark.filterwarnings("ignore:X has rows of")
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, images, layout):
        lay, image_shape = LAYOUTS[layout]
        X = np.ascontiguousarray(lay(images))

        assert_same_as_array(torch.from_numpy(X), X, image_shape=image_shape)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_types(self, images, dtype):
        X = TYPES[dtype](torch.from_numpy(images))

        assert_same_as_array(X, X.numpy())

    def test_bfloat16(self, images):
        """Numpy has no such type, but float32 holds all its values."""
        X = (torch.from_numpy(images) / 255).bfloat16()

        assert_same_as_array(X, X.float().numpy())

    @pytest.mark.parametrize("dtype", ["uint8", "float32 in [0, 1]", "int64"])
    def test_views_in_any_order_in_memory(self, images, dtype):
        X = TYPES[dtype](torch.from_numpy(images))
        channels_first = X.permute(0, 3, 1, 2)
        every_second = X.repeat_interleave(2, dim=0)[::2]
        assert not channels_first.is_contiguous()
        assert not every_second.is_contiguous()

        assert_same_as_array(channels_first, channels_first.numpy())
        assert_same_as_array(every_second, X.numpy())

    def test_all_procedures(self, trained, frames):
        X = torch.from_numpy(frames)
        embedding = trained.transform(X)

        assert isinstance(embedding, torch.Tensor)
        assert embedding.dtype == torch.float32
        np.testing.assert_array_equal(embedding, trained.transform(frames))
        assert trained.score(X) == trained.score(frames)

    def test_more_than_a_batch(self, fitted, noise):
        X = noise(300, 20, 28, 3)

        np.testing.assert_array_equal(fitted.transform(torch.from_numpy(X)), fitted.transform(X))

    def test_validation_images(self, images):
        of_arrays = autoencoder().fit(images, X_val=images[:3])
        of_tensors = autoencoder().fit(torch.from_numpy(images), X_val=torch.from_numpy(images[:3]))

        assert of_tensors.validation_loss_ == of_arrays.validation_loss_

    def test_arrays_after_tensors_and_the_other_way(self, images, fitted):
        embedding = autoencoder().fit(torch.from_numpy(images)).transform(images)

        assert isinstance(embedding, np.ndarray)
        np.testing.assert_array_equal(embedding, fitted.transform(torch.from_numpy(images)))

    def test_cached_features(self, noise, tmp_path):
        X = noise(6, 64, 64, 3)
        encoder = FeaturePredictionEncoder(z=2, max_epochs=1, memory=tmp_path, random_state=0)
        embedding = encoder.fit_transform(X)
        n_files = len(list(tmp_path.rglob("*")))

        of_tensor = encoder.fit_transform(torch.from_numpy(X))

        np.testing.assert_array_equal(of_tensor, embedding)
        assert len(list(tmp_path.rglob("*"))) == n_files  # read, not computed again


def assert_same_as_array(X, array, **parameters):
    """Check that tensors give tensors, with the numbers that the same arrays give."""
    before = X.clone()
    of_array = autoencoder(**parameters).fit(array)
    of_tensor = autoencoder(**parameters)

    embedding = of_tensor.fit_transform(X)

    assert isinstance(embedding, torch.Tensor)
    assert embedding.dtype == torch.float32
    assert embedding.device == X.device
    expected = of_array.transform(array)
    np.testing.assert_array_equal(embedding, expected)
    images = of_tensor.inverse_transform(embedding)
    assert isinstance(images, torch.Tensor)
    assert images.shape == X.shape
    np.testing.assert_array_equal(images, of_array.inverse_transform(expected))
    assert of_tensor.score(X) == of_array.score(array)
    assert torch.equal(X, before)


@pytest.mark.parametrize("container", [np.array, torch.tensor])
def test_no_image_is_made_of_nan(fitted, container):
    with pytest.raises(ValueError, match="NaN"):
        fitted.inverse_transform(container([[0.0, float("nan")]]))


class TestOutput:
    def test_may_be_trained_on(self, images, fitted):
        """Embeddings are plain tensors: no inference tensors, which autograd refuses."""
        embedding = fitted.transform(torch.from_numpy(images))
        layer = torch.nn.Linear(2, 1)

        layer(embedding).sum().backward()

        assert not embedding.is_inference()
        assert not embedding.requires_grad
        assert layer.weight.grad is not None
        assert not fitted.inverse_transform(embedding).is_inference()

    def test_of_images_that_require_a_gradient(self, images, fitted):
        X = (torch.from_numpy(images) / 255).requires_grad_()

        embedding = fitted.transform(X)

        assert not embedding.requires_grad
        np.testing.assert_allclose(embedding, fitted.transform(images), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(
            autoencoder().fit(X).transform(images), autoencoder().fit(X.detach()).transform(images)
        )

    def test_embeddings_that_require_a_gradient(self, images, fitted):
        embedding = torch.zeros(3, 2, requires_grad=True)

        assert not fitted.inverse_transform(embedding).requires_grad

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
    def test_embeddings_of_any_type(self, fitted, dtype):
        zeros = fitted.inverse_transform(torch.zeros(2, 2, dtype=dtype))

        np.testing.assert_array_equal(zeros, fitted.inverse_transform(np.zeros((2, 2))))

    def test_table(self, images):
        encoder = autoencoder().set_output(transform="pandas")

        table = encoder.fit_transform(torch.from_numpy(images))

        assert table.columns.tolist() == ["pixelautoencoder0", "pixelautoencoder1"]
        np.testing.assert_array_equal(
            table, encoder.set_output(transform="default").transform(images)
        )

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("estimator", [FeaturePredictionEncoder, PerceptualAutoencoder])
    def test_stays_on_the_gpu(self, frames, estimator):
        X = torch.from_numpy(frames).cuda()
        encoder = estimator(z=2, max_epochs=1, random_state=0).fit(X)

        embedding = encoder.transform(X)

        assert embedding.device == X.device
        np.testing.assert_allclose(
            embedding.cpu(), encoder.set_params(device="cpu").transform(frames), atol=1e-2
        )
        if hasattr(encoder, "inverse_transform"):
            assert encoder.inverse_transform(embedding).device == X.device


class TestRefusals:
    """What is refused of an array is refused of a tensor, in fit and in transform."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_not_finite(self, images, fitted, value, dtype):
        X = (torch.from_numpy(images) / 255).to(dtype)
        X[7, 0, 0, 0] = value

        for method in (autoencoder().fit, fitted.transform, fitted.score, fitted.partial_fit):
            with pytest.raises(ValueError, match="NaN or infinity"):
                method(X)

    @pytest.mark.parametrize("shape", [(), (64,), (2, 3, 3, 64, 64)])
    def test_number_of_dimensions(self, fitted, shape):
        for method in (autoencoder().fit, fitted.transform):
            with pytest.raises(ValueError, match="Expected images"):
                method(torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(0, 20, 28, 3), (4, 0, 28, 3), (4, 0)])
    def test_empty(self, fitted, shape):
        for method in (autoencoder().fit, fitted.transform):
            with pytest.raises(ValueError, match="Expected images"):
                method(torch.zeros(shape))

    @pytest.mark.filterwarnings("ignore:Sparse")
    @pytest.mark.parametrize(
        "change",
        [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, lambda X: X.to(torch.complex64)],
        ids=["sparse", "csr", "complex"],
    )
    def test_no_dense_real_numbers(self, fitted, change):
        X = change(torch.zeros(4, 400))
        for method in (autoencoder().fit, fitted.transform):
            with pytest.raises(TypeError, match="dense one of real numbers"):
                method(X)

    @pytest.mark.parametrize("shape", [(2, 28, 20, 3), (2, 20, 28), (2, 28, 20, 1)])
    def test_of_other_images_than_in_fit(self, fitted, shape):
        with pytest.raises(ValueError, match="fitted on images of shape"):
            fitted.transform(torch.zeros(shape))

    def test_lines_of_one_pixel(self):
        with pytest.raises(ValueError, match="at least 2 by 2"):
            autoencoder().fit(torch.zeros(4, 1, 64))

    def test_of_another_scale_than_in_fit(self, images, fitted):
        with pytest.raises(ValueError, match=r"fitted on values from 0 to 255.*-1 to 1"):
            fitted.transform(torch.from_numpy(images) / 127.5 - 1)

    @pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 2, 1)])
    def test_embeddings_of_another_shape(self, fitted, shape):
        with pytest.raises(ValueError, match=r"z=2 columns"):
            fitted.inverse_transform(torch.zeros(shape))
