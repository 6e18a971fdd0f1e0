"""PIL images and encoded images: one reader for encoders and ImageLoader."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skfp import ImageLoader, PixelAutoencoder
from skfp._images.arrays import as_array

HEIGHT, WIDTH = 20, 30


@pytest.fixture(scope="module")
def colour():
    """A smooth image, which lossy formats keep."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 8, y * 12, 255 - x * 8], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def deep():
    """A grey image of 12 bits, in 16."""
    return np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def by_encoder(image):
    return np.asarray(as_array([image])[0])


def by_loader(image, **parameters):
    return ImageLoader(None, **parameters).transform([image])[0]


def assert_read_as(image, expected, tolerance=0):
    """Check that encoders and the loader read the same pixels, those expected."""
    for read in (by_encoder(image), by_loader(image)):
        assert read.shape == expected.shape
        assert read.dtype == np.uint8
        assert np.abs(read.astype(int) - expected).max() <= tolerance


def over(background, colours, opacity):
    """Composite colours by hand."""
    return (colours * opacity + np.array(background) * (1 - opacity)).round().astype(np.uint8)


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "tolerance"),
        [("RGB", 0), ("RGBX", 0), ("CMYK", 0), ("YCbCr", 3), ("HSV", 8)],
    )
    def test_of_colours(self, colour, mode, tolerance):
        assert_read_as(Image.fromarray(colour).convert(mode), colour, tolerance)

    @pytest.mark.parametrize("mode", ["P", "LAB"])
    def test_of_fewer_colours(self, colour, mode):
        image = Image.fromarray(colour).convert(mode)

        assert_read_as(image, np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
    def test_opaque_alpha_changes_nothing(self, colour, mode):
        grey = np.repeat(colour[..., :1], 3, axis=2)
        image = Image.fromarray(colour if mode.startswith("RGB") else colour[..., 0])
        for step in {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"]}.get(mode, [mode]):
            image = image.convert(step)

        assert image.mode == mode
        assert_read_as(image, colour if mode.startswith("RGB") else grey)

    def test_grey_stays_grey(self, colour):
        image = Image.fromarray(colour[..., 0])

        np.testing.assert_array_equal(by_encoder(image), colour[..., 0])
        np.testing.assert_array_equal(by_loader(image, mode="L"), colour[..., 0])

    def test_one_bit_is_black_and_white(self, colour):
        mask = colour[..., 0] > 100
        image = Image.fromarray(mask)

        assert image.mode == "1"
        np.testing.assert_array_equal(by_encoder(image), mask * 255)
        np.testing.assert_array_equal(by_loader(image, mode="L"), mask * 255)

    @pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
    def test_deep_pixels_keep_their_values(self, deep, mode):
        image = Image.fromarray(deep)
        for step in {"I;16": [], "I;16B": ["I", "I;16B"]}.get(mode, ["I", mode]):
            image = image.convert(step)

        assert image.mode == mode
        np.testing.assert_array_equal(by_encoder(image), deep)
        read = by_loader(image, mode="L", value_range=(0, 4095))
        np.testing.assert_array_equal(read, (deep / 4095 * 255).round())

    def test_values_up_to_255_of_mode_i_are_not_divided_by_256(self):
        image = Image.fromarray(np.full((HEIGHT, WIDTH), 200, np.int32))

        assert (by_encoder(image) == 200).all()
        assert (by_loader(image, value_range=(0, 255)) == 200).all()


class TestTransparency:
    def test_is_composited_on_white(self, colour):
        alpha = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(np.uint8)
        image = Image.fromarray(np.concatenate([colour, alpha], axis=2))

        assert_read_as(image, over([255, 255, 255], colour, alpha / 255), tolerance=1)

    def test_black_icons_on_clear_ground_stay_apart(self):
        icons = []
        for side in range(12):
            icon = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
            icon.paste((0, 0, 0, 255), (side, side, side + 8, side + 8))
            icons.append(icon)

        for images in (as_array(icons), ImageLoader(None).transform(icons)):
            assert len(np.unique(images, axis=0)) == 12
            assert set(np.unique(images)) == {0, 255}

    @pytest.mark.parametrize("mode", ["L", "RGB", "P"])
    def test_of_one_value(self, mode):
        image = Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 0))
        image.paste((204, 204, 204), (0, 0, 10, 10))
        image = image.convert(mode)
        clear = {"L": 0, "RGB": (0, 0, 0), "P": image.getpixel((20, 15))}[mode]
        expected = np.full((HEIGHT, WIDTH, 3), 255)
        expected[:10, :10] = 204

        assert_read_as(encode(image, "PNG", transparency=clear), expected)

    @pytest.mark.parametrize("background", ["black", "#102030"])
    def test_on_another_colour(self, background):
        image = Image.new("RGBA", (WIDTH, HEIGHT), (255, 255, 255, 0))

        read = by_loader(image, background=background)

        assert (read == {"black": [0, 0, 0], "#102030": [16, 32, 48]}[background]).all()

    def test_of_16_bits_keeps_its_values(self, deep):
        def chunk(name, content):
            checksum = struct.pack(">I", zlib.crc32(name + content))
            return struct.pack(">I", len(content)) + name + content + checksum

        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
        file = b"\x89PNG\r\n\x1a\n" + b"".join(
            [
                chunk(b"IHDR", struct.pack(">2I5B", WIDTH, HEIGHT, 16, 0, 0, 0, 0)),
                chunk(b"tRNS", struct.pack(">H", 0)),
                chunk(b"IDAT", zlib.compress(rows)),
                chunk(b"IEND", b""),
            ]
        )

        np.testing.assert_array_equal(by_encoder(file), deep)
        expected = (deep / 4095 * 255).round()
        np.testing.assert_array_equal(by_loader(file, mode="L", value_range=(0, 4095)), expected)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_upright(self, colour, orientation):
        stored = {
            1: lambda image: image,
            2: lambda image: image[:, ::-1],
            3: lambda image: image[::-1, ::-1],
            4: lambda image: image[::-1],
            5: lambda image: image.transpose(1, 0, 2),
            6: np.rot90,
            7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
            8: lambda image: np.rot90(image, -1),
        }[orientation](colour)
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)

        assert_read_as(file, colour)
        assert_read_as(Image.open(io.BytesIO(file)), colour)


