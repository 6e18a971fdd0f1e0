"""Displays: the data, labels, panels and colours that they draw, in new and in given axes."""

import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from torch.utils.data import TensorDataset

from skfp import (
    FeaturePredictionEncoder,
    ImageLoader,
    PerceptualAutoencoder,
    PixelAutoencoder,
)
from skfp.displays import (
    ConvergenceDisplay,
    EmbeddingDisplay,
    FeatureErrorDisplay,
    ReconstructionDisplay,
)

SMALL = {"z": 3, "max_epochs": 1, "batch_size": 16, "random_state": 0}


@pytest.fixture(autouse=True)
def _no_windows():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def predictor(frames):
    return FeaturePredictionEncoder(**SMALL).fit(frames)


@pytest.fixture(scope="module")
def autoencoder(frames):
    return PixelAutoencoder(**SMALL).fit(frames)


def luminance(color):
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def drawn(panel):
    """The images in an axes, as arrays, bottom first."""
    return [np.asarray(image.get_array()) for image in panel.get_images()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestConvergenceDisplay:
    def test_history_is_drawn(self, trained):
        display = ConvergenceDisplay.from_estimator(trained)

        history = pd.DataFrame(trained.history_)
        name = type(trained).__name__
        np.testing.assert_array_equal(display.train_line_.get_xdata(), [1, 2])
        np.testing.assert_array_equal(display.train_line_.get_ydata(), history["train_loss"])
        np.testing.assert_array_equal(display.valid_line_.get_ydata(), history["valid_loss"])
        assert display.valid_line_.get_markevery() == [trained.best_epoch_ - 1]
        assert display.ax_.get_xlabel() == "Epoch"
        assert display.ax_.get_ylabel() == "Loss"
        assert legend(display.ax_) == [
            f"{name}, training",
            f"{name}, validation (best: epoch {trained.best_epoch_})",
        ]

    def test_relative_to_epoch_1(self, trained):
        display = ConvergenceDisplay.from_estimator(trained, relative=True)

        first, second = trained.history_
        for line, key in (
            (display.train_line_, "train_loss"),
            (display.valid_line_, "valid_loss"),
        ):
            np.testing.assert_allclose(line.get_ydata(), [1, second[key] / first[key]])
        assert "relative" in display.ax_.get_ylabel()

    def test_over_training_time(self):
        history = [
            {"epoch": 1, "train_loss": 3.0, "valid_loss": 5.0, "seconds": 2.0},
            {"epoch": 2, "train_loss": 2.0, "valid_loss": 4.0, "seconds": 1.5},
        ]

        display = ConvergenceDisplay(history=history).plot(x="seconds")

        np.testing.assert_array_equal(display.valid_line_.get_xdata(), [2.0, 3.5])
        assert display.ax_.get_xlabel() == "Training time (s)"
        assert legend(display.ax_) == ["training", "validation (best: epoch 2)"]

    def test_best_epoch_after_divergence(self):
        rows = zip([3.0, 2.0, np.nan], [5.0, 4.0, np.nan], strict=True)
        history = [
            {"epoch": i, "train_loss": train, "valid_loss": valid, "seconds": 1.0}
            for i, (train, valid) in enumerate(rows, start=1)
        ]

        display = ConvergenceDisplay(history=history).plot()

        assert display.valid_line_.get_markevery() == [1]
        assert legend(display.ax_) == ["training", "validation (best: epoch 2)"]

    def test_best_epoch_of_a_worse_warm_start(self, frames):
        encoder = PixelAutoencoder(**SMALL, warm_start=True).fit(frames)
        encoder.set_params(lr=1.0).fit(frames)
        first, second = encoder.history_
        assert first["valid_loss"] < second["valid_loss"]

        display = ConvergenceDisplay.from_estimator(encoder, name="warm")

        assert display.best_epoch == encoder.best_epoch_
        assert display.valid_line_.get_markevery() == [encoder.best_epoch_ - 1]
        assert legend(display.ax_)[1] == f"warm, validation (best: epoch {encoder.best_epoch_})"

    def test_epochs_without_validation(self, frames):
        encoder = PixelAutoencoder(**SMALL).fit(frames)
        encoder.partial_fit(frames)

        display = ConvergenceDisplay.from_estimator(encoder)

        np.testing.assert_array_equal(display.train_line_.get_xdata(), [1, 2])
        np.testing.assert_array_equal(display.valid_line_.get_xdata(), [1])

    def test_no_validation_at_all(self, frames):
        encoder = PixelAutoencoder(**SMALL).partial_fit(frames)

        display = ConvergenceDisplay.from_estimator(encoder, relative=True)

        assert display.valid_line_ is None
        assert legend(display.ax_) == ["PixelAutoencoder, training"]

    def test_estimators_are_compared_in_one_axes(self, predictor, autoencoder):
        figure, ax = plt.subplots()

        first = ConvergenceDisplay.from_estimator(predictor, name="I-F-FP", ax=ax)
        second = ConvergenceDisplay.from_estimator(autoencoder, ax=ax).plot(ax=ax, name="again")

        assert first.ax_ is second.ax_ is ax
        assert first.figure_ is figure
        assert [label.split(",")[0] for label in legend(ax)[::2]] == [
            "I-F-FP",
            "PixelAutoencoder",
            "again",
        ]
        validation = ax.lines[1::2]
        assert len({line.get_marker() for line in validation}) == 3
        shades = sorted(luminance(line.get_color()) for line in validation)
        assert min(np.diff(shades)) > 0.1, "not distinct in grey"

    def test_unknown_x(self, predictor):
        with pytest.raises(ValueError, match="x is 'hours'"):
            ConvergenceDisplay.from_estimator(predictor, x="hours")


class TestReconstructionDisplay:
    @pytest.mark.parametrize("n_images", [3, 100])
    def test_images_over_reconstructions(self, autoencoder, frames, n_images):
        display = ReconstructionDisplay.from_estimator(autoencoder, frames, n_images=n_images)

        n_drawn = min(n_images, len(frames))
        decoded = autoencoder.inverse_transform(autoencoder.transform(frames))
        assert display.axes_.shape == (2, n_drawn)
        assert list(display.figure_.axes) == list(display.axes_.flat)
        for row, images in zip(display.axes_, (frames, decoded), strict=True):
            for panel, image in zip(row, images[:n_drawn], strict=True):
                np.testing.assert_allclose(drawn(panel)[0], image / 255, atol=1e-6)
        assert [row[0].get_ylabel() for row in display.axes_] == ["Original", "Reconstruction"]

    def test_eight_images_by_default(self, autoencoder, frames):
        assert ReconstructionDisplay.from_estimator(autoencoder, frames).axes_.shape == (2, 8)

    def test_tensors_of_grey_images(self, frames):
        grey = torch.from_numpy(frames.mean(axis=-1, dtype=np.float32) / 255)
        autoencoder = PerceptualAutoencoder(**SMALL).fit(grey)

        display = ReconstructionDisplay.from_estimator(autoencoder, grey, n_images=2)

        np.testing.assert_allclose(
            drawn(display.axes_[0, 1])[0], np.repeat(grey.numpy()[1, :, :, None], 3, axis=2)
        )

    def test_in_the_place_of_an_axes(self, autoencoder, frames):
        figure, (left, right) = plt.subplots(1, 2)

        display = ReconstructionDisplay.from_estimator(autoencoder, frames, n_images=2, ax=right)

        figure.canvas.draw()
        place = right.get_position(original=True)
        assert display.figure_ is figure
        assert not right.axison
        for panel in display.axes_.flat:
            assert place.x0 - 1e-6 <= panel.get_position().x0
            assert panel.get_position().x1 <= place.x1 + 1e-6
        assert not left.get_images()

    def test_axes_outside_a_grid(self, autoencoder, frames):
        ax = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))

        with pytest.raises(ValueError, match="made by plt"):
            ReconstructionDisplay.from_estimator(autoencoder, frames, ax=ax)

    def test_encoder_that_decodes_no_images(self, predictor, frames):
        with pytest.raises(TypeError, match="Use PerceptualAutoencoder or PixelAutoencoder"):
            ReconstructionDisplay.from_estimator(predictor, frames)

    def test_no_images_to_draw(self, autoencoder, frames):
        with pytest.raises(ValueError, match="n_images"):
            ReconstructionDisplay.from_estimator(autoencoder, frames, n_images=0)


