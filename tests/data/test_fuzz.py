"""Images of any kind are embedded alike in any form; other arrays give a helpful error.

Hypothesis makes the arrays; `make fuzz` tries many more of them, other ones each time.
"""

import collections
import functools
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone

from skfp import FeaturePredictionEncoder
from skfp._images.formats import layout_of_images

Z = 2
SIDES = (16, 20)
NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g"]
OTHERS = ["c8", "c16", "O", "S3", "U3", "M8[s]", "m8[D]", "V5", [("r", "u1"), ("g", "f4")]]
OBJECTS = [0, 1, 0.5, True, None, "a", "7", b"a", 10**400, Fraction(1, 2), 1j, [1], (), {}, object]
# Named by what images hold of it; a number is what it becomes in a type that cannot hold it.
FILLS = {
    "zeros": lambda random, shape: np.zeros(shape),
    "a constant": lambda random, shape: np.full(shape, random.choice([0.5, 1, 7, 255, -3])),
    "the unit range": lambda random, shape: random.random(shape),
    "bytes": lambda random, shape: random.integers(0, 256, shape),
    "signed": lambda random, shape: random.normal(0, 100, shape),
    "huge": lambda random, shape: random.normal(0, 1e300, shape),
    "great": lambda random, shape: random.normal(0, 1e30, shape),
    "subnormal": lambda random, shape: random.random(shape) * 1e-310,
    "integers of any size": lambda random, shape: random.integers(-(2**63), 2**63, shape),
}
VALUES = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e-45, 65504.0, 3.4e38, -1.7e308, 256, 2**63, -1]
VIEWS = {
    "plain": lambda X: X,
    "upside down": lambda X: X[..., ::-1] if X.ndim else X,
    "last first": lambda X: X[::-1] if X.ndim else X,
    "transposed": lambda X: X.T.copy().T,
    "axes swapped": lambda X: X.swapaxes(1, -1) if X.ndim > 1 else X,
    "every second": lambda X: np.repeat(X, 2, axis=-1)[..., ::2] if X.ndim else X,
    "one for all": lambda X: np.broadcast_to(X[:1], X.shape) if X.ndim and len(X) else X,
    "one channel for all": lambda X: np.broadcast_to(X[..., :1], X.shape) if X.ndim else X,
    "a list": lambda X: X.tolist(),
    "a list of arrays": lambda X: list(X) if X.ndim else X,
}
HELPFUL = re.compile(
    r"Expected|expecting|at least|Resize|Scale|[Pp]ass |[Ll]eave |Lower |Convert|is required|"
    r"Row \d+ of X cannot be read as an image: \w+: \w+"
)

FITTING = [(16, 16, 3), (3, 16, 16), (768,), (16, 16), (16, 16, 1), (256,)]
image_shapes = st.one_of(
    st.tuples(st.integers(2, 3), st.sampled_from(FITTING)).map(lambda parts: (parts[0], *parts[1])),
    st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES)),
    st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES), st.integers(1, 5)),
    st.tuples(st.integers(1, 5), st.sampled_from(SIDES), st.sampled_from(SIDES)),
    st.tuples(st.sampled_from([1, 30, 256, 320, 768, 1024])),
)
shapes = st.one_of(
    st.tuples(st.integers(2, 3), st.sampled_from(FITTING)).map(lambda parts: (parts[0], *parts[1])),
    st.tuples(st.integers(2, 3), image_shapes).map(lambda parts: (parts[0], *parts[1])),
    st.tuples(st.integers(0, 3), image_shapes).map(lambda parts: (parts[0], *parts[1])),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 16]), max_size=5).map(tuple),
)


@st.composite
def arrays(draw):
    """Arrays of any type, shape, value, byte order and order in memory."""
    shape = draw(shapes)
    dtype = np.dtype(draw(st.sampled_from(NUMBERS) | st.sampled_from(NUMBERS + OTHERS)))
    dtype = dtype.newbyteorder(draw(st.sampled_from("=<>")))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    with np.errstate(all="ignore"):
        if dtype.kind in "OSUV":
            X = np.empty(shape, dtype)
            items = st.sampled_from(OBJECTS if dtype.kind == "O" else ["a", ""])
            if dtype.kind != "V":
                X.fill(draw(items))
        else:
            X = FILLS[draw(st.sampled_from(sorted(FILLS)))](random, shape)
            X = np.asarray(X).astype("i8" if dtype.kind in "mM" else dtype).astype(dtype)
        if X.size and dtype.kind in "fc":
            for value in draw(st.just([]) | st.lists(st.sampled_from(VALUES), max_size=2)):
                X.flat[random.integers(X.size)] = value
        elif X.size and dtype.kind == "O":
            item = np.empty((), object)
            item[()] = draw(st.sampled_from(OBJECTS))
            X.flat[random.integers(X.size)] = item[()]
    X.flags.writeable = draw(st.booleans())
    return VIEWS[draw(st.sampled_from(sorted(VIEWS)))](X)


