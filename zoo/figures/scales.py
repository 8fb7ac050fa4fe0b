"""Axes on which all lines can be seen: logarithmic ones with a floor, and ones that leave out what diverged."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes

_MANY = 1e3  # a log axis shows more if the values span more than this
_MOST = 1e20  # a log axis shows at most this
_MARGIN = 0.04  # of an axis, beyond its extreme values


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of an axis, and the values beyond which it draws at its edges.

    Attributes:
        is_log: Whether the scale is logarithmic.
        low: The smallest value that is drawn. Smaller ones are drawn there.
        high: The largest value that is drawn. Larger ones are drawn there.
    """

    is_log: bool
    low: float = -np.inf
    high: float = np.inf

    def clip(self, values: object) -> np.ndarray:
        """Returns where values are drawn. NaN stays NaN."""
        return np.clip(np.asarray(values, float), self.low, self.high)

    def notes(self, values: object) -> tuple[str, str]:
        """Returns what has to be said of values that are drawn at an edge: the lower and the upper one, or ''."""
        values = np.asarray(values, float)
        below, above = values[values < self.low], values[values > self.high]
        low = f"values up to {self.low:.2g} are" if len(below) and below.max() != 0 else "0 is"
        low = f"{low} drawn at the lower edge" if len(below) else ""
        high = f"values from {self.high:.2g} on are drawn at the upper edge" if len(above) else ""
        return low, high

    def apply(self, axis: Axes, values: Any) -> None:
        """Sets the scale and the limits of the y axis, so that it shows all of these values, clipped."""
        if self.is_log:
            axis.set_yscale("log")
        values = self.clip(values)
        values = values[np.isfinite(values)]
        if not len(values):
            return
        low, high = values.min(), values.max()
        if self.is_log:
            margin = max((high / low) ** _MARGIN, 1.1)
            axis.set_ylim(low / margin, high * margin)
        else:
            margin = _MARGIN * (high - low) or 0.05 * abs(high) or 1.0
            axis.set_ylim(low - margin, high + margin)


def choose_scale(values: object, starts: object, *, maximize: bool, bounds: object = ()) -> Scale:
    """Returns the scale for lines of scores.

    It is logarithmic if lower is better and the values span more than three decades. Then zero, and what is more than
    20 decades below the largest value, is drawn at the lower edge. Values that are so much worse than all starts that
    they would flatten the other lines are drawn at an edge as well, and so are infinite ones.

    Args:
        values: The values of all lines. NaN is left out.
        starts: The value at which each line starts.
        maximize: Whether larger is better.
        bounds: The bounds of intervals. They do not choose the scale: a lower bound may be negative where no score is.
            On a log axis, those below all values are drawn at the lower edge.
    """
    sign = -1 if maximize else 1
    all_values, starts = sign * np.asarray(values, float).ravel(), _finite(sign * np.asarray(starts, float))
    finite = _finite(all_values)
    if not len(finite):
        return Scale(is_log=False)
    best, worst = float(finite.min()), float(finite.max())
    start = float(starts.max()) if len(starts) else worst
    edge = worst if np.isposinf(all_values).any() else np.inf
    if not maximize and _spans_decades(finite, worst):
        lowest = min([finite.min(), *_finite(bounds)])
        return _log_scale(finite, lowest, min(edge, 100 * start if worst > 1e4 * start > 0 else np.inf))
    if worst - start > 10 * (start - best) > 0:
        edge = min(edge, start + 2 * (start - best))
    return Scale(False, low=-edge) if maximize else Scale(False, high=edge)


def robust_scale(values: object, *, maximize: bool) -> Scale:
    """Returns the scale for the scores of many settings, some of which may be far worse than the rest.

    As `choose_scale`, but what is much worse is measured by the median and the best value.
    """
    sign = -1 if maximize else 1
    finite = _finite(sign * np.asarray(values, float))
    if not len(finite):
        return Scale(is_log=False)
    best, median, worst = (float(x) for x in np.quantile(finite, [0, 0.5, 1]))
    upper = float(np.quantile(finite, 0.75))
    if not maximize and _spans_decades(finite, upper):
        return _log_scale(finite, finite.min(), 100 * upper if worst > 1e4 * upper else np.inf)
    edge = median + 4 * (median - best) if worst - median > 10 * (median - best) > 0 else np.inf
    return Scale(False, low=-edge) if maximize else Scale(False, high=edge)


def _spans_decades(finite: np.ndarray, high: float) -> bool:
    """Returns whether values are not negative, and those up to `high` span so much that a log axis shows more."""
    positive = finite[finite > 0]
    return bool(finite.min() >= 0 and len(positive) and high > _MANY * positive.min())


def _log_scale(finite: np.ndarray, lowest: float, high: float) -> Scale:
    floor = max(finite[finite > 0].min(), min(high, finite.max()) / _MOST)
    return Scale(True, float(floor / 10 if lowest < floor else floor), float(high))


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]
