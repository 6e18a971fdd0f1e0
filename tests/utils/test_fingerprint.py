"""Callables are told apart by what they compute, and known again wherever they have been."""

import dis
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from skfp._utils.fingerprint import fingerprint_callable

ROOT = Path(__file__).parents[2]
SOURCE = """
def function(x, names={"c", "b"}):
    def inner(y):
        return y in {"one", "two", "three", "four", "five", "six"} or y == (1, "a", None, 2.0)
    return inner(x) or x[:1] in names
"""


def compiled(source):
    names = {}
    exec(compile(source, "file.py", "exec"), names)
    return names["function"]


class Model(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, 3, 4, 4), float(factor)))

    def see(self, images):
        return images * self.factor

    def look(self, images):
        return images + self.factor


def make(size, width):
    return nn.Conv2d(3, width, 16)


def holding(value):
    return lambda images: images * value


class TestApart:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda size: nn.ReLU(), lambda size: nn.Tanh()),
            (lambda size: make(size, 2), lambda size: make(size, 3)),
            (functools.partial(make, width=2), functools.partial(make, width=3)),
            (functools.partial(make, width=2), make),
            (Model(1).see, Model(2).see),
            (Model(1).see, Model(1).look),
            (holding(1), holding(2)),
            (holding(torch.ones(2)), holding(torch.ones(2, 1))),
            (holding(torch.ones(2)), holding(torch.ones(2).double())),
            (holding(np.ones(2)), holding(np.zeros(2))),
            (holding(holding(1)), holding(holding(2))),
            (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
            (lambda x: x * 1, lambda x: x * 1.0),
        ],
        ids=range(13),
    )
    def test_what_computes_something_else(self, one, other):
        assert fingerprint_callable(one) != fingerprint_callable(other)


class TestAlike:
    def test_after_it_was_called_and_looked_at(self, capsys):
        function = compiled(SOURCE)
        before = fingerprint_callable(function)
        assert not any(function("ten") for _ in range(100))  # Python rewrites what runs often
        dis.dis(function)
        assert fingerprint_callable(function) == before

    def test_after_its_lines_have_moved(self):
        moved = compiled("\n\nother = 1\n" + SOURCE)
        assert fingerprint_callable(moved) == fingerprint_callable(compiled(SOURCE))

    def test_after_cloudpickle(self):
        function = compiled(SOURCE)
        again = pickle.loads(cloudpickle.dumps(function))
        assert fingerprint_callable(again) == fingerprint_callable(function)

    def test_in_another_process(self, tmp_path):
        """Where strings have another hash, and sets of them another order."""
        code = (
            "import sys; from skfp._utils.fingerprint import fingerprint_callable; names = {}; "
            "exec(compile(sys.argv[1], 'x', 'exec'), names); "
            "print(fingerprint_callable(names['function']))"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, SOURCE],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert told.strip() == fingerprint_callable(compiled(SOURCE))

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Model(1).see,
            lambda: holding(torch.ones(2)),
            lambda: holding(torch.ones(2).bfloat16()),
            lambda: holding({"b": {"x", None, 1}, "a": [np.ones(2)]}),
            lambda: functools.partial(holding, Model(3)),
        ],
        ids=range(5),
    )
    def test_where_equal_things_are_held(self, make):
        one, other = make(), make()
        assert one is not other
        assert fingerprint_callable(one) == fingerprint_callable(other)

    def test_where_it_holds_itself(self):
        def made(step):
            def countdown(n):
                return n and countdown(n - step)

            return countdown

        assert fingerprint_callable(made(1)) == fingerprint_callable(made(1))
        assert fingerprint_callable(made(1)) != fingerprint_callable(made(2))


def test_what_has_no_values_is_refused(tmp_path):
    with (
        open(tmp_path / "file", "w") as file,
        pytest.raises(TypeError, match=r"Cannot compare .*numbers, text"),
    ):
        fingerprint_callable(holding(file))