def estimator(encoder="small", **parameters):
    average = torch.nn.AvgPool2d(32)
    return FeaturePredictionEncoder(
        Z, encoder=encoder, loss_network=average, max_epochs=1, random_state=0, **parameters
    )


def fitted_to(images):
    return functools.cache(lambda: estimator().fit(images))


NOISE = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
WAYS = {
    "fit, features": lambda X: estimator(encoder="features").fit_transform(X),
    "fit, image": lambda X: estimator().fit_transform(X),
    "fit, rows of RGB": lambda X: estimator(image_shape=(16, 16, 3)).fit_transform(X),
    "transform after bytes": lambda X: after_bytes().transform(X),
    "transform after grey": lambda X: after_grey().transform(X),
    "transform after floats": lambda X: after_floats().transform(X),
}
after_bytes = fitted_to(NOISE)
after_grey = fitted_to(NOISE[..., 0] / 255)
after_floats = fitted_to(NOISE * 2.0 - 255)


# Pixels with 8 bits, in other types and scales that stand for the same brightness...
SCALES = {
    "uint8": lambda X: X,
    "int64": lambda X: X.astype(np.int64),
    "big-endian uint16": lambda X: X.astype(">u2"),
    "float64 to 255": lambda X: X.astype(np.float64),
    "float32 to 1": lambda X: X / np.float32(255),
    "float16 to 255": lambda X: X.astype(np.float16),
    "-1 to 1": lambda X: X / 127.5 - 1,
    "12 bits": lambda X: X.astype(np.uint16) * 16,
    "CT": lambda X: X.astype(np.int16) * 10 - 1000,
}
# ...and of masks.
MASK_SCALES = {
    "bool": lambda X: X > 0,
    "uint8 to 1": lambda X: (X > 0).astype(np.uint8),
    "int32 to 1": lambda X: (X > 0).astype(np.int32),
    "float64 to 1": lambda X: (X > 0).astype(np.float64),
    **SCALES,
}


class Photos(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row], row


def as_pil(X):
    if X.dtype == bool or (X.dtype == np.uint8 and X.ndim == 3) or X.shape[-1] == 3:
        return [Image.fromarray(image) for image in X]
    return [*X]


def native(X):
    return X.astype(X.dtype.newbyteorder("="))


def tensors(X):
    return torch.from_numpy(np.ascontiguousarray(native(X)))


def column(X):
    images = np.empty(len(X), dtype=object)
    images[:] = [*X]
    return images


# Containers of images channels last...
CONTAINERS = {
    "array": lambda X: X,
    "a list": lambda X: [*X],
    "a tuple": lambda X: (*X,),
    "a generator": lambda X: (image for image in X),
    "values of a dict": lambda X: dict(enumerate(X)).values(),
    "an object column": column,
    "a series": lambda X: pd.Series([*X]),
    "a frame": lambda X: pd.DataFrame({"image": [*X]}),
    "tensor": tensors,
    "a list of tensors": lambda X: [*tensors(X)],
    "a data set": Photos,
    "a data set of tensors": lambda X: Photos(tensors(X)),
    "PIL images": lambda X: as_pil(X) if X.dtype in (bool, np.uint8) else [*X],
    "Fortran order": np.asfortranarray,
    "upside down": lambda X: X[:, ::-1].copy()[:, ::-1],
    "broadcast": lambda X: np.broadcast_to(X[None], (1, *X.shape))[0],
    "nested lists": lambda X: native(X).tolist() if X.dtype != np.uint8 else [*X],
}
# ...and how they may be laid out before; the last two need three axes.
LAYOUTS = {
    "last": lambda X: X,
    "rows": lambda X: X.reshape(len(X), -1),
    "first": lambda X: X.transpose(0, 3, 1, 2) if X.ndim == 4 else X,
    "first in memory": lambda X: (
        X.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1) if X.ndim == 4 else X
    ),
}


@st.composite
def representations(draw):
    """Two representations of the same valid images, and the parameters to read either with."""
    n = draw(st.integers(2, 4))
    channels = draw(st.sampled_from([0, 1, 2, 3, 3, 4, 5, 13]))
    sides = st.sampled_from([2, 3, 5, 8, 16, 28, 40, 64, 70])
    height, width = draw(sides), draw(sides)
    is_mask = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (n, height, width, channels) if channels else (n, height, width)
    X = random.integers(0, 2 if is_mask else 256, shape).astype(np.uint8)
    X *= 255 if is_mask else 1
    X.reshape(-1)[:2] = 0, 255  # each uses the whole range, in fit and in transform
    scales = MASK_SCALES if is_mask else SCALES
    forms = []
    for _ in range(2):
        layout = draw(st.sampled_from(sorted(LAYOUTS)))
        scale = draw(st.sampled_from(sorted(scales)))
        container = draw(st.sampled_from(sorted(CONTAINERS)))
        forms.append((layout, scale, container))
    resize = draw(st.sampled_from(["auto", "auto", "tile", 64, (64, 80)]))
    return X, scales, forms, resize


