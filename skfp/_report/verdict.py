"""What the numbers of a fit mean, and what to do: the rules, and the report that states them."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from typing import Any

Numbers = dict[str, Any]

# Where a number begins to mean something else. Shares are of 1.
CLOSE = 0.02  # explained variances that differ by less are alike
CLOSE_NEIGHBOURS = 0.05  # so are shares of neighbours
RANDOM = 0.5  # excess kurtosis of weights: about 0 or less as drawn, several times as much trained
RANK_LOW, RANK_FULL = 0.3, 0.8  # of z
GAP = 0.25  # by which the validation loss exceeds the training loss
FALL = 0.05  # of the validation loss in the last fifth of the epochs
FASTER = 1.5  # images/s of the encoder for each of the loss network


def _beside_pca(name: str, close: float) -> Callable[[Numbers], str]:
    def compare(n: Numbers) -> str:
        difference = n[name] - n[f"{name}_pca"]
        return "more" if difference > close else "less" if difference < -close else "same"

    return compare


def _falls(n: Numbers) -> str:
    if n["fall"] is None:
        return "unknown"
    return "still" if n["fall"] > FALL else "rises" if n["fall"] < -FALL else "over"


def _rank(n: Numbers) -> str:
    share = n["effective_rank"] / n["z"]
    return "low" if share < RANK_LOW else "full" if share > RANK_FULL else "good"


# A row of the report: its name, its numbers, the case they make, and for each case what to do. A
# row whose number is None is left out.
ROWS: list[tuple[str, str, str, Callable[[Numbers], str], dict[str, str]]] = [
    (
        "explained_variance",
        "Variance of the {target} that the decoder explains",
        "{explained_variance:.1%}, PCA {explained_variance_pca:.1%}",
        _beside_pca("explained_variance", CLOSE),
        {
            "more": "Nothing to do: the encoder packs more into {z} numbers than PCA can.",
            "same": "PCA is as good at this; the rows below decide.",
            "less": "Train longer or on more images, or take a larger encoder: PCA keeps more.",
        },
    ),
    (
        "neighbours",
        "Neighbours in the {target} that are neighbours in the embedding",
        "{neighbours:.0%}, PCA {neighbours_pca:.0%}",
        _beside_pca("neighbours", CLOSE_NEIGHBOURS),
        {
            "more": "Nothing to do: search by the embedding.",
            "same": "Nothing to do: the embedding finds similar images as well as PCA does.",
            "less": "For search by similarity, PCA of the {target} is the safer choice.",
        },
    ),
    (
        "kurtosis",
        "Kurtosis of the loss network's weights",
        "{kurtosis:.1f}",
        lambda n: "random" if n["kurtosis"] < RANDOM else "trained",
        {
            "random": "Pass a pretrained network: weights drawn at random have 0 or less.",
            "trained": "Nothing to do: the loss network has learned something.",
        },
    ),
    (
        "effective_rank",
        "Effective rank of the embedding",
        "{effective_rank:.0f} of {z}",
        _rank,
        {
            "low": "Most numbers repeat others: a smaller z would do, see truncate.",
            "good": "Nothing to do: z is large enough.",
            "full": "All numbers are in use: try a larger z.",
        },
    ),
    (
        "gap",
        "Validation loss above the training loss",
        "{gap:+.0%}",
        lambda n: "wide" if n["gap"] > GAP else "narrow",
        {
            "wide": "The encoder learns its images by heart: pass more, or try augment=True.",
            "narrow": "Nothing to do: there are images enough for this encoder.",
        },
    ),
    (
        "fall",
        "Fall of the validation loss in the last fifth of the epochs",
        "{fall:.1%}",
        _falls,
        {
            "still": "Train longer: raise max_epochs, or max_seconds.",
            "rises": "Training has gone on for too long or too fast: lower lr or patience.",
            "over": "Nothing to do: longer training would bring little.",
        },
    ),
    (
        "speed",
        "Images per second",
        "{speed:,.0f}, loss network {speed_loss_network:,.0f}",
        lambda n: "faster" if n["speed"] > FASTER * n["speed_loss_network"] else "slow",
        {
            "faster": "The encoder saves time wherever many images are embedded.",
            "slow": 'The encoder saves no time: take a smaller one, such as encoder="small".',
        },
    ),
]

# What is wrong, in the order in which to mend it: the first that holds begins the verdict.
PROBLEMS: list[tuple[Callable[[Numbers], bool], str]] = [
    (
        lambda n: n["kurtosis"] is not None and n["kurtosis"] < RANDOM,
        "Choose another loss network: the weights of this one look random.",
    ),
    (
        lambda n: n["gap"] is not None and n["gap"] > GAP,
        "Pass more images: the encoder has learned those in fit by heart.",
    ),
    (
        lambda n: n["n_epochs"] < 3 or _falls(n) == "still",
        "Train longer: training ended before the encoder had learned what it could.",
    ),
]


@dataclasses.dataclass(frozen=True)
class EncoderReport:
    """Numbers that say whether an encoder is any good, without labels, and what to do.

    It prints as text, and as a table in notebooks. `report` of an encoder makes it.

    Parameters
    ----------
    numbers : dict
        - "n_images": held-out images that the numbers come from; "z": size of the embedding.
        - "explained_variance", "explained_variance_pca": share of the features' variance that
          the decoder explains, and that as many principal components explain.
        - "neighbours", "neighbours_pca": how many of the 10 nearest neighbours of an image by its
          features, as a share, are so by its embedding, and by as many principal components of
          the features.
        - "kurtosis": excess kurtosis of the loss network's weights, the median of its layers.
        - "effective_rank": between 1 and z, how many numbers of the embedding differ; RankMe [1]_
          of the centred embedding.
        - "gap": by what share the validation loss of the best epoch exceeds its training loss.
        - "fall": by what share the validation loss fell in the last fifth of the epochs.
        - "speed", "speed_loss_network": images per second, on the encoder's `device`.
        - "n_epochs": epochs that were validated; "target": "features", or "pixels" for a pixel
          autoencoder, to which its own target stands for features.

        None where there is no such number.

    Attributes
    ----------
    verdict : str
        What is wrong, if anything is, and whether frozen features with PCA would serve as well.

    References
    ----------
    .. [1] Q. Garrido, R. Balestriero, L. Najman, Y. LeCun, "RankMe: Assessing the Downstream
       Performance of Pretrained Self-Supervised Representations by Their Rank", ICML 2023.
    """

    numbers: Numbers

    @property
    def verdict(self) -> str:
        """What to do next, and whether frozen features with PCA would serve as well."""
        problem = next((text for holds, text in PROBLEMS if holds(self.numbers)), "")
        return f"{problem} {self._beside_frozen()}".strip()

    def _beside_frozen(self) -> str:
        n = self.numbers
        variance = _beside_pca("explained_variance", CLOSE)(n)
        neighbours = _beside_pca("neighbours", CLOSE_NEIGHBOURS)(n)
        frozen = f"{'frozen features' if n['target'] == 'features' else 'pixels'} through PCA"
        ratio = n["speed"] / n["speed_loss_network"] if n["speed_loss_network"] else None
        speed = "" if ratio is None else f" The encoder is {ratio:.1f} times as fast."
        if "less" in (variance, neighbours):
            if "more" in (variance, neighbours):
                return f"The encoder and {frozen} keep different things; try both.{speed}"
            return f"As it is, {frozen} would serve better.{speed}"
        if "more" in (variance, neighbours):
            return f"The encoder keeps more than {frozen}.{speed}"
        return f"{frozen[0].upper()}{frozen[1:]} would serve as well.{speed}"

    def _rows(self) -> list[tuple[str, str, str]]:
        """List name, value and advice of each row."""
        n = self.numbers
        return [
            (name.format(**n), value.format(**n), advice[case(n)].format(**n))
            for key, name, value, case, advice in ROWS
            if n[key] is not None and (key != "speed" or n["speed_loss_network"] is not None)
        ]

    def __str__(self) -> str:
        lines = [f"{name}: {value}\n    {advice}" for name, value, advice in self._rows()]
        return "\n".join([f"Verdict: {self.verdict}", "", *lines, "", self._source()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = ""
        for row in self._rows():
            cells = (f"<td style='text-align: left'>{html.escape(cell)}</td>" for cell in row)
            rows += f"<tr>{''.join(cells)}</tr>"
        return (
            f"<p><strong>{html.escape(self.verdict)}</strong></p>"
            f"<table><tbody>{rows}</tbody></table><p>{html.escape(self._source())}</p>"
        )

    def _source(self) -> str:
        return f"From {self.numbers['n_images']:,} images that were not in fit."
