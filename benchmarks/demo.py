"""Pretrain an encoder on LunarLander frames and find out what its embedding holds.

The encoder learns without labels. Small networks (probes) then learn to read the position of the
lander from its embedding, and are tested on rollouts that neither has met; baselines of the same
size go through the same probes. Takes three minutes on two cores. Prints a table, and writes
demo.jsonl and the picture demo.png into the folder --out.

    python -m benchmarks demo --out out/demo
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    save_figure,
    write_records,
)
from benchmarks.splits import IMAGE_SIZE, PIXELS_PER_UNIT, fetch_frames, show_measure

# Rows of the table, and which setting holds their epochs; None trains nothing. An epoch of the
# pixel autoencoder takes several times as long: it gets fewer.
ROWS = {
    "I-F-FP": "max_epochs",
    "I-I-PW": "baseline_epochs",
    "frozen": None,
    "pca": None,
    "mean": None,
}

# y = 0 is the height of the landing pad as the lander's body stands on its legs: in the simulator
# a quarter of the picture's 400 pixels, and 18 pixels of leg, above the lower edge.
PAD_ROW = IMAGE_SIZE * (1 - 0.25 - 18 / 400)
N_SHOWN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS, help="folder of the results")
    # Neighbouring frames of a rollout are nearly equal: few frames of many rollouts teach more.
    add("--rollouts", type=int, default=1200, help="unlabelled rollouts")
    add("--labelled-rollouts", type=int, default=600, help="for the probes")
    add("--test-rollouts", type=int, default=150, help="to test the probes")
    add("--stride", type=int, default=10, help="keep every k-th frame of a rollout")
    add("--z", type=int, default=64, help="size of the embedding")
    add("--max-epochs", type=int, default=10, help="epochs of feature prediction")
    add("--baseline-epochs", type=int, default=2, help="epochs of the pixel autoencoder")
    add("--random-state", type=int, default=0, help="seed")
    add("--data-home", type=Path, help="where frames are kept between runs")
    add("--n-jobs", type=int, default=-1, help="processes for frames and probes")


def main(args: argparse.Namespace) -> None:
    """Run the demo."""
    from benchmarks.methods import METHODS, evaluate

    start = time.perf_counter()
    not_settings = {"command", "out", "data_home", "n_jobs"}
    settings = {key: value for key, value in vars(args).items() if key not in not_settings}
    common = {"settings": settings, "machine": describe_machine()}

    print("Frames of LunarLander, flown by a random policy")
    numbers = (args.rollouts, args.labelled_rollouts, args.test_rollouts)
    unlabelled, labelled, test = (
        fetch_frames(run, n_rollouts, args.stride, args.data_home, args.n_jobs)
        for run, n_rollouts in enumerate(numbers, start=1)
    )
    records, predictions = [], {}
    for name, epochs in ROWS.items():
        method = METHODS[name]
        parameters = {"z": args.z, "random_state": args.random_state}
        if epochs:
            # A bar is for people, lines are for log files.
            parameters["verbose"] = 2 if sys.stderr.isatty() else 1
            parameters["max_epochs"] = settings[epochs]
        print(f"\n{method.title}", flush=True)
        measured, predicted = evaluate(
            method.make(**parameters),
            unlabelled.images,
            (labelled.images, labelled.positions),
            (test.images, test.positions),
            task="position",
            random_state=args.random_state,
            n_jobs=args.n_jobs,
        )
        records.append({"method": name, "title": method.title, **common, **measured})
        print(f"  {show_measure(measured)}, probe {measured['probe']['selected']}")
        if epochs:
            predictions[method.title] = predicted

    results = write_records(args.out / "demo.jsonl", records)
    figure = draw(test, predictions, records, args.random_state)
    picture = save_figure(args.out / "demo.png", figure)
    print(f"\n{table(records)}\n\n{caption(records)}")
    print(f"\nThe picture is {picture}, the results are {results}.")
    print(f"The demo took {time.perf_counter() - start:.0f} s.")


def table(records: Sequence[Mapping]) -> str:
    """Lay the records out as one Markdown table, in the order of `ROWS`."""
    order = list(ROWS)
    return markdown_table(_row(r) for r in sorted(records, key=lambda r: order.index(r["method"])))


def _row(record: Mapping) -> dict[str, str]:
    training = record["training"]
    trained = "n_epochs" in training
    return {
        "method": record["title"],
        "test distance, px": f"{record['test_measure'] * PIXELS_PER_UNIT:.2f}",
        "units": f"{record['test_measure']:.3f}",
        "epochs": str(training["n_epochs"]) if trained else "-",
        "training, s": f"{training['seconds']:.0f}",
        "images/s": f"{training['images_per_second']:,.0f}" if trained else "-",
        "trained parameters": f"{training['n_parameters']:,}" if trained else "-",
    }


def caption(records: Sequence[Mapping]) -> str:
    """Say in words what the numbers of the table are."""
    settings, machine = common_settings(records), records[0]["machine"]
    n_unlabelled = records[0]["training"]["n_images"]
    n_labelled = records[0]["probe"]["n_images"]
    n_test = records[0]["n_test_images"]
    return (
        f"Mean distance between the lander's true position and the one read out of an embedding of "
        f"{settings['z']} numbers, in pixels of a {IMAGE_SIZE}x{IMAGE_SIZE} image (the "
        f"simulator's unit is {PIXELS_PER_UNIT:.0f} pixels), on {n_test:,} frames of "
        f"{settings['test_rollouts']} unseen rollouts. Embeddings were learned from "
        f"{n_unlabelled:,} unlabelled frames, probes from {n_labelled:,} labelled ones. One seed; "
        f"{machine['cores']} cores of {machine['cpu']}, GPU: {machine['gpu'] or 'none'}, "
        f"torch {machine['torch']}."
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "demo.jsonl")
    alt = "Test frames with true and predicted positions, and validation curves"
    return f"{table(records)}\n\n{caption(records)}\n\n![{alt}](demo.png)"


def to_pixels(positions) -> np.ndarray:
    """Convert positions in the simulator's units to column and row in an image.

    The upper left corner of the image is (0, 0), its lower right corner (64, 64).

    >>> to_pixels([[-1.0, 0.0], [1.0, 1.0]])
    array([[ 0.  , 45.12],
           [64.  , 13.12]])
    """
    x, y = np.asarray(positions, dtype=float).T
    return np.column_stack(((x + 1) * PIXELS_PER_UNIT, PAD_ROW - y * PIXELS_PER_UNIT))


def draw(test, predictions: Mapping, records: Sequence[Mapping], random_state: int):
    """Draw some test frames with true and predicted positions, and the validation curves.

    `predictions` holds positions (n, 2) by title of the method; `random_state` chooses the frames,
    each of another rollout.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    # Shapes differ for print in grey; colours of Okabe and Ito.
    styles = dict(zip(predictions, [("X", "#E69F00", "-"), ("^", "#56B4E9", "--")], strict=False))
    figure = Figure(figsize=(12, 6.2), dpi=100, layout="constrained")
    above, below = figure.subfigures(2, height_ratios=[1.1, 1])

    random = np.random.default_rng(random_state)
    rollouts = random.permutation(np.unique(test.rollouts))[:N_SHOWN]
    chosen = [random.choice(np.flatnonzero(test.rollouts == rollout)) for rollout in rollouts]
    for axes, row in zip(above.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        axes.imshow(test.images[row], extent=(0, IMAGE_SIZE, IMAGE_SIZE, 0))
        axes.set(xlim=(0, IMAGE_SIZE), ylim=(IMAGE_SIZE, 0), xticks=[], yticks=[])
        axes.plot(
            *to_pixels(test.positions[[row]])[0],
            "o",
            markersize=17,
            markerfacecolor="none",
            markeredgecolor="white",
            markeredgewidth=2,
            path_effects=[withStroke(linewidth=5, foreground="black")],  # the ground is white
            label="true position",
        )
        for title, predicted in predictions.items():
            marker, color, _ = styles[title]
            axes.plot(
                *to_pixels(predicted[[row]])[0],
                marker,
                color=color,
                markersize=9,
                markeredgecolor="black",
                label=title,
                clip_on=False,
                zorder=3,
            )
    above.suptitle("Unseen frames: where the lander is, and where the probes find it", fontsize=13)
    handles, labels = axes.get_legend_handles_labels()
    above.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=11, facecolor="0.6")

    axes = below.subplots()
    for record in records:
        history = record["training"].get("history")
        if history:
            marker, color, line = styles[record["title"]]
            losses = np.array([row["valid_loss"] for row in history])
            seconds = np.cumsum([row["seconds"] for row in history])
            axes.plot(
                seconds,
                losses / losses[0],
                line,
                marker=marker,
                color=color,
                markeredgecolor="black",
                markersize=9,
                linewidth=2,
                label=record["title"],
            )
    axes.set_xlabel("seconds of training, a mark per epoch", fontsize=11)
    axes.set_ylabel("validation loss,\n1 after the first epoch", fontsize=11)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.legend(fontsize=11)
    return figure
