"""The checks of a GPU: all but one run for real on the CPU, on tiny sizes."""

import contextlib
import json
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.studies import gpu, gpu_checks

# As on a machine with nothing but `pip install '.[train]'`.
ON_A_BARE_MACHINE = """
import sys
from importlib.machinery import PathFinder
LACKING = {"dask", "gymnasium", "lightly", "matplotlib", "onnxruntime", "pandas", "timm"}
class Bare(PathFinder):
    @staticmethod
    def find_spec(name, *args):
        return None if name in LACKING else PathFinder.find_spec(name, *args)
sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from benchmarks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def written():
    """Collect what a run writes."""
    return []


def run(checks, written, seconds=60.0):
    write = lambda outcomes: written.append(json.loads(json.dumps(outcomes)))  # noqa: E731
    return gpu.run(checks, gpu_checks.on_cpu(), seconds, write)


def test_smoke_test_runs_on_a_bare_machine(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-c", ON_A_BARE_MACHINE, "gpu", "--smoke", "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr

    record = json.loads(out.read_text("utf-8"))
    checks = record["checks"]
    assert record["settings"]["smoke"]
    assert record["left_out"] == ["out-of-memory"]
    assert checks.keys() == gpu_checks.CHECKS.keys() - {"out-of-memory"}
    assert checks["killed"]["epochs_kept"] == checks["killed"]["epochs_trained_after"] == 2
    assert checks["killed"]["differences"]["loss"] == 0  # bit for bit on one processor
    assert checks["embedding-image"]["differences"]["float32"] < 1e-5
    assert checks["embedding-image"]["differences"]["bfloat16"] > 1e-5
    assert checks["training-I-F-FP"]["images_per_second"] > 0
    assert checks["transform-image"]["images_per_second"].keys() == {"host", "device"}
    assert ("no CUDA device" in process.stdout) is not torch.cuda.is_available()


def test_a_check_that_fails_stops_no_other(written, capsys):
    def broken(bench):
        raise RuntimeError("device-side assert triggered")

    checks = {
        "broken": broken,
        "wrong": lambda bench: gpu_checks.judge({"a": float("nan")}, {"a": 1.0}),
        "right": lambda bench: {"images": len(bench.images)},
    }
    outcomes = run(checks, written)
    assert [outcome["passed"] for outcome in outcomes.values()] == [False, False, True]
    assert "device-side assert triggered" in outcomes["broken"]["error"]
    assert outcomes["wrong"]["failed"] == ["a"]
    assert [len(outcomes) for outcomes in written] == [1, 2, 3]
    assert "device-side assert triggered" in capsys.readouterr().out


def test_time_limit_ends_the_check_that_runs_and_keeps_the_others(written):
    def patient(bench):
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("an error handler caught the time limit")

    start = time.perf_counter()
    checks = {"first": lambda bench: {}, "long": patient, "last": lambda bench: {}}
    outcomes = run(checks, written, seconds=1)
    assert time.perf_counter() - start < 30
    assert list(outcomes) == list(written[-1]) == ["first"]


def test_command_names_what_failed_and_what_was_left_out(tmp_path, monkeypatch, capsys):
    checks = {"good": lambda bench: {}, "bad": lambda bench: {"failed": ["float32"]}}
    monkeypatch.setattr(gpu, "CHECKS", {**checks, "out-of-memory": lambda bench: {}})
    args = gpu.argparse.Namespace(
        checks=[*gpu.CHECKS], seconds=60, smoke=True, out=tmp_path / "gpu.json"
    )
    assert gpu.main(args) == 1
    assert "Failed: bad. Left out: out-of-memory." in capsys.readouterr().out


class TestOutOfMemory:
    """The limit of memory is a hook here, which raises the error of a GPU for a large batch."""

    def limit(self, monkeypatch, n_images, error):
        def refuse(module, inputs):
            if any(tuple(batch.shape[:1]) > (n_images,) for batch in inputs):
                raise error("CUDA out of memory. Tried to allocate 2.00 GiB.")

        @contextlib.contextmanager
        def little_memory():
            with torch.nn.modules.module.register_module_forward_pre_hook(refuse):
                yield 1.0

        monkeypatch.setattr(gpu_checks, "little_memory", little_memory)

    # The default batch holds 128 images, and a fifth is for validation.
    bench = gpu_checks.on_cpu()._replace(n_large=200)

    def test_error_is_reported_and_a_smaller_batch_works(self, monkeypatch):
        self.limit(monkeypatch, 128, torch.cuda.OutOfMemoryError)
        outcome = gpu_checks.out_of_memory(self.bench)
        assert outcome["error_type"] == "OutOfMemoryError"
        assert "Tried to allocate" in outcome["error_message"]
        assert outcome["smaller_batch_size"] == 128
        assert outcome["failed"] == []

    def test_another_error_fails(self, monkeypatch):
        self.limit(monkeypatch, 128, ValueError)
        assert gpu_checks.out_of_memory(self.bench)["failed"] == ["the type of the error"]

    def test_a_batch_that_fits_fails(self, monkeypatch):
        self.limit(monkeypatch, 1000, torch.cuda.OutOfMemoryError)
        with pytest.raises(RuntimeError, match="200 images fitted into"):
            gpu_checks.out_of_memory(self.bench)
