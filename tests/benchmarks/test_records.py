"""Result files are whole, comparable and free of names of machines."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.records import (
    RESULTS,
    add_record,
    common_settings,
    describe_machine,
    fingerprint,
    markdown_table,
    read_records,
    write_atomically,
    write_records,
)

ROOT = Path(__file__).parents[2]


def test_records_are_lines_in_order(tmp_path):
    records = [{"method": "a", "loss": 0.25, "gpu": None}, {"method": "b", "history": [1, 2]}]
    path = tmp_path / "deep" / "r.jsonl"
    for record in reversed(records):
        add_record(path, record)
    assert read_records(path) == records
    assert len(path.read_text().splitlines()) == 2
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("path", sorted((ROOT / RESULTS).glob("*.jsonl")), ids=lambda p: p.name)
def test_committed_files_are_as_they_would_be_written(path, tmp_path):
    again = write_records(tmp_path / path.name, read_records(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("bad", [float("nan"), np.zeros(2)])
def test_a_record_that_cannot_be_written_leaves_the_old_ones(tmp_path, bad):
    path = write_records(tmp_path / "r.jsonl", [{"loss": 1}])
    with pytest.raises((TypeError, ValueError)):
        add_record(path, {"loss": bad})
    assert read_records(path) == [{"loss": 1}]


def test_an_interrupted_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = write_records(tmp_path / "r.jsonl", [{"loss": 1}])

    def interrupted(temporary):
        Path(temporary).write_text('{"lo')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert read_records(path) == [{"loss": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m benchmarks --help"):
        read_records(tmp_path / "r.jsonl")
    for line in ("{", "[1]"):
        (tmp_path / "r.jsonl").write_text('{"z": 1}\n' + line)
        with pytest.raises(ValueError, match=r"r\.jsonl, line 2 is not a JSON object"):
            read_records(tmp_path / "r.jsonl")


def test_settings_are_compared_by_content():
    a = {"settings": {"z": 64, "seed": 0}}
    b = {"settings": {"seed": 0, "z": 64}}
    assert common_settings([a, b]) == a["settings"]
    assert fingerprint(a["settings"]) == fingerprint(b["settings"])
    with pytest.raises(ValueError, match="2 different settings"):
        common_settings([a, {"settings": {"z": 128, "seed": 0}}])


def test_machine_is_described_but_not_named():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu"]
    assert machine["python"] == platform.python_version()
    assert machine["torch"]
    assert machine["scikit-learn"]
    text = json.dumps(machine)
    assert platform.node() not in text
    assert os.getcwd() not in text


def test_markdown_columns_line_up():
    lines = markdown_table([{"a": "long name", "b": "1.0"}, {"a": "x", "b": "10,000"}]).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | -----: |"
    assert lines[2].endswith("|    1.0 |")
