"""Result files are whole, comparable and free of names of machines."""

import json
import os
import platform

import numpy as np
import pytest
import torch

from benchmarks.records import (
    common_settings,
    describe_machine,
    fingerprint,
    markdown_table,
    read_records,
    write_atomically,
    write_record,
)


def test_what_is_written_is_read(tmp_path):
    records = [{"method": "a", "loss": 0.25, "gpu": None}, {"method": "b", "history": [1, 2]}]
    for record in reversed(records):
        write_record(tmp_path / "deep" / f"{record['method']}.json", record)
    assert read_records(tmp_path / "deep") == records
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("bad", [float("nan"), np.zeros(2)])
def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path, bad):
    path = write_record(tmp_path / "r.json", {"loss": 1})
    with pytest.raises((TypeError, ValueError)):
        write_record(path, {"loss": bad})
    assert json.loads(path.read_text()) == {"loss": 1}


def test_an_interrupted_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = write_record(tmp_path / "r.json", {"loss": 1})

    def interrupted(temporary):
        with open(temporary, "w") as file:
            file.write('{"lo')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert read_records(tmp_path) == [{"loss": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m benchmarks --help"):
        read_records(tmp_path)


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
