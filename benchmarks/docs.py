"""Fill README.md and the user guide with numbers from the result files, or check that they agree.

A block between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is replaced by the Markdown that the
study of that name makes from its records, and the pictures of these blocks are drawn again. Takes
seconds. With --check, nothing is written, and files that differ are named.

    python -m benchmarks docs
    python -m benchmarks docs --check
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import demo, report
from benchmarks.records import RESULTS, read_records, save_figure
from benchmarks.studies import (
    baselines,
    encoders,
    engines,
    loss_networks,
    memory,
    small_images,
    speed,
    study,
)

ROOT = Path(__file__).parents[1]

# Each maps the folder of results to Markdown; pictures in it are named relative to that folder.
BLOCKS: dict[str, Callable[[Path], str]] = {
    "demo": demo.block,
    "study": study.block,
    "defaults": partial(study.block, name="defaults"),
    "embeddings": baselines.short_block,
    "baselines": baselines.block,
    "loss-networks": loss_networks.block,
    "comparison": report.block,
    "encoders": encoders.block,
    "memory": memory.block,
    "small-images": small_images.block,
    "engines": engines.block,
    "speed": speed.block,
    "costs": speed.costs_block,
}
# Pictures that are drawn from records alone; that of the demo needs its frames.
PICTURES = {
    "baselines": baselines.draw,
    "study": study.draw,
    "loss_networks": loss_networks.draw,
    "speed": lambda records: speed.draw(*records),
}

BLOCK = re.compile(r"(<!-- (?P<name>[\w-]+):begin -->\n).*?(<!-- (?P=name):end -->)", re.DOTALL)
MARKER = re.compile(r"^<!-- [\w-]+:(?:begin|end) -->$", re.MULTILINE)
PICTURE = re.compile(r"(!\[[^]]*\]\()([^)]+\))")


def fill(text: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    r"""Replace what is between the markers of each block.

    `blocks` are called only for names that are in the text.

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


def fill_page(page: Path, results: Path = ROOT / RESULTS) -> str:
    """Return the text of a page with its blocks filled; links to pictures are relative to it."""
    folder = Path(os.path.relpath(results, page.parent)).as_posix()

    def make(block: Callable[[Path], str]) -> str:
        return PICTURE.sub(rf"\g<1>{folder}/\g<2>", block(results))

    blocks = {name: partial(make, block) for name, block in BLOCKS.items()}
    return fill(page.read_text("utf-8"), blocks)


def find_pages(root: Path = ROOT) -> list[Path]:
    """Return README.md and the pages of the user guide."""
    return [root / "README.md", *sorted((root / "examples" / "docs").glob("*.md"))]


def draw_pictures(results: Path = ROOT / RESULTS) -> None:
    """Draw the pictures of blocks again."""
    for name, draw in PICTURES.items():
        records = read_records(results / f"{name}.jsonl")
        save_figure(results / f"{name}.png", draw(records))
    report.draw_block_figures(results)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if a file differs"
    )
    parser.add_argument("--pages", nargs="+", type=Path, help="other files to fill")


def main(args: argparse.Namespace) -> int:
    """Fill or check the pages."""
    status = 0
    for page in args.pages or find_pages():
        old, new = page.read_text("utf-8"), fill_page(page)
        if new == old:
            continue
        status = int(args.check)
        if args.check:
            print(
                f"{page} differs from the result files: run `python -m benchmarks docs`.",
                file=sys.stderr,
            )
        else:
            page.write_text(new, "utf-8")
            print(f"{page} filled from the result files.")
    if not args.check and not args.pages:
        draw_pictures()
    return status
