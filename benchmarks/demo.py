"""Pretrain an encoder on LunarLander frames and find out what its embedding knows.

Where the lander is was never told to the encoder. Small networks (probes) then learn to read the
position out of its embedding, and are tested on rollouts that neither has seen; baselines of the
same size go through the same probes. Prints one table, and writes a picture and the records.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.records import (
    common_settings,
    describe_machine,
    markdown_table,
    read_records,
    write_atomically,
    write_record,
)

# The budget: all of it takes less than 8 minutes on 2 cores. Neighbouring frames of a rollout are
# nearly equal, so few frames of many rollouts teach more than many frames of few.
N_ROLLOUTS = 1200  # unlabelled, for the encoders: 18,000 frames with this stride
N_LABELLED_ROLLOUTS = 600  # for the probes
N_TEST_ROLLOUTS = 150
STRIDE = 10
Z = 64
MAX_EPOCHS = 10  # of feature prediction
# An epoch of the pixel autoencoder takes several times as long. The table says what each was given.
BASELINE_EPOCHS = 2

# In the order of the table; the epochs are those of `settings`, None where nothing is trained.
ROWS = {
    "I-F-FP": "max_epochs",
    "I-I-PW": "baseline_epochs",
    "frozen": None,
    "pca": None,
    "mean": None,
}

IMAGE_SIZE = 64
PIXELS_PER_UNIT = IMAGE_SIZE / 2  # an image spans 2 units
# y = 0 is the height of the landing pad as the lander's body stands on its legs: in the simulator
# a quarter of the picture's 400 pixels, and 18 pixels of leg, above the lower edge.
PAD_ROW = IMAGE_SIZE * (1 - 0.25 - 18 / 400)

N_SHOWN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/demo"), help="folder of the results")
    add("--rollouts", type=int, default=N_ROLLOUTS, help="unlabelled rollouts")
    add("--labelled-rollouts", type=int, default=N_LABELLED_ROLLOUTS)
    add("--test-rollouts", type=int, default=N_TEST_ROLLOUTS)
    add("--stride", type=int, default=STRIDE, help="keep every k-th frame of a rollout")
    add("--z", type=int, default=Z, help="size of the embedding")
    add("--max-epochs", type=int, default=MAX_EPOCHS, help="epochs of feature prediction")
    add("--baseline-epochs", type=int, default=BASELINE_EPOCHS, help="of the pixel autoencoder")
    add("--random-state", type=int, default=0)
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
    unlabelled = _frames(args, 1, args.rollouts)
    labelled = _frames(args, 2, args.labelled_rollouts)
    test = _frames(args, 3, args.test_rollouts)

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
        record = {"method": name, "title": method.title, **common, **measured}
        print(f"  test distance {_pixels(record):.2f} px, probe {record['probe']['selected']}")
        write_record(args.out / f"{name}.json", record)
        records.append(record)
        if epochs:
            predictions[method.title] = predicted

    picture = write_atomically(
        args.out / "demo.png",
        lambda path: draw(test, predictions, records, args.random_state).savefig(path),
    )
    print(f"\n{table(records)}\n\n{caption(records)}")
    print(f"\nThe picture is {picture}, the records are beside it.")
    print(f"All of it took {time.perf_counter() - start:.0f} s.")


def _frames(args, run, n_rollouts):
    from skfp.datasets import fetch_lunarlander

    return fetch_lunarlander(
        run=run,
        n_rollouts=n_rollouts,
        stride=args.stride,
        data_home=args.data_home,
        n_jobs=args.n_jobs,
        verbose=1,
    )


def _pixels(record: Mapping) -> float:
    return record["test_measure"] * PIXELS_PER_UNIT


def table(records: Sequence[Mapping]) -> str:
    """Lay the records out as one Markdown table, in the order of `ROWS`."""
    order = list(ROWS)
    return markdown_table(_row(r) for r in sorted(records, key=lambda r: order.index(r["method"])))


def _row(record: Mapping) -> dict[str, str]:
    training = record["training"]
    trained = "n_epochs" in training
    return {
        "method": record["title"],
        "test distance, px": f"{_pixels(record):.2f}",
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


def readme_block(root: Path, folder: Path) -> str:
    """Make the README's block from the committed records."""
    records = read_records(root / folder)
    picture = (folder / "demo.png").as_posix()
    alt = "Test frames with true and predicted positions, and validation curves"
    return f"{table(records)}\n\n{caption(records)}\n\n![{alt}]({picture})"


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

    Parameters
    ----------
    test : Bunch
        With `images`, `positions` and `rollouts`.
    predictions : dict of str to ndarray of shape (n, 2)
        Predicted positions, by title of the method.
    records : list of dict
        Those with a training history give a curve.
    random_state : int
        Chooses the frames, each of another rollout: they are not picked by hand.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    # Told apart by shape first, so that they are in grey too; colours of Okabe and Ito.
    styles = dict(zip(predictions, [("X", "#E69F00", "-"), ("^", "#56B4E9", "--")], strict=False))
    figure = Figure(figsize=(12, 6.2), dpi=100, layout="constrained")
    above, below = figure.subfigures(2, height_ratios=[1.1, 1])

    chosen = _frames_of_different_rollouts(test.rollouts, random_state)
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


def _frames_of_different_rollouts(rollouts, random_state):
    random = np.random.default_rng(random_state)
    chosen = random.permutation(np.unique(rollouts))[:N_SHOWN]
    return [random.choice(np.flatnonzero(rollouts == rollout)) for rollout in chosen]
