"""The measurements of this project, a command each.

Every number in the README and the user guide comes from one of them: a study writes records, one a
line, to a file under benchmarks/results (or --out), and `docs` fills the pages from these files.
Studies go on where they stopped when the same command is given again.

    python -m benchmarks demo --out out/demo
    python -m benchmarks comparison --help
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# Module of each command, and what it does. Modules are imported only when asked for; each has
# `add_arguments(parser)` and `main(args)`, and its docstring is its help.
COMMANDS = {
    "demo": (
        "benchmarks.demo",
        "train on LunarLander, probe, compare with baselines (3 to 6 minutes)",
    ),
    "comparison": ("benchmarks.studies.comparison", "the paper's comparison (minutes to days)"),
    "convergence": ("benchmarks.studies.convergence", "validation loss by epoch (hours)"),
    "study": ("benchmarks.studies.study", "targets, batch size, schedule, augmentation (1 hour)"),
    "loss_networks": ("benchmarks.studies.loss_networks", "which network to learn from (hours)"),
    "speed": ("benchmarks.studies.speed", "training and embedding against PyTorch (20 minutes)"),
    "small_images": (
        "benchmarks.studies.small_images",
        "small images resized or tiled (30 minutes)",
    ),
    "baselines": ("benchmarks.studies.baselines", "other embeddings at equal seconds (hours)"),
    "photographs": (
        "benchmarks.studies.photographs",
        "fit and transform of images of 224 pixels (10 minutes)",
    ),
    "encoders": ("benchmarks.studies.encoders", "arithmetic and speed of encoders (seconds)"),
    "serving": ("benchmarks.studies.serving", "ONNX files of each type against torch (15 minutes)"),
    "memory": ("benchmarks.studies.memory", "peak memory of many images (1 hour)"),
    "engines": ("benchmarks.studies.engines", "what a second process brings (10 minutes)"),
    "gpu": ("benchmarks.studies.gpu", "precision, speed, memory and faults on a GPU (8 minutes)"),
    "report": ("benchmarks.report", "tables and figures of comparison and convergence (seconds)"),
    "docs": ("benchmarks.docs", "fill README and user guide from the result files (seconds)"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=formatter
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, (path, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        if name in argv[:1]:
            module = import_module(path)
            subparser.description = module.__doc__
            subparser.formatter_class = _HelpFormatter
            module.add_arguments(subparser)
    args = parser.parse_args(argv)
    return import_module(COMMANDS[args.command][0]).main(args) or 0


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        if not action.option_strings or default in (None, False, argparse.SUPPRESS):
            return action.help or ""
        if isinstance(default, list | dict):
            default = " ".join(map(str, default)) if len(default) < 5 else "all"
        return f"{action.help} (default: {default})"


if __name__ == "__main__":
    sys.exit(main())
