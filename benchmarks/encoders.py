"""What each image encoder costs: arithmetic, weights and speed of embedding 64 by 64 pixels."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.records import describe_machine, markdown_table, read_records, write_record

BATCH, REPEATS, SIDE = 256, 7, 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/encoders/encoders.json"))
    add("--z", type=int, default=64, help="size of the embedding")


def main(args: argparse.Namespace) -> None:
    """Measure in turns, write the record and print the table."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from skfp._networks.encoders import IMAGE_ENCODERS, ImageEncoder, fold_batch_norm

    encoders = {
        name: ImageEncoder((SIDE, SIDE), args.z, channels).eval()
        for name, channels in IMAGE_ENCODERS.items()
    }
    folded = {name: fold_batch_norm(encoder) for name, encoder in encoders.items()}
    images = torch.rand(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    seconds = dict.fromkeys(encoders, math.inf)
    flops = {}
    with torch.inference_mode():
        for name, encoder in folded.items():
            with FlopCounterMode(display=False) as counter:
                encoder(images[:1])
            flops[name] = counter.get_total_flops()
        for _ in range(REPEATS):
            for name, encoder in folded.items():
                start = time.perf_counter()
                encoder(images)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    record = {
        "z": args.z,
        "threads": torch.get_num_threads(),
        "machine": describe_machine(),
        "encoders": {
            name: {
                "channels": list(IMAGE_ENCODERS[name]),
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "mflop": flops[name] / 1e6,
                "images_per_second": BATCH / seconds[name],
            }
            for name, encoder in encoders.items()
        },
    }
    write_record(args.out, record)
    print(table(record))


def table(record: Mapping) -> str:
    """Lay out a record as Markdown."""
    return markdown_table(
        {
            "encoder": f'"{name}"',
            "channels": ", ".join(map(str, row["channels"])),
            "parameters": f"{row['parameters']:,}",
            "MFLOP/image": f"{row['mflop']:.1f}",
            "images/s": f"{row['images_per_second']:,.0f}",
        }
        for name, row in record["encoders"].items()
    )


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed record."""
    (record,) = read_records(root / folder)
    threads = "one thread" if record["threads"] == 1 else f"{record['threads']} threads"
    text = (
        f"Images of {SIDE} by {SIDE} pixels, z = {record['z']}, BatchNorm folded, batches of "
        f"{BATCH}, the best of {REPEATS} rounds; {threads} on {record['machine']['cpu']}."
    )
    return f"{table(record)}\n\n{text}"
