"""What each image encoder costs: arithmetic, weights and speed of embedding 64 by 64 pixels.

Takes seconds. All encoders are timed in turns; the file --out gets a record for each.

    python -m benchmarks encoders --out out/encoders.jsonl
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.internals import (
    IMAGE_ENCODERS,
    SMALL_BATCH,
    TRUNKS,
    Inference,
    fold_batch_norm,
    make_encoder,
)
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    describe_threads,
    markdown_table,
    read_records,
    write_records,
)

BATCH, REPEATS, SIDE = 256, 7, 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "encoders.jsonl", help="file of the records")
    add("--z", type=int, default=64, help="size of the embedding")


def main(args: argparse.Namespace) -> None:
    """Measure, write the records and print the table."""
    encoders = {
        name: make_encoder(name, 0, (SIDE, SIDE), args.z).eval()
        for name in (*IMAGE_ENCODERS, *TRUNKS)
    }
    folded = {name: fold_batch_norm(encoder) for name, encoder in encoders.items()}
    images = torch.rand(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    computed = {
        name: Inference(encoder, batch_size=SMALL_BATCH) for name, encoder in folded.items()
    }
    seconds = dict.fromkeys(encoders, math.inf)
    flops = {}
    with torch.inference_mode():
        for name, encoder in folded.items():
            with FlopCounterMode(display=False) as counter:
                encoder(images[:1])
            flops[name] = counter.get_total_flops()
        for _ in range(REPEATS):
            for name, compute in computed.items():
                start = time.perf_counter()
                compute(images)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    records = [
        {
            "encoder": name,
            "settings": {"z": args.z, "threads": torch.get_num_threads()},
            "machine": describe_machine(),
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "mflop": flops[name] / 1e6,
            "images_per_second": BATCH / seconds[name],
        }
        for name, encoder in encoders.items()
    ]
    write_records(args.out, records)
    print(table(records))


def table(records: Sequence[Mapping]) -> str:
    """Lay out the records as Markdown, the smallest encoder first."""
    return markdown_table(
        {
            "encoder": f'"{record["encoder"]}"',
            "parameters": f"{record['parameters']:,}",
            "MFLOP/image": f"{record['mflop']:.1f}",
            "images/s": f"{record['images_per_second']:,.0f}",
        }
        for record in sorted(records, key=lambda record: record["mflop"])
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "encoders.jsonl")
    settings = common_settings(records)
    threads = describe_threads(settings["threads"])
    return (
        f"{table(records)}\n\nImages of {SIDE} by {SIDE} pixels, z = {settings['z']}, BatchNorm "
        f"folded, batches as in `transform`, the best of {REPEATS} rounds; {threads} on "
        f"{records[0]['machine']['cpu']}."
    )
