"""All that a GPU should be asked, in minutes: precision, speed, memory, and what goes wrong.

Embeddings and training are compared with the CPU's, training and transform are timed, memory runs
out, a fit is killed. A check that fails stops no other one; those that --seconds leaves no time for
are named. Each outcome is in the file --out as soon as there is one. Images are made by NumPy:
`pip install '.[train]'` is all this needs. Without a GPU, tiny sizes run on the CPU: that tests
these checks, and measures nothing.

    python -m benchmarks gpu --out out/gpu.json
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import describe_machine, write_text
from benchmarks.studies.gpu_checks import CHECKS, GIB, NEEDS_GPU, Bench, on_cpu, on_gpu


class OutOfTime(BaseException):
    """The time limit is up; no handler of errors takes this for one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    what = f"checks to run: {', '.join(CHECKS)}"
    add("--checks", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME", help=what)
    add("--seconds", type=float, default=480, help="time limit of all checks together")
    add("--smoke", action="store_true", help="tiny sizes on the CPU, also where there is a GPU")
    add("--out", type=Path, default=Path("out/gpu.json"), help="file of the outcomes")


def main(args: argparse.Namespace) -> int:
    """Run the checks; return 1 if one of them failed."""
    if not torch.cuda.is_available():
        print("torch finds no CUDA device here. Tiny sizes run on the CPU, to test the checks.")
        args.smoke = True
    bench = on_cpu() if args.smoke else on_gpu()
    checks = {name: CHECKS[name] for name in args.checks if not (args.smoke and name in NEEDS_GPU)}
    settings = {"smoke": args.smoke, "seconds": args.seconds, **describe_bench(bench)}
    machine = describe_machine() | describe_gpu(bench)

    def write(outcomes: Mapping[str, dict]) -> None:
        left_out = [name for name in args.checks if name not in outcomes]
        record = {
            "settings": settings,
            "machine": machine,
            "checks": outcomes,
            "left_out": left_out,
        }
        write_text(args.out, json.dumps(record, indent=2) + "\n")

    outcomes = run(checks, bench, args.seconds, write)
    failed = [name for name, outcome in outcomes.items() if not outcome["passed"]]
    left_out = [name for name in args.checks if name not in outcomes]
    print(f"Written to {args.out}.")
    print(f"Failed: {', '.join(failed) or 'none'}. Left out: {', '.join(left_out) or 'none'}.")
    return 1 if failed else 0


def run(
    checks: Mapping[str, Callable[[Bench], dict]],
    bench: Bench,
    seconds: float,
    write: Callable[[Mapping[str, dict]], object],
) -> dict[str, dict]:
    """Run checks one by one, and return the outcomes of those that ended in time."""
    outcomes: dict[str, dict] = {}
    try:
        with time_limit(seconds):
            for name, check in checks.items():
                outcomes[name] = outcome = attempt(check, bench)
                write(outcomes)
                print(f"{name}: {json.dumps(_rounded(outcome))}", flush=True)
    except OutOfTime:
        print(f"The time limit of {seconds:g} s is up.")
    return outcomes


def attempt(check: Callable[[Bench], dict], bench: Bench) -> dict:
    """Run a check; an error is an outcome too."""
    start = time.perf_counter()
    on_gpu = bench.device == "cuda"
    try:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        outcome = check(bench)
        if on_gpu:
            outcome["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    except Exception as error:
        outcome = {"error": "".join(traceback.format_exception(error, limit=-5))}
    passed = "error" not in outcome and not outcome.get("failed")
    return {"passed": passed, "seconds": time.perf_counter() - start, **outcome}


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the main thread when time is up, again every 5 s if something hides it."""

    def ring(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe_bench(bench: Bench) -> dict:
    """Describe the sizes for JSON."""
    return {**bench._asdict(), "images": list(bench.images.shape)}


def describe_gpu(bench: Bench) -> dict:
    """Describe what `describe_machine` leaves out, if there is a GPU to describe."""
    if bench.device != "cuda":
        return {}
    properties = torch.cuda.get_device_properties("cuda")
    return {"cuda": torch.version.cuda, "gpu_gib": properties.total_memory / GIB}


def _rounded(value: Any) -> Any:
    """Round numbers to four digits, to print them."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
