"""Files of many kinds, in many containers, as one array of images."""

import os
import pickle
import struct
import warnings
import zlib

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from skfp import FeaturePredictionEncoder
from skfp._image_loader import ImageLoader

SIDE = 48


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_estimator_checks_of_scikit_learn_that_need_no_table(check):
    check("ImageLoader", ImageLoader())


@pytest.fixture(scope="module")
def pixels():
    """Ten smooth images, height 40 and width 60, each of its own colours."""
    y, x = np.mgrid[:40, :60]
    ramps = [np.stack([x * 4, y * 6, np.full_like(x, 25 * k)], axis=-1) for k in range(10)]
    return np.stack(ramps).astype(np.uint8)


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{k}.png" for k in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(scope="module")
def names(paths):
    return [str(path) for path in paths]


@pytest.fixture
def broken(names, noise, tmp_path):
    """Ten paths: rows 1, 4, 6 and 8 cannot be read, each for its own reason."""
    truncated = tmp_path / "truncated.png"
    Image.fromarray(noise(40, 60, 3)).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:2_000])
    text = tmp_path / "text.jpg"
    text.write_text("no image at all")
    wrong = {1: str(tmp_path / "none.png"), 4: str(truncated), 6: str(text), 8: str(tmp_path)}
    return [wrong.get(row, name) for row, name in enumerate(names)]


SUFFIXES = ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"]


