"""What the image encoders cost."""

import json

from benchmarks import encoders
from benchmarks.__main__ import main


def test_larger_encoders_take_more_arithmetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "BATCH", 4)
    monkeypatch.setattr(encoders, "REPEATS", 1)
    main(["encoders", "--out", str(tmp_path / "results" / "encoders.json")])
    rows = json.loads((tmp_path / "results" / "encoders.json").read_text())["encoders"]
    assert rows["small"]["mflop"] < rows["image"]["mflop"] / 3
    assert rows["large"]["mflop"] > 3 * rows["image"]["mflop"]
    assert rows["image"]["parameters"] == 756_704  # the paper's, at z = 64
    printed = capsys.readouterr().out
    assert '"large"' in printed
    assert printed.strip() in encoders.readme_block(tmp_path, tmp_path / "results")