class TestFeatureErrorDisplay:
    @pytest.mark.parametrize("estimator", [FeaturePredictionEncoder, PerceptualAutoencoder])
    def test_errors_add_up_to_the_loss(self, estimator, frames):
        encoder = estimator(**SMALL).fit(frames)

        display = FeatureErrorDisplay.from_estimator(encoder, frames, n_images=5)

        assert display.errors.shape == (5, 7, 7)
        assert display.errors.mean() == pytest.approx(-encoder.score(frames[:5]), rel=1e-4)

    def test_one_image_and_one_dimension(self, frames):
        encoder = FeaturePredictionEncoder(**SMALL | {"z": 1}).fit(frames)

        display = FeatureErrorDisplay.from_estimator(encoder, frames[:1])

        assert display.axes_.shape == (1,)
        assert display.errors.shape == (1, 7, 7)

    def test_panels_share_one_labelled_scale(self, predictor, frames):
        display = FeatureErrorDisplay.from_estimator(predictor, frames, n_images=5)

        assert display.axes_.shape == (5,)
        assert set(display.figure_.axes) == {*display.axes_, display.colorbar_.ax}
        for panel, frame, errors in zip(display.axes_, frames[:5], display.errors, strict=True):
            grey, heat = drawn(panel)
            np.testing.assert_allclose(grey, frame.mean(axis=-1) / 255, atol=1e-6)
            np.testing.assert_array_equal(heat, errors)
            assert panel.get_images()[1].get_clim() == (0, display.errors.max())
            assert panel.get_images()[1].get_extent() == panel.get_images()[0].get_extent()
        assert "Squared error" in display.colorbar_.ax.get_ylabel()

    @pytest.mark.parametrize("resize", ["auto", "tile", 96])
    def test_map_covers_an_image_of_another_size_than_that_of_networks(self, frames, resize):
        small = frames[:, ::2, ::2]
        encoder = FeaturePredictionEncoder(**SMALL, resize=resize).fit(small)

        (panel,) = FeatureErrorDisplay.from_estimator(encoder, small, n_images=1).axes_

        assert panel.get_images()[0].get_array().shape == (32, 32)
        assert panel.get_images()[1].get_extent() == [-0.5, 31.5, 31.5, -0.5]
        assert panel.get_xlim() == (-0.5, 31.5)
        assert panel.get_ylim() == (31.5, -0.5)

    def test_in_the_place_of_an_axes(self, predictor, frames):
        figure, ax = plt.subplots()

        display = FeatureErrorDisplay.from_estimator(predictor, frames, n_images=2, ax=ax)

        assert display.figure_ is figure
        assert not ax.axison

    def test_no_loss_network(self, autoencoder, frames):
        with pytest.raises(ValueError, match="no loss network"):
            FeatureErrorDisplay.from_estimator(autoencoder, frames)