def png(width, height, rows, depth, kind):
    """Make a PNG file of a header and filtered rows, whether they belong together or not."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">2I5B", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def near(image, other):
    """Mean difference in grey levels."""
    return np.abs(image.astype(float) - other).mean()


class TestContainers:
    @pytest.mark.parametrize(
        "contain",
        [
            list,
            tuple,
            np.array,
            lambda names: np.array(names, dtype=object),
            lambda names: np.array(names)[:, None],
            lambda names: np.array(names, dtype=object)[:, None],
            pd.Series,
            lambda names: pd.Series(names, dtype=object, index=range(100, 110)),
            lambda names: pd.Series(names, dtype="category"),
            lambda names: pd.DataFrame({"photo": names}),
            pl.Series,
            lambda names: pl.DataFrame({"photo": names}),
        ],
        ids=[
            "list",
            "tuple",
            "str array",
            "object array",
            "str column",
            "object column",
            "pandas series",
            "pandas series of objects",
            "pandas categories",
            "pandas frame",
            "polars series",
            "polars frame",
        ],
    )
    def test_of_names(self, names, pixels, contain):
        images = ImageLoader(size=None).transform(contain(names))

        np.testing.assert_array_equal(images, pixels)

    def test_of_paths(self, paths, pixels):
        loader = ImageLoader(size=None)

        np.testing.assert_array_equal(loader.transform(paths), pixels)
        np.testing.assert_array_equal(loader.transform(pd.Series(paths)), pixels)

    @pytest.mark.parametrize("contain", [list, pd.Series, lambda x: pd.DataFrame({"photo": x})])
    def test_of_pil_images(self, pixels, contain):
        images = contain([Image.fromarray(image) for image in pixels])

        np.testing.assert_array_equal(ImageLoader(size=None).transform(images), pixels)

    def test_of_a_mix(self, paths, names, pixels):
        mix = [paths[0], names[1], Image.fromarray(pixels[2]), pixels[3]]

        np.testing.assert_array_equal(ImageLoader(size=None).transform(mix), pixels[:4])

    def test_of_arrays_of_different_sizes(self, pixels):
        images = ImageLoader().transform([pixels[0], pixels[0, ::2, :, 0], pixels[0, :, ::2]])

        assert images.shape == (3, 64, 64, 3)

    def test_leaves_the_images_of_the_user_alone(self, paths):
        with Image.open(paths[0]) as image:
            ImageLoader(16, mode="L").transform([image])

            assert (image.size, image.mode) == ((60, 40), "RGB")


class TestSize:
    @pytest.mark.parametrize(
        ("size", "shape"), [(32, (32, 32)), ((16, 24), (16, 24)), ([50, 90], (50, 90))], ids=str
    )
    def test_is_height_and_width(self, names, pixels, size, shape):
        images = ImageLoader(size).transform(names)

        assert images.shape == (10, *shape, 3)
        assert images.dtype == np.uint8
        # The ramps survive: left to right in red, top to bottom in green.
        assert near(images[:, :, -1, 0], 236) < 4
        assert near(images[:, -1, :, 1], 234) < 6
        assert near(images[3, ..., 2], 75) < 1

    def test_is_64_by_64_if_left_out(self, names):
        assert ImageLoader().transform(names).shape == (10, 64, 64, 3)

    def test_is_reached_without_aliasing(self):
        stripes = np.zeros((256, 256, 3), dtype=np.uint8)
        stripes[:, ::2] = 255

        small = ImageLoader(16).transform([stripes])

        assert near(small, 127.5) < 2

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_that_differs_is_named(self, names, n_jobs, tmp_path):
        Image.new("RGB", (40, 60)).save(tmp_path / "tall.png")
        odd = [*names, str(tmp_path / "tall.png")]

        with pytest.raises(ValueError, match=r"Row 10.*tall\.png.*60 by 40.*40 by 60.*size"):
            ImageLoader(None, n_jobs=n_jobs).transform(odd)
        with pytest.warns(UserWarning, match=r"1 of 11 images.*row 10.*tall\.png"):
            images = ImageLoader(None, n_jobs=n_jobs, on_error="warn").transform(odd)
        assert images.any(axis=(1, 2, 3)).tolist() == [True] * 10 + [False]


class TestKinds:
    def save(self, path, image, **options):
        image.save(path, **options)
        return str(path)

    @pytest.mark.parametrize(
        ("mode", "suffix", "tolerance"),
        [
            ("RGB", "png", 0),
            ("RGB", "jpg", 2),
            ("RGB", "webp", 3),
            ("RGB", "bmp", 0),
            ("RGB", "tif", 0),
            ("CMYK", "jpg", 4),
            ("CMYK", "tif", 0),
            ("P", "png", 20),
            ("P", "gif", 20),
            ("RGBA", "png", 0),
            ("RGBA", "webp", 3),
        ],
    )
    def test_of_colour(self, pixels, tmp_path, mode, suffix, tolerance):
        image = Image.fromarray(pixels[3])
        path = self.save(tmp_path / f"image.{suffix}", image.convert(mode))

        read = ImageLoader(None).transform([path])[0]

        assert read.shape == (40, 60, 3)
        assert near(read, pixels[3]) <= tolerance

    @pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("LA", "png"), ("L", "gif")])
    def test_of_grey(self, pixels, tmp_path, mode, suffix):
        grey = pixels[0, ..., 0]
        path = self.save(tmp_path / f"grey.{suffix}", Image.fromarray(grey).convert(mode))

        colour = ImageLoader(None).transform([path])[0]
        shades = ImageLoader(None, mode="L").transform([path])[0]

        np.testing.assert_array_equal(colour, np.repeat(grey[..., None], 3, axis=-1))
        np.testing.assert_array_equal(shades, grey)

    def test_of_one_bit(self, tmp_path):
        checks = np.indices((20, 20)).sum(axis=0) % 2 == 1
        path = self.save(tmp_path / "checks.png", Image.fromarray(checks))

        read = ImageLoader(None, mode="L").transform([path])[0]

        np.testing.assert_array_equal(read, checks * 255)

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
    def test_of_16_bit_grey(self, tmp_path, suffix):
        deep = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
        path = self.save(tmp_path / f"deep.{suffix}", Image.fromarray(deep))

        read = ImageLoader(None, mode="L").fit([path]).transform([path])[0]

        np.testing.assert_array_equal(read, (deep / 257).round())

    @pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("LA", 2)])
    def test_of_16_bit_colour(self, tmp_path, mode, channels):
        """Pillow reads them, but cannot write them."""
        deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in deep)
        path = tmp_path / "deep.png"
        path.write_bytes(png(30, 20, rows, depth=16, kind={3: 2, 4: 6, 2: 4}[channels]))

        read = ImageLoader(None).transform([path])[0]

        expected = (deep[..., :1] if mode == "LA" else deep[..., :3]) // 256
        if mode != "RGB":
            opacity = deep[..., -1:] // 256 / 255
            expected = expected * opacity + 255 * (1 - opacity)
        np.testing.assert_allclose(read, np.broadcast_to(expected, (20, 30, 3)), atol=1)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
    @pytest.mark.parametrize("wrong", ["png", "jpg", "gif", "tif", "txt", ""])
    def test_is_told_by_the_content_and_not_by_the_suffix(self, pixels, tmp_path, suffix, wrong):
        path = self.save(tmp_path / f"image.{suffix}", Image.fromarray(pixels[0]))
        renamed = tmp_path / f"image.{wrong}"
        expected = ImageLoader(None).transform([path])
        os.rename(path, renamed)

        np.testing.assert_array_equal(ImageLoader(None).transform([renamed]), expected)

    @pytest.mark.parametrize(("scale", "value_range"), [(1, (0, 1)), (255, (0, 255))])
    def test_of_floats(self, pixels, tmp_path, scale, value_range):
        floats = (pixels[0, ..., 0] / 255 * scale).astype(np.float32)
        path = self.save(tmp_path / "float.tif", Image.fromarray(floats))

        loader = ImageLoader(None, mode="L").fit([path])

        assert loader.value_range_ == value_range
        np.testing.assert_array_equal(loader.transform([path])[0], pixels[0, ..., 0])

    def test_of_floats_that_are_not_finite(self, tmp_path):
        floats = np.full((20, 20), np.nan, np.float32)
        path = self.save(tmp_path / "float.tif", Image.fromarray(floats))

        with pytest.raises(ValueError, match=r"float\.tif.*NaN or infinity"):
            ImageLoader(value_range=(0, 1)).transform([path])

    def test_grey_of_colours(self, names, pixels):
        shades = ImageLoader(None, mode="L").transform(names)

        assert shades.shape == (10, 40, 60)
        assert near(shades, pixels @ [0.299, 0.587, 0.114]) < 1

    def test_transparent_pixels_show_the_background(self, tmp_path):
        path = self.save(tmp_path / "clear.png", Image.new("RGBA", (20, 20), (200, 100, 50, 0)))

        assert (ImageLoader(16).transform([path]) == 255).all()
        green = ImageLoader(16, background="lime").transform([path])
        assert (green == [0, 255, 0]).all()

    def test_transparent_palette(self, tmp_path):
        image = Image.new("P", (20, 20), 1)
        image.putpalette([0, 0, 0, 200, 100, 50])
        path = self.save(tmp_path / "clear.png", image, transparency=bytes([255, 0]))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = ImageLoader(16).transform([path])

        assert (read == 255).all()

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
        path = self.save(tmp_path / "film.gif", frames[0], save_all=True, append_images=frames[1:])

        assert (ImageLoader().transform([path]) == [255, 0, 0]).all()

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    @pytest.mark.parametrize(
        ("orientation", "stored"),
        [
            (1, lambda image: image),
            (3, lambda image: image[::-1, ::-1]),
            (6, lambda image: np.rot90(image)),
            (8, lambda image: np.rot90(image, -1)),
        ],
    )
    def test_are_turned_upright(self, pixels, tmp_path, suffix, orientation, stored):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored(pixels[2])))
        path = self.save(tmp_path / f"turned.{suffix}", image, exif=exif)

        with Image.open(path) as opened:
            read = ImageLoader(None).transform([path, opened])

        assert read.shape == (2, 40, 60, 3)
        assert near(read, pixels[2]) < 2

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_large_jpeg_is_read_as_well_at_a_smaller_scale(self, tmp_path, orientation):
        y, x = np.mgrid[:803, :1201]
        waves = 127 + 120 * np.sin(np.stack([x / 90, y / 70, (x + y) / 110], axis=-1))
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(waves.astype(np.uint8))
        path = self.save(tmp_path / "large.jpg", image, exif=exif, quality=95)
        upright = image if orientation == 1 else image.transpose(Image.Transpose.ROTATE_270)

        read, expected = ImageLoader((32, 96)).transform([path, upright])

        assert near(read, expected) < 2


class TestBroken:
    @pytest.mark.parametrize("n_jobs", [1, 2])
    @pytest.mark.parametrize(
        ("row", "name", "cause"),
        [
            (1, r"none\.png", FileNotFoundError),
            (4, r"truncated\.png", (OSError, SyntaxError)),
            (6, r"text\.jpg", Image.UnidentifiedImageError),
            (8, "", OSError),
        ],
    )
    def test_is_named_with_its_cause(self, broken, names, row, name, cause, n_jobs):
        one_broken = [*names[:row], broken[row], *names[row + 1 :]]

        with pytest.raises(ValueError, match=rf"Row {row}.*{name}.*cannot be read") as caught:
            ImageLoader(n_jobs=n_jobs).transform(one_broken)

        assert isinstance(caught.value.__cause__, cause)

    def test_is_black_after_one_warning(self, broken, names):
        with pytest.warns(UserWarning, match="cannot be read") as caught:
            images = (loader := ImageLoader(on_error="warn")).transform(broken)

        assert len(caught) == 1
        message = str(caught[0].message)
        assert message.startswith("4 of 10 images cannot be read and are black: row 1 (")
        assert "none.png" in message
        assert "truncated.png" in message
        assert "row 6" in message
        assert "1 more" in message
        assert caught[0].filename == __file__
        failed = [1, 4, 6, 8]
        assert loader.unreadable_rows_.tolist() == failed
        assert not images[failed].any()
        whole = ImageLoader().transform(names)
        rest = np.setdiff1d(np.arange(10), failed)
        np.testing.assert_array_equal(images[rest], whole[rest])

    def test_leaves_no_label_behind(self, broken):
        loader = ImageLoader(on_error="warn")
        with pytest.warns(UserWarning, match="4 of 10"):
            images = loader.transform(broken)

        kept = np.delete(images, loader.unreadable_rows_, axis=0)
        labels = np.delete(np.arange(10), loader.unreadable_rows_)

        assert kept.any(axis=(1, 2, 3)).all()
        assert labels.tolist() == [0, 2, 3, 5, 7, 9]
        assert loader.transform(np.delete(np.array(broken), [1, 4, 6, 8])).shape == (6, 64, 64, 3)
        assert loader.unreadable_rows_.tolist() == []

    def test_first_file_does_not_decide_on_the_size(self, broken):
        with pytest.warns(UserWarning, match="1 of 3 images"):
            images = ImageLoader(None, on_error="warn").transform(broken[1:4])

        assert images.shape == (3, 40, 60, 3)

    def test_leaves_no_size_to_keep_where_all_are(self, broken):
        with pytest.raises(ValueError, match=r"None of the 2 images can be read.*pass a size"):
            ImageLoader(None, on_error="warn").transform([broken[1], broken[6]])

    def test_decompression_bomb(self, names, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

        with pytest.raises(ValueError, match=r"Row 0.*DecompressionBombError.*MAX_IMAGE_PIXELS"):
            ImageLoader().transform(names)
        with pytest.warns(UserWarning, match="10 of 10 images"):
            ImageLoader(on_error="warn").transform(names)

    def test_file_that_claims_to_be_huge(self, names, tmp_path):
        """Less than a kilobyte that stands for a gigabyte is refused before memory is taken."""
        bomb = tmp_path / "bomb.png"
        bomb.write_bytes(png(40_000, 30_000, bytes(100_000), depth=8, kind=0))

        with pytest.raises(ValueError, match=r"Row 1.*bomb\.png.*decompression bomb"):
            ImageLoader().transform([names[0], bomb])

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_empty_file(self, tmp_path, suffix):
        path = tmp_path / f"empty.{suffix}"
        path.touch()

        with pytest.raises(ValueError, match=rf"Row 0.*empty\.{suffix}.*cannot be read"):
            ImageLoader().transform([path])

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_truncated_file(self, noise, tmp_path, suffix):
        whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"truncated.{suffix}"
        Image.fromarray(noise(40, 60, 3)).save(whole)
        content = whole.read_bytes()
        complete = ImageLoader().transform([whole])
        refused = 0

        for kept in np.linspace(0, 1, 41):
            path.write_bytes(content[: int(len(content) * kept)])
            try:
                read = ImageLoader().transform([path])
            except ValueError:
                refused += 1
            else:  # nothing is missing but the mark of the end
                np.testing.assert_array_equal(read, complete)
        assert 37 <= refused <= 40

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_damaged_file(self, pixels, tmp_path, suffix):
        """Bytes that are not what they were give an image or a refusal, whatever they are."""
        path = tmp_path / f"damaged.{suffix}"
        Image.fromarray(pixels[1]).save(path)
        content = np.fromfile(path, np.uint8)
        random = np.random.default_rng(0)

        for _ in range(40):
            damaged = content.copy()
            damaged[random.integers(len(content), size=3)] = random.integers(256, size=3)
            damaged.tofile(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images = ImageLoader(on_error="warn").transform([path])
            assert images.shape == (1, 64, 64, 3)

    @pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=str)
    def test_missing_value(self, names, missing):
        column = pd.DataFrame({"photo": [names[0], missing]}, dtype=object)

        with pytest.raises(ValueError, match=r"Row 1.*neither a path nor an image"):
            ImageLoader().transform(column)
        with pytest.warns(UserWarning, match=r"1 of 2 images.*row 1"):
            assert not ImageLoader(on_error="warn").transform(column)[1].any()


class TestRefused:
    @pytest.mark.parametrize(
        "X",
        [[], np.array([], dtype=str), pd.DataFrame({"photo": []})],
        ids=["list", "array", "frame"],
    )
    def test_nothing(self, X):
        with pytest.raises(ValueError, match=r"0 sample\(s\).*minimum of 1"):
            ImageLoader().transform(X)

    def test_single_image(self, paths, names, pixels):
        for single in (paths[0], names[0], Image.fromarray(pixels[0])):
            with pytest.raises(ValueError, match=r"one path or image.*\[X\]"):
                ImageLoader().transform(single)

    def test_several_columns(self, names):
        frame = pd.DataFrame({"photo": names, "other": names})

        for table in (frame, frame.to_numpy(), pl.DataFrame(frame.to_dict("list"))):
            with pytest.raises(ValueError, match=r"\(10, 2\).*choose the column"):
                ImageLoader().transform(table)

    @pytest.mark.parametrize("X", [np.arange(5), [3], [...], [{"image": 3}], [()]], ids=repr)
    def test_what_is_no_image(self, X):
        with pytest.raises(ValueError, match=r"Row 0.*neither a path nor an image"):
            ImageLoader().transform(X)

    def test_bytes_of_no_image(self):
        with pytest.raises(ValueError, match=r"Row 0.*UnidentifiedImageError"):
            ImageLoader().transform([b"bytes.png"])

    def test_heic_without_pillow_heif(self, tmp_path):
        (tmp_path / "photo.HEIC").write_bytes(b"as good as unknown to Pillow")

        with pytest.raises(ValueError, match=r"Row 0.*photo\.HEIC.*pip install pillow-heif"):
            ImageLoader().transform([tmp_path / "photo.HEIC"])

    def test_background(self, names):
        with pytest.raises(ValueError, match="unknown color specifier: 'nothing'"):
            ImageLoader(background="nothing").transform(names)

    @pytest.mark.parametrize("size", [0, -1, 2.5, "64", (64,), (64, 64, 3), (64, 0), (1.5, 2)])
    def test_size(self, names, size):
        for method in ("fit", "transform"):
            with pytest.raises(ValueError, match="size"):
                getattr(ImageLoader(size), method)(names)

    @pytest.mark.parametrize(
        ("name", "wrong"), [("mode", "RGBA"), ("on_error", "ignore"), ("n_jobs", 1.5)]
    )
    def test_parameter(self, names, name, wrong):
        for method in ("fit", "transform"):
            with pytest.raises(ValueError, match=f"'{name}' parameter"):
                getattr(ImageLoader(**{name: wrong}), method)(names)


class TestThreads:
    @pytest.mark.parametrize("backend", ["threading", "loky"])
    def test_read_the_same(self, names, backend):
        many = names * 20
        one = ImageLoader(24).transform(many)

        with joblib.parallel_config(backend=backend, n_jobs=2):
            np.testing.assert_array_equal(ImageLoader(24).transform(many), one)
        np.testing.assert_array_equal(ImageLoader(24, n_jobs=2).transform(many), one)

    def test_raise_for_the_first_of_many(self, names, tmp_path):
        many = names * 40
        for row in (131, 133, 390):
            many[row] = str(tmp_path / f"none{row}.png")

        for n_jobs in (1, 2, 4):
            with pytest.raises(ValueError, match=r"Row 131 .*none131"):
                ImageLoader(16, n_jobs=n_jobs).transform(many)


class TestScikitLearn:
    @pytest.fixture
    def pipeline(self):
        encoder = FeaturePredictionEncoder(z=4, max_epochs=1, random_state=0)
        return Pipeline([("load", ImageLoader(SIDE)), ("enc", encoder)])

    @pytest.fixture
    def frame(self, names):
        return pd.DataFrame({"photo": names, "price": np.arange(10.0), "rooms": np.ones(10)})

    def test_needs_no_fit(self, names):
        loader = ImageLoader(SIDE)
        before = vars(loader).copy()

        images = loader.transform(names)

        np.testing.assert_array_equal(ImageLoader(SIDE).fit(names).transform(names), images)
        np.testing.assert_array_equal(ImageLoader(SIDE).fit_transform(names), images)
        assert vars(loader) == before

    def test_clones_and_pickles(self, names):
        loader = ImageLoader((20, 30), mode="L", on_error="warn", n_jobs=2)
        images = loader.transform(names)

        for again in (clone(loader), pickle.loads(pickle.dumps(loader))):
            assert again.get_params() == loader.get_params()
            np.testing.assert_array_equal(again.transform(names), images)

    def test_pipeline(self, pipeline, names):
        embedding = pipeline.fit_transform(names)

        assert embedding.shape == (10, 4)
        np.testing.assert_allclose(pipeline.transform(names), embedding, rtol=1e-5)
        encoder = pipeline["enc"]
        np.testing.assert_array_equal(
            pipeline.transform(names), encoder.transform(ImageLoader(SIDE).transform(names))
        )

    def test_pipeline_is_not_fitted_by_the_loader(self, pipeline, names):
        with pytest.raises(NotFittedError):
            pipeline.transform(names)

    def test_pipeline_names_its_columns(self, pipeline, names):
        expected = [f"featurepredictionencoder{k}" for k in range(4)]

        assert list(pipeline.fit(names).get_feature_names_out()) == expected

    def test_pipeline_gives_tables(self, pipeline, names, frame):
        table = pipeline.set_output(transform="pandas").fit_transform(frame["photo"])

        assert isinstance(table, pd.DataFrame)
        assert list(table.columns) == list(pipeline.get_feature_names_out())
        assert table.shape == (10, 4)

    def test_output_is_an_array_whatever_is_configured(self, names):
        with config_context(transform_output="pandas"):
            images = ImageLoader(SIDE).transform(names)

        assert isinstance(images, np.ndarray)

    @pytest.mark.parametrize("column", ["photo", ["photo"]], ids=["1-d", "2-d"])
    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_beside_numbers(self, pipeline, frame, column, library):
        X = frame if library == "pandas" else pl.DataFrame(frame.to_dict("list"))
        columns = ColumnTransformer(
            [("image", pipeline, column), ("number", StandardScaler(), ["price", "rooms"])]
        )

        both = columns.fit_transform(X)

        assert both.shape == (10, 6)
        np.testing.assert_allclose(both[:, 4], (np.arange(10) - 4.5) / np.arange(10).std())
        assert list(columns.get_feature_names_out()) == [
            *(f"image__featurepredictionencoder{k}" for k in range(4)),
            "number__price",
            "number__rooms",
        ]
        table = columns.set_output(transform=library).fit_transform(X)
        assert list(table.columns) == list(columns.get_feature_names_out())
        np.testing.assert_allclose(table.to_numpy(), both, rtol=1e-5)

    def test_searched_over(self, pipeline, names):
        model = Pipeline([*pipeline.steps, ("clf", LogisticRegression())])

        search = GridSearchCV(model, {"load__mode": ["RGB", "L"]}, cv=2, error_score="raise")
        search.fit(names, [0, 1] * 5)

        assert search.best_params_["load__mode"] in {"RGB", "L"}
