"""Whether a fit did what it should, from held-out images alone."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

from sklearn.utils.validation import check_is_fitted

from .numbers import MIN_IMAGES, measure, training_numbers
from .verdict import EncoderReport

__all__ = ["EncoderReport", "ReportMixin"]


class ReportMixin:
    """The report of a fitted estimator."""

    def report(self: Any, X: Any) -> EncoderReport:
        """Judge the encoder without labels: is it any good, and what to do next.

        Parameters
        ----------
        X : array-like
            Images that were not in fit, at least 50 and best some thousand; of more than 2,000, so
            many all over X are used.

        Returns
        -------
        report : EncoderReport
            Prints as text, and as a table in notebooks; its `numbers` are a dict. A notebook that
            shows the encoder also shows the verdict of its last report.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ValueError
            If X holds less than 50 images, or images that `transform` refuses.

        Examples
        --------
        >>> import numpy as np
        >>> from skfp import FeaturePredictionEncoder
        >>> images = np.random.default_rng(0).integers(0, 256, (80, 64, 64, 3), dtype=np.uint8)
        >>> encoder = FeaturePredictionEncoder(z=8, max_epochs=1, random_state=0).fit(images[:30])
        >>> report = encoder.report(images[30:])
        >>> report.numbers["n_images"], report.numbers["z"]
        (50, 8)
        >>> report.verdict.startswith("Train longer")
        True
        """
        check_is_fitted(self)
        images, _ = self._check_images(X)
        if len(images) < MIN_IMAGES:
            raise ValueError(
                f"X holds {len(images)} images, too few to judge by. Pass at least {MIN_IMAGES} "
                "that were not in fit, best some thousand."
            )
        numbers = {**measure(self, images), **training_numbers(self._state.history)}
        self._state = dataclasses.replace(self._state, report=numbers)
        return EncoderReport(numbers)

    def _verdict_html(self: Any) -> str:
        numbers = self._state.report if self.__sklearn_is_fitted__() else None
        return "" if numbers is None else f"<p>{html.escape(EncoderReport(numbers).verdict)}</p>"

    def _repr_html_inner(self: Any) -> str:
        return super()._repr_html_inner() + self._verdict_html()  # type: ignore[misc]

    def _repr_mimebundle_(self: Any, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._verdict_html()
        return bundle