class TestEmbeddingDisplay:
    def test_principal_components_of_the_embedding(self, trained, frames):
        display = EmbeddingDisplay.from_estimator(trained, frames, random_state=0)

        pca = PCA(2).fit(trained.transform(frames))
        expected = pca.transform(trained.transform(frames))
        np.testing.assert_allclose(display.points_.get_offsets(), expected, atol=1e-5)
        share = f"{pca.explained_variance_ratio_[1]:.0%}"
        assert display.ax_.get_ylabel() == f"Principal component 2 ({share} of the variance)"
        assert display.colorbar_ is None

    def test_thumbnails_lie_on_their_points_and_apart(self, predictor, lander):
        display = EmbeddingDisplay.from_estimator(
            predictor,
            lander.images,
            projection=make_pipeline(PCA(2), QuantileTransformer(n_quantiles=40)),
            random_state=0,
        )

        assert 10 < len(display.thumbnails_) <= 40
        for index, thumbnail in zip(display.thumbnail_indices, display.thumbnails_, strict=True):
            np.testing.assert_array_equal(thumbnail.xy, display.positions[index])
            image = thumbnail.offsetbox.get_data()
            np.testing.assert_allclose(image, lander.images[index] / 255, atol=1e-6)
        display.figure_.canvas.draw()
        boxes = [thumbnail.offsetbox.get_window_extent() for thumbnail in display.thumbnails_]
        assert min(box.width for box in boxes) > 10
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))

    def test_number_of_thumbnails(self, predictor, frames):
        display = EmbeddingDisplay.from_estimator(predictor, frames, n_thumbnails=1)

        assert len(display.thumbnails_) == 1
        with pytest.raises(ValueError, match="n_thumbnails"):
            EmbeddingDisplay.from_estimator(predictor, frames, n_thumbnails=0)

    def test_identical_images_are_drawn_once(self, predictor, frames):
        X = frames[[0, 0, 5, 5, 0]]

        display = EmbeddingDisplay.from_estimator(predictor, X, random_state=0)

        assert len(display.thumbnails_) == 2

    def test_random_state_repeats_the_choice(self, predictor, frames):
        first, second = (
            EmbeddingDisplay.from_estimator(predictor, frames, random_state=3).thumbnail_indices
            for _ in range(2)
        )

        np.testing.assert_array_equal(first, second)

    def test_colours_of_classes(self, predictor, frames):
        y = np.repeat(["c", "a", "b", "d"], 4)

        display = EmbeddingDisplay.from_estimator(predictor, frames, pd.Series(y, name="Moon"))

        bar = display.colorbar_.ax
        assert [label.get_text() for label in bar.get_yticklabels()] == ["a", "b", "c", "d"]
        assert bar.get_ylabel() == "Moon"
        display.figure_.canvas.draw()
        colors = display.points_.get_facecolors()
        by_class = [{tuple(color) for color in colors[y == name]} for name in "abcd"]
        assert [len(same) for same in by_class] == [1, 1, 1, 1]
        shades = [luminance(color[:3]) for (color,) in by_class]
        assert min(np.diff(shades)) > 0.1, "not distinct in grey"
        for index, thumbnail in zip(display.thumbnail_indices, display.thumbnails_, strict=True):
            np.testing.assert_allclose(thumbnail.patch.get_edgecolor(), colors[index])

    @pytest.mark.parametrize("y", [np.linspace(-0.3, 1.2, 16), np.arange(16)], ids=["float", "int"])
    def test_colours_of_values(self, predictor, frames, y):
        display = EmbeddingDisplay.from_estimator(predictor, frames, y)

        np.testing.assert_array_equal(display.points_.get_array(), y)
        assert display.points_.get_clim() == (y.min(), y.max())
        assert display.colorbar_.ax.get_ylabel() == "y"

    def test_projection_is_cloned(self, predictor, frames):
        projection = TSNE(perplexity=3, random_state=0)

        display = EmbeddingDisplay.from_estimator(predictor, frames, projection=projection)

        assert not hasattr(projection, "embedding_")
        assert display.ax_.get_xlabel() == "TSNE 1"
        np.testing.assert_allclose(
            display.positions, projection.fit_transform(predictor.transform(frames))
        )

    def test_given_axes_and_tensor(self, predictor, frames):
        figure, ax = plt.subplots()

        display = EmbeddingDisplay.from_estimator(predictor, torch.from_numpy(frames), ax=ax)

        assert display.ax_ is ax
        assert display.figure_ is figure

    def test_embedding_of_one_dimension(self, frames):
        encoder = FeaturePredictionEncoder(**SMALL | {"z": 1}).fit(frames)

        display = EmbeddingDisplay.from_estimator(encoder, frames)

        embedding = encoder.transform(frames)[:, 0]
        centred = embedding - embedding.mean()
        np.testing.assert_allclose(np.abs(display.positions[:, 0]), np.abs(centred), atol=1e-6)
        assert not display.positions[:, 1].any()
        assert display.ax_.get_xlabel() == "Principal component 1 (100% of the variance)"
        assert display.ax_.get_ylabel() == ""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("n_images", [1, 2])
    def test_images_without_variance(self, predictor, frames, n_images):
        X = np.repeat(frames[:1], n_images, axis=0)

        display = EmbeddingDisplay.from_estimator(predictor, X)

        np.testing.assert_array_equal(display.positions, np.zeros((n_images, 2)))
        assert len(display.thumbnails_) == 1
        assert display.ax_.get_xlabel() == "Principal component 1"

    def test_projection_to_three_dimensions(self, predictor, frames):
        with pytest.raises(ValueError, match="set it to two components"):
            EmbeddingDisplay.from_estimator(predictor, frames, projection=PCA(3))

    def test_y_of_another_length(self, predictor, frames):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            EmbeddingDisplay.from_estimator(predictor, frames, np.zeros(3))

    def test_y_of_two_columns(self, predictor, frames):
        with pytest.raises(ValueError, match="1d array"):
            EmbeddingDisplay.from_estimator(predictor, frames, np.zeros((16, 2)))