class TestFormats:
    @pytest.mark.parametrize(
        ("format", "options", "tolerance"),
        [
            ("PNG", {}, 0),
            ("BMP", {}, 0),
            ("TIFF", {}, 0),
            ("TIFF", {"compression": "tiff_lzw"}, 0),
            ("PPM", {}, 0),
            ("TGA", {}, 0),
            ("WEBP", {"lossless": True}, 0),
            ("JPEG2000", {}, 0),
            ("JPEG", {"quality": 98, "subsampling": 0}, 6),
            ("AVIF", {"quality": 98}, 12),
        ],
        ids=lambda value: str(value),
    )
    def test_of_bytes(self, colour, format, options, tolerance):
        file = encode(Image.fromarray(colour), format, **options)

        assert_read_as(file, colour, tolerance)
        assert_read_as(io.BytesIO(file), colour, tolerance)
        assert_read_as({"bytes": file, "path": None}, colour, tolerance)

    def test_of_cmyk_jpeg(self, colour):
        assert_read_as(
            encode(Image.fromarray(colour).convert("CMYK"), "JPEG", quality=98), colour, 8
        )

    def test_first_frame_of_an_animation(self):
        frames = [Image.new("RGB", (WIDTH, HEIGHT), name) for name in ("red", "lime", "blue")]
        expected = np.full((HEIGHT, WIDTH, 3), [255, 0, 0])
        for format in ("GIF", "PNG", "TIFF", "WEBP"):
            options = {"lossless": True} if format == "WEBP" else {}
            file = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
            assert_read_as(file, expected)

    def test_of_heic(self):
        heif = pytest.importorskip("pillow_heif")
        file = io.BytesIO()
        heif.from_pillow(Image.new("RGB", (64, 64), (200, 100, 50))).save(file, quality=95)

        assert_read_as(file.getvalue(), np.full((64, 64, 3), [200, 100, 50]), tolerance=3)


class TestRefused:
    """Encoders name the row and what helps, as the loader does (see test_image_loader)."""

    @pytest.fixture
    def file(self, noise):
        return encode(Image.fromarray(noise(HEIGHT, WIDTH, 3)), "PNG")

    @pytest.mark.parametrize("contain", [list, lambda files: ((file, 0) for file in files)])
    def test_truncated(self, file, contain):
        with pytest.raises(ValueError, match=r"Row 1 of X cannot be read.*truncated"):
            PixelAutoencoder().fit(contain([file, file[:200]]))

    def test_no_image(self, file):
        words = r"Row 1 of X cannot be read.*UnidentifiedImageError.*arrays of their pixels"
        with pytest.raises(ValueError, match=words):
            PixelAutoencoder().fit([file, b"no image"])

    def test_decompression_bomb(self, file, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

        with pytest.raises(ValueError, match=r"Row 0.*If you trust the file.*MAX_IMAGE_PIXELS"):
            PixelAutoencoder().fit([file])

    def test_heic_without_pillow_heif(self, file):
        header = bytes.fromhex("00000018") + b"ftypheic" + bytes(100)

        with pytest.raises(ValueError, match=r"Row 1.*pip install pillow-heif"):
            PixelAutoencoder().fit([file, header])

    @pytest.mark.parametrize(
        "single",
        [
            lambda file: file,
            io.BytesIO,
            lambda file: {"bytes": file, "path": None},
            lambda file: Image.open(io.BytesIO(file)),
            lambda file: Image.open(io.BytesIO(file)).convert("L"),
        ],
        ids=["bytes", "open file", "cell", "PIL image", "grey PIL image"],
    )
    def test_single_image(self, file, single):
        with pytest.raises(ValueError, match=r"one image.*\[X\]"):
            PixelAutoencoder().fit(single(file))
        with pytest.raises(ValueError, match=r"one path or image.*\[X\]"):
            ImageLoader().transform(single(file))
