"""Fill README.md with the numbers of the committed result files, or check that it holds them.

A block between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is replaced by the Markdown that the
benchmark of that name makes of its records.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    demo,
    encoders,
    engines,
    faults,
    loss_networks,
    memory,
    report,
    scale,
    speed,
    study,
)

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = Path("benchmarks", "results")

# Each block is made of the README's folder and of records, whose path is relative to it.
BLOCKS: dict[str, Callable[[], str]] = {
    "demo": lambda: demo.readme_block(ROOT, RESULTS / "demo"),
    "study": lambda: study.readme_block(ROOT, RESULTS / "study"),
    "defaults": lambda: study.readme_block(ROOT, RESULTS / "defaults"),
    "faults": lambda: faults.readme_block(ROOT, RESULTS / "faults"),
    "loss-networks": lambda: loss_networks.readme_block(ROOT, RESULTS / "loss_networks"),
    "comparison": lambda: report.readme_block(ROOT, RESULTS / "comparison"),
    "encoders": lambda: encoders.readme_block(ROOT, RESULTS / "encoders"),
    "memory": lambda: memory.readme_block(ROOT, RESULTS),
    "engines": lambda: engines.readme_block(ROOT, RESULTS / "engines.json"),
    "scale": lambda: scale.readme_block(ROOT, RESULTS / "scale.json"),
    "speed": lambda: speed.readme_block(ROOT, RESULTS / "speed.json"),
}

BLOCK = re.compile(r"(<!-- (?P<name>[\w-]+):begin -->\n).*?(<!-- (?P=name):end -->)", re.DOTALL)
MARKER = re.compile(r"<!-- [\w-]+:(?:begin|end) -->")


def fill(text: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    r"""Replace what is between the markers of each block.

    Parameters
    ----------
    text : str
        Markdown.
    blocks : mapping of str to callable
        Makes the Markdown of the block of that name; called only if `text` has the block.

    Raises
    ------
    ValueError
        If a block is unknown, or a marker stands alone.

    Examples
    --------
    >>> fill("<!-- n:begin -->\nold\n<!-- n:end -->", {"n": lambda: "new"})
    '<!-- n:begin -->\nnew\n<!-- n:end -->'
    """
    lonely = MARKER.search(BLOCK.sub("", text))
    if lonely:
        raise ValueError(
            f"The marker {lonely[0]} stands alone: a block begins with <!-- NAME:begin --> on a "
            "line of its own and ends with <!-- NAME:end -->."
        )

    def replace(match: re.Match) -> str:
        if match["name"] not in blocks:
            raise ValueError(
                f"Nothing fills the block {match['name']!r}; there are {sorted(blocks)}."
            )
        return f"{match[1]}{blocks[match['name']]().strip()}\n{match[3]}"

    return BLOCK.sub(replace, text)


def add_arguments(parser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if README.md differs"
    )
    parser.add_argument("--readme", type=Path, default=README, help="another file to fill")


def main(args) -> int:
    """Fill or check the file."""
    old = args.readme.read_text("utf-8")
    new = fill(old, BLOCKS)
    if new == old:
        print(f"{args.readme.name} agrees with the result files.")
        return 0
    if args.check:
        print(
            f"{args.readme.name} differs from the result files: run `python -m benchmarks readme`.",
            file=sys.stderr,
        )
        return 1
    args.readme.write_text(new, "utf-8")
    print(f"{args.readme.name} filled from the result files.")
    return 0