class TestContainers:
    """Displays draw images from every container that `fit` accepts."""

    @pytest.fixture(params=["data set", "HDF5", "memory map", "list of PIL images"])
    def container(self, request, frames, tmp_path):
        if request.param == "data set":
            yield TensorDataset(torch.from_numpy(frames), torch.arange(len(frames)))
        elif request.param == "HDF5":
            h5py = pytest.importorskip("h5py")
            with h5py.File(tmp_path / "images.h5", "w") as file:
                yield file.create_dataset("images", data=frames)
        elif request.param == "memory map":
            np.save(tmp_path / "images.npy", frames)
            yield np.load(tmp_path / "images.npy", mmap_mode="r")
        else:
            yield [Image.fromarray(frame) for frame in frames]

    def test_embedding(self, predictor, frames, container):
        y = np.arange(len(frames)) % 3

        display = EmbeddingDisplay.from_estimator(predictor, container, y, random_state=0)

        expected = EmbeddingDisplay.from_estimator(predictor, frames, y, random_state=0)
        np.testing.assert_array_equal(display.positions, expected.positions)
        np.testing.assert_array_equal(display.thumbnails, expected.thumbnails)

    @pytest.mark.parametrize("n_images", [1, 5, 100])
    def test_feature_errors(self, predictor, frames, container, n_images):
        display = FeatureErrorDisplay.from_estimator(predictor, container, n_images=n_images)

        expected = FeatureErrorDisplay.from_estimator(predictor, frames, n_images=n_images)
        np.testing.assert_array_equal(display.images, expected.images)
        np.testing.assert_array_equal(display.errors, expected.errors)

    def test_reconstructions(self, autoencoder, frames, container):
        display = ReconstructionDisplay.from_estimator(autoencoder, container, n_images=5)

        expected = ReconstructionDisplay.from_estimator(autoencoder, frames, n_images=5)
        np.testing.assert_array_equal(display.reconstructions, expected.reconstructions)


