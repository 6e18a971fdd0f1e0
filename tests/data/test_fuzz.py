"""Any array at all gives a finite embedding, or an error that says what was expected.

Hypothesis makes the arrays; `make fuzz` tries many more of them, other ones each time.
"""

import collections
import functools
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skfp import FeaturePredictionEncoder

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
HELPFUL = re.compile(r"Expected|expecting|at least|Resize|Scale|[Pp]ass |[Ll]eave |Lower ")

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


def estimator(**parameters):
    return FeaturePredictionEncoder(
        Z, loss_network=torch.nn.AvgPool2d(32), max_epochs=1, random_state=0, **parameters
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


@pytest.mark.filterwarnings("ignore")
def test_a_finite_embedding_or_a_helpful_error(capsys):
    counts = collections.Counter()

    @given(arrays(), st.sampled_from(sorted(WAYS)))
    def check(X, way):
        counts["cases"] += 1
        counts["failures"] += 1  # until it is known better
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
        counts["failures"] -= 1

    try:
        check()
    finally:
        with capsys.disabled():
            print(
                "\nfuzz: {cases:,} cases, {embedded:,} embedded, {refused:,} refused, {failures:,} "
                "failures".format_map(counts)
            )
    assert counts["cases"] >= settings().max_examples
    # Neither outcome may be rare, or the other would hardly be tested.
    assert min(counts["embedded"], counts["refused"]) > 0.1 * counts["cases"]


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
