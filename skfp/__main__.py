"""The command line: fit an encoder on a folder of images, and embed folders with it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_EXIT = """exit status:
  0  done
  1  done, but files could not be read; they are named
  2  nothing was written
  130  interrupted; the same command goes on from there"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if not options.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {str(options.folder)!r}.")
        return options.run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"skfp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("skfp: interrupted. The same command goes on from there.", file=sys.stderr)
        return 130


def _fit(options: argparse.Namespace) -> int:
    from . import FeaturePredictionEncoder
    from .datasets import fetch_image_folder

    out = options.out
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(out.parent)!r} for --out.")
    try:  # before hours of training, not after
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("fit writes ONNX files: pip install 'skfp[onnx]'.") from error
    part = Path(f"{out}.part")
    images = fetch_image_folder(options.folder, size=options.size, n_jobs=options.n_jobs).images
    encoder = FeaturePredictionEncoder(
        options.z,
        loss_network=options.loss_network,
        max_epochs=options.max_epochs,
        max_seconds=options.max_seconds,
        random_state=options.random_state,
        checkpoint_dir=part,
        verbose=1,
    ).fit(images)
    part.mkdir(exist_ok=True)
    encoder.to_onnx(part / out.name)
    os.replace(part / out.name, out)
    shutil.rmtree(part)
    print(
        f"{out}: {options.z} numbers per image, learned from {len(images):,} images in "
        f"{encoder.n_epochs_} epochs."
    )
    return 0


def _embed(options: argparse.Namespace) -> int:
    from ._embed_folder import embed_folder

    paths, errors, speed, rows = embed_folder(
        options.folder, options.encoder, options.out, options.n_jobs, return_rows=options.probe
    )
    for file, error in errors.items():
        print(f"skfp: {file} cannot be read: {error}", file=sys.stderr)
    if not paths:
        raise ValueError(f"No file in {str(options.folder)!r} can be read as an image.")
    print(
        f"{options.out}: {len(paths):,} images, {speed:,.0f} images/s, {len(errors):,} unreadable."
    )
    if rows is not None:
        print(_probe(rows, [Path(path).parts[:-1] for path in paths]))
    return 1 if errors else 0


def _probe(embedding: np.ndarray, folders: list[tuple[str, ...]]) -> str:
    """Cross-validate a linear classifier of the classes that folders name."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    has_class = np.array([len(parts) > 0 for parts in folders], dtype=bool)
    classes = [parts[0] for parts in folders if parts]
    counts = Counter(classes)
    if len(counts) < 2 or min(counts.values()) < 2:
        return "No probe: it needs two folders of images or more, and two images in each."
    n_folds = min(5, *counts.values())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = cross_val_score(model, embedding[has_class], classes, cv=n_folds)
    return (
        f"Logistic regression on the embedding: accuracy {scores.mean():.3f} ± {scores.std():.3f} "
        f"({n_folds}-fold cross-validation, {len(counts)} classes)."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m skfp", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_EXIT,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("folder", type=Path, help="folder of image files, also in folders of it")
        added.add_argument("--n-jobs", type=int, default=-1, help="processors to use (all)")
        return added

    fit = command("fit", _fit, "Train an encoder on the images of a folder.")
    fit.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    fit.add_argument("--size", type=int, default=96, help="sides of the images in pixels (96)")
    fit.add_argument("--z", type=int, default=128, help="numbers per image (128)")
    fit.add_argument("--loss-network", default="photo", help="name of a loss network (photo)")
    fit.add_argument("--max-epochs", type=int, default=30, help="epochs at most (30)")
    fit.add_argument("--max-seconds", type=float, help="seconds at most (as many as it takes)")
    fit.add_argument("--random-state", type=int, default=0, help="seed (0)")

    embed = command("embed", _embed, "Embed the images of a folder, without torch.")
    embed.add_argument("--encoder", type=Path, required=True, help="ONNX file of an encoder")
    embed.add_argument("--out", type=Path, required=True, help=".parquet, .csv or .npz to write")
    embed.add_argument(
        "--probe", action="store_true", help="cross-validate a classifier of the folders"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
