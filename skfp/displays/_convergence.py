"""Losses of a fitted encoder, by epoch or by training time."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ._common import COLORMAP, unwrap

# Shades of the lines of one, two, ... estimators, and the marks of their best epochs.
_LINES = ((0.12, "o"), (0.5, "s"), (0.75, "^"), (0.3, "D"), (0.62, "v"))
_TRAINING_LINE = "skfp-training"
_X_LABELS = {"epoch": "Epoch", "seconds": "Training time (s)"}


class ConvergenceDisplay:
    """Training and validation loss by epoch or by training time.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    history : list of dict
        One row per epoch with the keys "epoch", "train_loss", "seconds" (the duration of that
        epoch) and, if the epoch was validated, "valid_loss": the `history_` of an estimator.
    best_epoch : int, default=None
        The epoch to mark: the `best_epoch_` of an estimator. If None, the epoch of the least
        validation loss.
    name : str, default=None
        Name of the curves in the legend. If None, the legend names the losses only.

    Attributes
    ----------
    train_line_ : matplotlib.lines.Line2D
        The training loss, dashed.
    valid_line_ : matplotlib.lines.Line2D or None
        The validation loss, with a mark at the best epoch. None if no epoch was validated.
    ax_ : matplotlib.axes.Axes
        Axes with the curves.
    figure_ : matplotlib.figure.Figure
        Figure that contains the axes.

    See Also
    --------
    FeatureErrorDisplay : Where in the images the loss remains.

    Examples
    --------
    >>> import numpy as np
    >>> from skfp import FeaturePredictionEncoder
    >>> from skfp.displays import ConvergenceDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images)
    >>> display = ConvergenceDisplay.from_estimator(encoder, name="I-F-FP")
    >>> display.ax_.get_xlabel()
    'Epoch'

    Compare a second estimator in the same axes:

    >>> paper = FeaturePredictionEncoder.with_paper_settings(z=8, max_epochs=1, random_state=0)
    >>> ConvergenceDisplay.from_estimator(paper.fit(images), name="paper", ax=display.ax_)
    <skfp.displays...ConvergenceDisplay object at ...>
    """

    train_line_: Any
    valid_line_: Any
    ax_: Any
    figure_: Any

    def __init__(
        self,
        *,
        history: list[dict[str, Any]],
        best_epoch: int | None = None,
        name: str | None = None,
    ) -> None:
        self.history = history
        self.best_epoch = best_epoch
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: str = "epoch",
        relative: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the losses of a fitted estimator.

        Parameters
        ----------
        estimator : estimator instance
            A fitted encoder of this package, or a pipeline that ends in one.
        x : {"epoch", "seconds"}, default="epoch"
            Whether to draw the losses over epochs or over training time in seconds.
        relative : bool, default=False
            Whether to divide each curve by its first value, that after epoch 1. Only such curves
            of different losses can be compared.
        name : str, default=None
            Name of the curves in the legend. If None, the name of the estimator's class.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : ConvergenceDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator, _ = unwrap(estimator)
        display = cls(
            history=estimator.history_,
            best_epoch=getattr(estimator, "best_epoch_", None),  # partial_fit finds none
            name=type(estimator).__name__ if name is None else name,
        )
        return display.plot(x=x, relative=relative, ax=ax)

    def plot(
        self,
        *,
        x: str = "epoch",
        relative: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the losses.

        Parameters
        ----------
        x : {"epoch", "seconds"}, default="epoch"
            Whether to draw the losses over epochs or over training time in seconds.
        relative : bool, default=False
            Whether to divide each curve by its first value, that after epoch 1.
        name : str, default=None
            Name of the curves in the legend. If None, the name given to the constructor.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into. If None, a new figure is made.

        Returns
        -------
        display : ConvergenceDisplay
            The object itself, with the drawn artists as attributes.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if x not in _X_LABELS:
            raise ValueError(f"x is {x!r}. Expected one of {sorted(_X_LABELS)}.")
        epochs = np.array([row["epoch"] for row in self.history])
        seconds = np.cumsum([row["seconds"] for row in self.history])
        positions = epochs if x == "epoch" else seconds
        train_loss = np.array([row["train_loss"] for row in self.history])
        validated = np.array(["valid_loss" in row for row in self.history])
        valid_loss = np.array([row["valid_loss"] for row in self.history if "valid_loss" in row])

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        n_before = sum(line.get_gid() == _TRAINING_LINE for line in ax.lines)
        shade, mark = _LINES[n_before % len(_LINES)]
        color = plt.get_cmap(COLORMAP)(shade)
        name = self.name if name is None else name
        prefix = "" if name is None else f"{name}, "

        (self.train_line_,) = ax.plot(
            positions,
            train_loss / train_loss[0] if relative else train_loss,
            color=color,
            linestyle="--",
            linewidth=1,
            marker=".",
            markersize=3,
            label=f"{prefix}training",
            gid=_TRAINING_LINE,
        )
        self.valid_line_ = None
        if validated.any():
            positions, epochs = positions[validated], epochs[validated]
            best_epoch = self.best_epoch
            if best_epoch is None:
                best_epoch = epochs[np.where(np.isnan(valid_loss), np.inf, valid_loss).argmin()]
            (self.valid_line_,) = ax.plot(
                positions,
                valid_loss / valid_loss[0] if relative else valid_loss,
                color=color,
                marker=mark,
                markevery=np.flatnonzero(epochs == best_epoch).tolist(),
                markersize=8,
                label=f"{prefix}validation (best: epoch {best_epoch})",
            )
        ax.set(
            xlabel=_X_LABELS[x],
            ylabel="Loss relative to that after epoch 1" if relative else "Loss",
        )
        if x == "epoch":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        return self
