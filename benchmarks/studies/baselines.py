"""Feature prediction beside other embeddings of the same size, at equal seconds.

Feature prediction trains first. Self-supervised methods then train the same encoder for the seconds
that its whole fit took, features of the loss network included; each of three learning rates has an
eighth of these seconds before, and a linear probe of held-out images chooses one. Networks trained
on labels have only the labelled images; the loss on a fifth of a thousand of them chooses their
learning rate. Linear, k-NN and MLP probes read the embeddings with several numbers of labels. Takes
hours. Records go into the file --out, and a picture beside it. The same command goes on after a
kill.

    python -m benchmarks baselines --datasets cifar10 --seeds 0 --out out/baselines.jsonl
    python -m benchmarks baselines --datasets folder:photos --rows feature-prediction frozen
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.baselines import BASELINES, LabelledEncoder, frozen
from benchmarks.grid import run_grid
from benchmarks.methods import train
from benchmarks.probes import draw_labelled, measure, measure_probes, select_simple_probe
from benchmarks.records import (
    RESULTS,
    common_settings,
    describe_machine,
    describe_threads,
    markdown_table,
    read_records,
    save_figure,
    spread,
)
from benchmarks.self_supervised import OBJECTIVES
from benchmarks.splits import (
    DATASET_HELP,
    PIXELS_PER_UNIT,
    Budget,
    add_data_arguments,
    dataset_name,
    get_dataset,
    load_splits,
    verify_settings,
)
from skfp import FeaturePredictionEncoder, LossNetwork


class Setup(NamedTuple):
    """What is trained on a data set: numbers of images, epochs, and parameters of the encoder."""

    budget: Budget
    loss_network: str = "photo"
    z: int = 128
    augment: bool = True
    validation_fraction: float = 0.05
    label_epochs: int = 20


SETUPS = {
    "cifar10": Setup(Budget(20_000, 6_000, 5_000, max_epochs=8)),
    "fashion-mnist": Setup(Budget(12_000, 6_000, 5_000, max_epochs=5), z=64),
    # Where the lander is changes with a shift, and pooled features do not hold it.
    "lunarlander": Setup(
        Budget(12_000, 9_000, 2_250, stride=10, max_epochs=8), "stage3", z=64, augment=False
    ),
}
# For folders of one's own.
OWN = Setup(Budget(12_000, 4_000, 4_000, max_epochs=30), validation_fraction=0.1)
LOSS_NETWORKS: dict[str, Any] = {
    "photo": "photo",
    "stage3": LossNetwork("efficientnet_lite0", layer="stage3"),
}
LABELS = (100, 1000, 6000)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)

# Titles of rows, in the order in which they are computed.
ROWS = {
    "feature-prediction": "feature prediction",
    "fine-tuned": "feature prediction, then trained on labels",
    "frozen": "its loss network, frozen, PCA",
    "frozen-alexnet": "AlexNet relu2, frozen, PCA",
    "k-means": "k-means patches, PCA",
    "pca": "pixels, PCA",
    **{name: f"{BASELINES[name].title}, same encoder" for name in OBJECTIVES},
    "labels-pretrained": "same encoder, trained on labels",
    "labels": "residual network, trained on labels from scratch",
}
ON_LABELS = {"fine-tuned": None, "labels-pretrained": "pretrained", "labels": "residual"}
OWN_PREDICTIONS = "predictions"  # of networks trained on labels
LABELLED_BATCH, LEAST_STEPS = 64, 600  # of training on labels
UNLIMITED = 10_000  # epochs, where seconds end training
TUNING = 0.125  # of the seconds, for each learning rate
N_TIMED, REPEATS = 4096, 3  # images, and passes over them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        "--datasets",
        nargs="+",
        type=dataset_name,
        default=list(SETUPS),
        metavar="NAME",
        help=DATASET_HELP,
    )
    add("--out", type=Path, default=RESULTS / "baselines.jsonl", help="file of the records")
    what = f"which: {', '.join(ROWS)}"
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=what)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each trains once")
    add("--max-epochs", type=int, help="of feature prediction, in place of the study's")
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compute what is missing, print the tables and draw the picture."""
    setups = {name: SETUPS.get(name, OWN) for name in args.datasets}
    if args.max_epochs:
        setups = {
            name: setup._replace(budget=setup.budget._replace(max_epochs=args.max_epochs))
            for name, setup in setups.items()
        }
    runs = [
        {
            "dataset": get_dataset(name).title,
            "row": row,
            "seed": seed,
            "settings": {
                **setup._replace(budget=setup.budget._asdict())._asdict(),
                **verify_settings(args.verify),
            },
        }
        for (name, setup), seed, row in product(setups.items(), args.seeds, ROWS)
        if row in args.rows and not (row in ON_LABELS and get_dataset(name).task == "position")
    ]
    status = run_grid(
        runs,
        partial(compute, results=args.out),
        args.out,
        load=lambda _: {
            get_dataset(name).title: load_splits(
                name, setup.budget, data_home=args.data_home, verify=args.verify
            )
            for name, setup in setups.items()
        },
        describe=lambda record: " ".join(
            f"{n} labels {next(iter(measured.values()))['test']:.3f}"
            for n, measured in record["measured"].items()
        ),
    )
    if args.out.exists():
        records = read_records(args.out)
        for name in {record["dataset"]: None for record in records}:
            print(f"\n{table([record for record in records if record['dataset'] == name])}")
        print(f"\nThe picture is {save_figure(args.out.with_suffix('.png'), draw(records))}.")
    return status


