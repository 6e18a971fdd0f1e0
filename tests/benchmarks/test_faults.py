"""Every fault is injected once, for real, and nothing is lost."""

import json
import random

import pytest

from benchmarks.__main__ import main
from benchmarks.faults import FAULTS, Unavailable, table


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost(name, tmp_path):
    try:
        outcome = FAULTS[name].inject(1, tmp_path, random.Random(1))
    except Unavailable as error:
        pytest.skip(str(error))
    assert outcome.injected >= 1
    assert outcome.lost == 0


def test_a_loss_is_counted_told_and_ends_in_an_error(tmp_path, monkeypatch, capsys):
    fault = FAULTS["diverged"]._replace(inject=lambda *_: fault_outcome)
    fault_outcome = FAULTS["diverged"].inject(1, tmp_path, random.Random(0))._replace(lost=3)
    monkeypatch.setitem(FAULTS, "diverged", fault)
    assert main(["faults", "--faults", "diverged", "--out", str(tmp_path / "out")]) == 1
    assert "3 epochs" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "diverged.json").read_text())
    assert (record["injected"], record["lost"]) == (1, 3)
    assert "3 epochs" in table([record])
