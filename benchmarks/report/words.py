"""What the report says in words: where numbers come from, how to make them, how they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import paper
from benchmarks.methods import METHODS, PROCEDURES
from benchmarks.report.numbers import PRESETS, TITLES, Group, presets_of
from benchmarks.report.tables import shown_measure, shown_paper
from benchmarks.roles import BUDGETS, budget_with_stride, describe_stride

# Each is held against the other: is PW far worse, is feature prediction as good as PS?
PAIRS = (("I-I-PW", "I-I-PS"), ("I-F-FP", "I-I-PS"), ("I-F-FP", "F-F-FP"), ("I-F-FP", "frozen"))


def describe(group: Group) -> str:
    """Say what all numbers of a group have in common."""
    settings, machines = group.settings, "; ".join(group.runs["machine"].unique())
    images = ", ".join(
        f"{' or '.join(f'{n:,.0f}' for n in group.runs[role].dropna().unique()) or 'no'} {role}"
        for role in ("unlabelled", "labelled", "tested")
    )
    frames = describe_stride(settings["stride"])
    text = f"Images: {images}{frames}; at most {settings['max_epochs']} epochs. {machines}."
    return " ".join(filter(None, (text, _why_times_differ(group))))


def _why_times_differ(group: Group) -> str:
    """Say why times of a group cannot be compared; nothing if they can."""
    timed = group.runs[group.runs["seconds per epoch"].notna()]
    if timed["machine"].nunique() > 1:
        return "Times are of different machines and cannot be compared."
    if timed["features from memory"].any():
        return "Features came from memory: times lack their computation and cannot be compared."
    return ""


def run_command(
    out: Path, dataset: str, procedures: Sequence[str], z: Sequence[int], repeats: int, options: str
) -> str:
    """Write the command that makes records."""
    return (
        f"python -m benchmarks run --dataset {dataset} --procedures {' '.join(procedures)} "
        f"--z {' '.join(map(str, z))} --repeats {repeats} {options} --out {out.as_posix()}"
    )


def group_commands(group: Group, folder: Path) -> str:
    """Write the commands that make a group or, as the runner skips what is there, complete it."""
    z = sorted(set(group.means.index.unique("z")) & set(paper.Z))
    # The runner looks for records only in the folder it writes to.
    out = folder if group.runs.empty else group.runs["path"].iloc[0].parent
    rows = {key[:2] for key in group.means.index}
    commands = []
    for number, preset in enumerate(presets_of(group.runs)):
        own = {preset} if number else {preset, ""}
        names = [name for name in METHODS if any((name, p) in rows for p in own)]
        options = f"{_budget_options(group)} --settings {preset}"
        commands.append(run_command(out, group.dataset, names, z, paper.REPEATS, options))
    return "\n".join(commands)


def _budget_options(group: Group) -> str:
    settings, known = group.settings, BUDGETS[group.dataset]
    if settings["budget"] in known:
        return f"--budget {settings['budget']}"
    base = budget_with_stride(group.dataset, settings["stride"])
    options = f"--budget {base} --max-epochs {settings['max_epochs']}"
    numbers = [settings[f"n_{role}"] for role in ("unlabelled", "labelled", "test")]
    return options if None in numbers else f"{options} --images {' '.join(map(str, numbers))}"


def orderings(group: Group) -> list[str]:
    """State how the procedures compare, and what the paper says of it."""
    best = group.best()
    rows = dict(best[best["repeats"] > 0].droplevel("z").iterrows())
    presets = presets_of(group.runs)
    pairs = [
        tuple((name, preset if name in PROCEDURES else "") for name in pair)
        for preset in presets
        for pair in PAIRS
    ]
    if len(presets) == 2:
        pairs.append(tuple(("I-F-FP", preset) for preset in presets))
    lacking = dict.fromkeys(_name(*key) for pair in pairs for key in pair if key not in rows)
    return [
        *(_versus(group, rows, *pair) for pair in pairs if rows.keys() >= set(pair)),
        *(text for preset in presets for text in _times(group, preset)),
        *_encoding(group),
        *_ended_early(group),
        *([f"No result yet: {'; '.join(lacking)}."] if lacking else []),
    ]


def _versus(group: Group, rows: Mapping, first: tuple[str, str], second: tuple[str, str]) -> str:
    """Hold the difference of two rows against the root of the sum of their variances."""
    a, b = rows[first], rows[second]
    difference, spread = a["test"] - b["test"], (a["test std"] ** 2 + b["test std"] ** 2) ** 0.5
    unit = " px" if group.positions else ""
    limit = f"the spread of {spread:.2f} px" if group.positions else f"the spread of {spread:.3f}"
    if min(a["repeats"], b["repeats"]) < 2:
        verdict = "one repeat cannot judge the difference"
    elif abs(difference) <= spread:
        verdict = f"as good, within {limit}"
    else:
        verdict = f"{'better' if (difference < 0) == group.positions else 'worse'}, beyond {limit}"
    text = (
        f"{_name(*first)} against {_name(*second)}: {shown_measure(group, a)} against "
        f"{shown_measure(group, b)}{unit}: {verdict}."
    )
    if first[0] != second[0] and a["paper"] + b["paper"] > 0:
        text += f" The paper: {shown_paper(a)} against {shown_paper(b)}."
    return text


def _times(group: Group, preset: str) -> list[str]:
    """Compare seconds per epoch at equal z, if that can be said."""
    seconds = group.means["seconds per epoch"].unstack(["procedure", "preset"])
    fast, slow = ("I-F-FP", preset), ("I-I-PS", preset)
    if _why_times_differ(group) or not {fast, slow} <= set(seconds):
        return []
    ratios = (seconds[fast] / seconds[slow]).dropna()
    text = (
        f"An epoch of {_name(*fast)} takes {100 * ratios.mean():.0f} % of one of {_name(*slow)} "
        f"(z = {', '.join(map(str, ratios.index))})."
    )
    if group.dataset in paper.TIME_RATIOS:
        first, second, share = paper.TIME_RATIOS[group.dataset]
        text += f" In the paper {first} takes about {100 * share:.0f} % of {second}."
    return [] if ratios.empty else [text]


def _encoding(group: Group) -> list[str]:
    """Compare how fast encoders of features and of images embed, if that can be said."""
    speed = group.means["encoded images per second"].dropna()
    names = speed.index.get_level_values("procedure")
    features, images = (speed[names.isin(PROCEDURES) & names.str.startswith(i)] for i in "FI")
    if _why_times_differ(group) or features.empty or images.empty:
        return []
    share = images.mean() / features.mean()
    return [
        f"Encoders of images embed {share:.1f} times as many images a second as those of features. "
        "In the paper the difference is negligible."
    ]


def _ended_early(group: Group) -> list[str]:
    """Say which procedures ran out of patience before they ran out of epochs."""
    most = group.settings["max_epochs"]
    return [
        f"{_name(procedure, preset)}, z = {z}, ended after {row['epochs']:.0f} of {most} epochs, "
        f"when its patience was over. Its best epoch was {row['best epoch']:.0f}."
        for (procedure, preset, z), row in group.means[group.means["epochs"] < most].iterrows()
        if procedure in PROCEDURES
    ]


def _name(procedure: str, preset: str) -> str:
    name = procedure if procedure in PROCEDURES else TITLES[procedure]
    return ", ".join(filter(None, (name, PRESETS[preset])))
