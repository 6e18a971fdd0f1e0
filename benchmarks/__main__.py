"""`python -m benchmarks`: every comparison of this project, a subcommand each."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# Name of the module in this package, and what it does. A module is imported only when it is asked
# for, has `add_arguments(parser)` and `main(args)`, and its docstring is its help.
COMMANDS = {
    "demo": "pretrain on LunarLander, probe, and compare with simple baselines (minutes)",
    "run": "the paper's comparison, cell by cell; a killed run goes on (minutes to days)",
    "convergence": "validation loss by epoch until it no longer falls (hours)",
    "report": "the paper's tables and figures, made of the records of both (seconds)",
    "faults": "kill processes, fill disks, damage files, and count what is lost (minutes)",
    "memory": "peak memory of fitting and embedding, in memory or beyond it (minutes)",
    "study": "targets, batch size, schedule and augmentation against training seconds (an hour)",
    "loss_networks": "encoders trained on several loss networks, and these frozen (hours)",
    "encoders": "arithmetic and speed of the image encoders (seconds)",
    "speed": "images per second of training and embedding against textbook loops (minutes)",
    "engines": "what a second dask worker or accelerate process brings (minutes)",
    "scale": "time, memory, disk and money of up to a billion images (minutes)",
    "readme": "fill the README's tables from the committed result files",
}


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        if name in argv[:1]:
            module = import_module(f"benchmarks.{name}")
            subparser.description = module.__doc__
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(subparser)
    args = parser.parse_args(argv)
    return import_module(f"benchmarks.{args.command}").main(args) or 0


if __name__ == "__main__":
    sys.exit(main())