@pytest.mark.parametrize(
    "draw",
    [
        lambda estimator, X: ConvergenceDisplay.from_estimator(estimator),
        ReconstructionDisplay.from_estimator,
        FeatureErrorDisplay.from_estimator,
        EmbeddingDisplay.from_estimator,
    ],
    ids=["convergence", "reconstruction", "feature error", "embedding"],
)
class TestRefusals:
    def test_not_an_encoder(self, draw, frames):
        with pytest.raises(TypeError, match="estimator is a PCA"):
            draw(PCA(2), frames)

    def test_not_fitted(self, draw, frames):
        with pytest.raises(NotFittedError):
            draw(PixelAutoencoder(), frames)

    def test_no_matplotlib(self, draw, frames, autoencoder, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)

        with pytest.raises(ImportError, match="requires matplotlib"):
            draw(autoencoder, frames)


class TestPipelines:
    @pytest.fixture(params=[False, True], ids=["fitted", "frozen"])
    def pipeline(self, autoencoder, request):
        """Files to images to embedding."""
        return make_pipeline(
            ImageLoader(), FrozenEstimator(autoencoder) if request.param else autoencoder
        )

    @pytest.fixture
    def images(self, frames):
        return [Image.fromarray(frame) for frame in frames]

    def test_earlier_steps_transform_the_images(self, pipeline, autoencoder, images, frames):
        of_pipeline = EmbeddingDisplay.from_estimator(pipeline, images, random_state=0)

        of_encoder = EmbeddingDisplay.from_estimator(autoencoder, frames, random_state=0)
        np.testing.assert_array_equal(of_pipeline.positions, of_encoder.positions)

    def test_of_some_images(self, pipeline, images, frames):
        display = ReconstructionDisplay.from_estimator(pipeline, images, n_images=2)

        np.testing.assert_allclose(display.images, frames[:2] / 255, atol=1e-6)

    def test_of_the_history(self, pipeline, autoencoder):
        display = ConvergenceDisplay.from_estimator(pipeline)

        assert display.history == autoencoder.history_


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, skfp.displays; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