def compute(run: Mapping, data: Mapping, checkpoint_dir: None, *, results: Path) -> dict:
    """Train a row, and test it with each number of labels."""
    settings, row, seed, splits = run["settings"], run["row"], run["seed"], data[run["dataset"]]
    if row in ON_LABELS:
        return {"machine": describe_machine(), **_train_on_labels(run, splits)}
    z, tuned = settings["z"], {}
    if row == "feature-prediction":
        transformer: Any = _feature_prediction(run)
    elif row == "frozen":
        transformer = frozen(LOSS_NETWORKS[settings["loss_network"]], z, seed)
    elif row in OBJECTIVES:
        make = partial(
            BASELINES[row].make,
            z=z,
            encoder="pretrained",
            max_epochs=UNLIMITED,
            random_state=seed,
        )
        seconds = _seconds_of_feature_prediction(run, results)
        tuned = {
            str(lr): _validation_score(make(lr=lr, max_seconds=TUNING * seconds), splits)
            for lr in LEARNING_RATES
        }
        best = max(LEARNING_RATES, key=lambda lr: tuned[str(lr)])
        transformer = make(lr=best, max_seconds=seconds)
        tuned = {"tuned": tuned, "lr": best}
    else:
        transformer = BASELINES[row].make(z=z, random_state=seed)
    training = train(transformer, splits.unlabelled)
    (images, target), (test, test_target) = splits.labelled, splits.test
    measured = measure_probes(
        transformer.transform(images),
        target,
        transformer.transform(test),
        test_target,
        task=splits.task,
        n_labelled=LABELS,
        random_state=seed,
        hidden_layers=[(128, 128)],
    )
    return {
        "machine": describe_machine(),
        "training": {**training, **tuned},
        "images_per_second": _images_per_second(transformer, test),
        "measured": measured,
    }


def _feature_prediction(run: Mapping) -> FeaturePredictionEncoder:
    settings = run["settings"]
    return FeaturePredictionEncoder(
        settings["z"],
        encoder="pretrained",
        loss_network=LOSS_NETWORKS[settings["loss_network"]],
        augment=settings["augment"],
        validation_fraction=settings["validation_fraction"],
        max_epochs=settings["budget"]["max_epochs"],
        random_state=run["seed"],
    )


def _seconds_of_feature_prediction(run: Mapping, results: Path) -> float:
    wanted = {**run, "row": "feature-prediction"}
    for record in read_records(results):
        if record.items() >= wanted.items():
            return record["training"]["seconds"]
    raise ValueError(f"Run the row 'feature-prediction' with seed {run['seed']} first.")


def _validation_score(transformer: Any, splits: Any) -> float:
    """Train on unlabelled images; return the score of the linear probe on its validation images."""
    embedding = transformer.fit(splits.unlabelled).transform(splits.labelled[0])
    probe = select_simple_probe("linear", embedding, splits.labelled[1], task=splits.task)
    return float(probe.best_score_)