def is_refused_by_shape(shape):
    """Tell whether images of so few pixels could have other axes than they have."""
    if len(shape) == 2:
        return shape[1] in (3, 4) and shape[0] >= 8
    return layout_of_images(shape) != "hwc"


def embed(X, scales, form, resize):
    layout, scale, container = form
    shape = X.shape[1:]
    if layout == "first" and (
        len(shape) == 2 or layout_of_images(shape[-1:] + shape[:-1]) != "chw"
    ):
        layout = "last"  # could be read as channels last
    X = LAYOUTS[layout](scales[scale](X))
    image_shape = shape if layout == "rows" else None
    if container == "PIL images" and (layout == "first" or layout == "rows" or shape[-1:] == (4,)):
        container = "a list"  # PIL says that a fourth channel is alpha
    if layout == "rows" and container in ("a series", "a frame", "an object column", "a data set"):
        container = "array"
    if layout == "rows" and container == "a data set of tensors":
        container = "tensor"
    # Training enlarges differences of rounding between scales; at a low rate, it leaves them small.
    parameters = {"lr": 1e-6, "resize": resize, "image_shape": image_shape}
    encoder = estimator(**parameters).fit(CONTAINERS[container](X))
    return encoder.transform(CONTAINERS[container](X)), encoder


@pytest.mark.filterwarnings("ignore")
def test_the_same_images_in_another_form_and_other_arrays(capsys):
    counts = collections.Counter()

    @given(representations() | st.tuples(arrays(), st.sampled_from(sorted(WAYS))))
    def check(case):
        counts["cases"] += 1
        counts["failures"] += 1  # until it is known better
        (check_forms if len(case) == 4 else check_any)(*case)
        counts["failures"] -= 1

    def check_forms(X, scales, forms, resize):
        if is_refused_by_shape(X.shape[1:]):
            X = np.repeat(np.repeat(X, 8, axis=1), 8, axis=2)
        counts["valid"] += 1
        embedding, encoder = embed(X, scales, forms[0], resize)
        again, _ = embed(X, scales, forms[1], resize)
        assert embedding.shape == (len(X), Z)
        assert np.isfinite(np.asarray(embedding)).all()
        np.testing.assert_allclose(again, embedding, atol=1e-5, rtol=1e-4)
        if forms[0][1] == forms[1][1]:  # in transform, scales may be refused
            other = scales[forms[1][1]](X)
            np.testing.assert_allclose(encoder.transform(other), embedding, atol=1e-5, rtol=1e-4)

    def check_any(X, way):
        try:
            embedding = WAYS[way](X)
        except (TypeError, ValueError) as error:
            counts["refused"] += 1
            message = str(error) or "(no words)"
        else:
            counts["embedded"] += 1
            message = ""
            assert embedding.shape == (len(X), Z)
            assert embedding.dtype == np.float32
            assert np.isfinite(embedding).all()
        assert not message or HELPFUL.search(message), message

    try:
        check()
    finally:
        with capsys.disabled():
            print(
                "\nfuzz: {cases:,} cases, {valid:,} valid in two forms, of others {embedded:,} "
                "embedded and {refused:,} refused, {failures:,} failures".format_map(counts)
            )
    assert counts["cases"] >= settings().max_examples
    # No outcome may be rare, or it would hardly be tested.
    assert counts["valid"] > 0.45 * counts["cases"]
    assert min(counts["embedded"], counts["refused"]) > 0.05 * counts["cases"]


SAME = {
    "read-only": lambda X: np.frombuffer(X.tobytes(), X.dtype).reshape(X.shape),
    "big-endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "little-endian": lambda X: X.astype(X.dtype.newbyteorder("<")),
    "Fortran order": np.asfortranarray,
    "channels first in memory": lambda X: X.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1),
    "every second": lambda X: np.repeat(X, 2, axis=0)[::2],
    "negative strides": lambda X: X[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "unaligned": lambda X: np.frombuffer(b"0" + X.tobytes(), X.dtype, offset=1).reshape(X.shape),
    "wider": lambda X: X.astype({"f": np.float64, "i": np.int64}.get(X.dtype.kind, X.dtype)),
}


PLAIN = {
    "uint8": lambda X: X,
    "float32 in [0, 1]": lambda X: (X / 255).astype(np.float32),
    "float32": lambda X: X.astype(np.float32) - 1000,
    "int16": lambda X: X.astype(np.int16) * 100,
}


@pytest.fixture(scope="module", params=PLAIN)
def plain(request, frames):
    """Plain images, an encoder fitted to them and their embedding."""
    X = PLAIN[request.param](frames)
    encoder = FeaturePredictionEncoder(z=3, max_epochs=1, random_state=0).fit(X)
    return X, encoder, encoder.transform(X)


@pytest.mark.parametrize("store", SAME)
def test_the_order_in_memory_changes_nothing(plain, store):
    X, encoder, embedding = plain

    stored = SAME[store](X)

    np.testing.assert_array_equal(stored, X)
    np.testing.assert_array_equal(encoder.transform(stored), embedding)
    np.testing.assert_array_equal(clone(encoder).fit_transform(stored), embedding)