def _train_on_labels(run: Mapping, splits: Any) -> dict:
    """Train a network on each number of labels."""
    settings, seed = run["settings"], run["seed"]
    images, target = splits.labelled
    encoder = ON_LABELS[run["row"]] or _feature_prediction(run).fit(splits.unlabelled)

    def fit(n: int, lr: float) -> tuple[Any, float]:
        rows: Any = slice(None) if n == len(target) else draw_labelled(target, n, seed)
        # Of few images, an epoch has few steps: four of a hundred.
        n_steps = max(4, n // LABELLED_BATCH)
        max_epochs = max(settings["label_epochs"], LEAST_STEPS // n_steps)
        network = LabelledEncoder(
            encoder,
            settings["z"],
            lr=lr,
            max_epochs=max_epochs,
            patience=max_epochs,
            batch_size=LABELLED_BATCH,
            random_state=seed,
        )
        return network, train(network, images[rows], target[rows])["seconds"]

    numbers = sorted({min(n, len(target)) for n in LABELS})
    tuned = {lr: fit(numbers[len(numbers) // 2], lr)[0].validation_loss_ for lr in LEARNING_RATES}
    best = min(tuned, key=lambda lr: tuned[lr])
    measured, seconds = {}, 0.0
    for n in numbers:
        network, seconds = fit(n, best)
        scores = {"test": measure(network, *splits.test), "validation": -network.validation_loss_}
        measured[str(n)] = {OWN_PREDICTIONS: scores}
    training = {"seconds": seconds, "tuned": {str(lr): -tuned[lr] for lr in tuned}, "lr": best}
    return {"training": training, "measured": measured}


def _images_per_second(transformer: Any, images: np.ndarray) -> float:
    images = np.resize(images, (N_TIMED, *images.shape[1:]))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        transformer.transform(images)
        seconds.append(time.perf_counter() - start)
    return N_TIMED / min(seconds)


def _is_position(records: Sequence[Mapping]) -> bool:
    return "LunarLander" in {record["dataset"] for record in records}


def summary(records: Sequence[Mapping]) -> dict[str, dict[str, list[float]]]:
    """Return the test measures of each row by number of labels, over the seeds, of one data set.

    Of the linear probe for classes, of the MLP in pixels for positions, and a network's own
    predictions if it was trained on labels.
    """
    common_settings(records)
    probe, scale = ("MLP", PIXELS_PER_UNIT) if _is_position(records) else ("linear", 1)
    rows: dict[str, dict[str, list[float]]] = {}
    for row in ROWS:
        for record in (record for record in records if record["row"] == row):
            for n, measured in record["measured"].items():
                scores = measured.get(OWN_PREDICTIONS) or measured[probe]
                rows.setdefault(row, {}).setdefault(n, []).append(scale * scores["test"])
    return rows


def _speed(records: Sequence[Mapping], row: str) -> float | None:
    """Return the median images per second of a row, which is that of its encoder."""
    row = "feature-prediction" if row in (*OBJECTIVES, "fine-tuned", "labels-pretrained") else row
    speeds = [
        r["images_per_second"] for r in records if r["row"] == row and "images_per_second" in r
    ]
    return statistics.median(speeds) if speeds else None


def _seconds(records: Sequence[Mapping], row: str) -> float:
    return statistics.median(r["training"]["seconds"] for r in records if r["row"] == row)


def table(records: Sequence[Mapping]) -> str:
    """Lay out a data set's rows as Markdown."""
    rows, position = summary(records), _is_position(records)
    numbers = sorted({n for tests in rows.values() for n in tests}, key=int)
    unit, digits = ("px, ", 2) if position else ("", 3)

    return markdown_table(
        {
            records[0]["dataset"]: ROWS[row],
            **{
                f"{unit}{int(n):,} labels": spread(tests[n], digits) if n in tests else "-"
                for n in numbers
            },
            "fit, s": f"{_seconds(records, row):.0f}",
            "images/s": f"{_speed(records, row):,.0f}" if _speed(records, row) else "-",
            "seeds": str(max(map(len, tests.values()))),
        }
        for row, tests in rows.items()
    )


def _by_dataset(records: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    by_name: dict[str, list[Mapping]] = {}
    for record in records:
        by_name.setdefault(record["dataset"], []).append(record)
    return by_name


def _describe(records: Sequence[Mapping]) -> str:
    settings, training = common_settings(records), records[0]["training"]
    position = _is_position(records)
    return (
        f"{records[0]['dataset']}: {training.get('n_images', 0):,} unlabelled images, "
        f"z = {settings['z']}, loss network {settings['loss_network']!r}, "
        f"{settings['budget']['max_epochs']} epochs"
        f"{', inputs flipped and shifted' if settings['augment'] else ''}; "
        f"{'test distance by the MLP probe' if position else 'test accuracy by the linear probe'}"
        f"{', of a part of the published files' if settings.get('verified') is False else ''}."
    )


def block(results: Path) -> str:
    """Write the block of the user guide."""
    records = read_records(results / "baselines.jsonl")
    tables = [f"{_describe(of)}\n\n{table(of)}" for of in _by_dataset(records).values()]
    machine = records[0]["machine"]
    threads = describe_threads(machine["threads"])
    text = f"± is the standard deviation over seeds. {threads.capitalize()} of {machine['cpu']}."
    return "\n\n".join([*tables, text])


def short_block(results: Path) -> str:
    """Write the block of the README: the means with fewest and most labels, a row per embedding."""
    records = read_records(results / "baselines.jsonl")
    datasets = _by_dataset(records)
    rows = {name: summary(of) for name, of in datasets.items()}
    numbers = {
        name: sorted({n for tests in rows[name].values() for n in tests}, key=int)
        for name in datasets
    }

    def heading(name: str) -> str:
        if _is_position(datasets[name]):
            return f"{name}, px ↓"
        first, *_, last = numbers[name]
        return f"{name} ↑, {int(first):,} / {int(last):,} labels"

    def cell(name: str, row: str) -> str:
        tests = rows[name].get(row)
        if tests is None:
            return "-"
        first, *_, last = (statistics.mean(tests[n]) for n in numbers[name])
        return f"{last:.2f}" if _is_position(datasets[name]) else f"{first:.3f} / {last:.3f}"

    reference = datasets.get("CIFAR-10", records)
    lines = markdown_table(
        {
            "embedding": ROWS[row],
            **{heading(name): cell(name, row) for name in datasets},
            "images/s": f"{_speed(reference, row):,.0f}" if _speed(reference, row) else "-",
        }
        for row in ROWS
        if any(row in of for of in rows.values())
    )
    seconds = [_seconds(of, "feature-prediction") for of in datasets.values()]
    machine = records[0]["machine"]
    threads = describe_threads(machine["threads"])
    return (
        f"{lines}\n\nTest accuracy of a linear probe, 64 or 128 numbers per image; LunarLander: "
        "distance between the lander and where an MLP finds it. An encoder trained for "
        f"{min(seconds) / 60:.0f} to {max(seconds) / 60:.0f} minutes on {threads} of "
        f"{machine['cpu']}, self-supervised methods as long; images/s of CIFAR-10."
    )


MARKERS = {
    "feature-prediction": ("o", "#D55E00"),
    "fine-tuned": ("*", "#D55E00"),
    "frozen": ("o", "#0072B2"),
    "frozen-alexnet": ("s", "#0072B2"),
    "k-means": ("v", "0.4"),
    **dict(zip(OBJECTIVES, (("^", "#009E73"), ("D", "#009E73"), ("P", "#009E73")), strict=True)),
    "labels-pretrained": ("<", "#CC79A7"),
    "labels": (">", "#CC79A7"),
}


def draw(records: Sequence[Mapping]) -> Any:
    """Draw quality with all labels against embedding time: frozen networks hollow."""
    from matplotlib.figure import Figure

    datasets = _by_dataset(records)
    n_columns = min(2, len(datasets))
    n_rows = math.ceil(len(datasets) / n_columns)
    figure = Figure(figsize=(4.2 * n_columns + 2.2, 3.4 * n_rows), dpi=130, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
    labelled = {}
    for panel, (name, of) in zip(panels, datasets.items(), strict=False):
        for row, tests in summary(of).items():
            speed = _speed(of, row)
            if speed is None or row == "pca":  # far away from all others
                continue
            values = tests[max(tests, key=int)]
            marker, color = MARKERS[row]
            labelled[ROWS[row]] = panel.errorbar(
                1000 / speed, statistics.mean(values), statistics.pstdev(values),
                color=color, marker=marker, markersize=8, capsize=3, linestyle="none",
                markerfacecolor="none" if row.startswith("frozen") else color,
            )  # fmt: skip
        panel.set(xscale="log", xlabel="embedding time (ms per image)", title=name)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("{x:g}")
        panel.tick_params(which="minor", labelsize=7)
        panel.set_ylabel("test distance (px)" if _is_position(of) else "test accuracy")
        panel.grid(alpha=0.3)
        if _is_position(of):
            panel.invert_yaxis()
    for panel in panels:
        panel.set_visible(False)
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside right center", frameon=False, fontsize=8
    )
    return figure
