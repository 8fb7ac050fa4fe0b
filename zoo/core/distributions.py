"""The values of a setting in a search: a range, a logarithmic range, whole numbers, or one of several values.

Each distribution maps a number u in [0, 1] to a value. Grids, random draws and Sobol points all use this map. A
`Factor` becomes such a distribution once it is known which value it multiplies.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.core.checks import as_count, as_scalar, shown


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        low: The smallest value.
        high: The largest value.
        is_log: Whether the logarithms are uniform, rather than the numbers.
        step: The values are the whole numbers `low`, `low + step`, and so on. With `None`, all numbers are values.
    """

    low: float
    high: float
    is_log: bool = False
    step: int | None = None

    def at(self, u: float) -> float | int:
        """Returns the value at a fraction u of the range, from 0 to 1."""
        low, high = float(self.low), float(self.high)
        if self.step:  # each value has an equal share of the range
            low, high = low - self.step / 2, high + self.step / 2
        low = max(low, 0.5 * self.low) if self.is_log else low
        value = math.exp(_mix(math.log(low), math.log(high), u)) if self.is_log else _mix(low, high, u)
        value = min(max(value, self.low), self.high)
        return value if self.step is None else int(self.low + self.step * round((value - self.low) / self.step))

    def grid(self, num: int) -> list[Any]:
        """Returns `num` evenly spaced values that include both ends, without duplicates. With 1, returns the middle."""
        if num == 1:
            return [self.at(0.5)]
        return list(dict.fromkeys(self.at(k / (num - 1)) for k in range(num)))

    def __repr__(self) -> str:
        if self.step is None:
            return f"{'log_' if self.is_log else ''}uniform({self.low:g}, {self.high:g})"
        step, log = f", step={self.step}" if self.step > 1 else "", ", log=True" if self.is_log else ""
        return f"integers({self.low}, {self.high}{step}{log})"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely.

    Attributes:
        values: The values.
    """

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """Returns the value at a fraction u of the list, from 0 to 1."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def grid(self, num: int) -> list[Any]:
        """Returns all values, whatever `num` is."""
        del num
        return list(self.values)

    def __repr__(self) -> str:
        return f"choice({list(self.values)!r})"


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A spread per parameter, times one factor for all of them, whose logarithm is uniform.

    Attributes:
        value: Numbers and arrays in the structure of the solution.
        low: The smallest factor.
        high: The largest factor.
        smallest: The smallest valid number. Smaller ones are clipped.
        largest: The largest valid number. Larger ones are clipped.
    """

    value: Any
    low: float
    high: float
    smallest: float
    largest: float

    def at(self, u: float) -> Any:
        """Returns the value times the factor at a fraction u of the range, from 0 to 1."""
        factor = Range(self.low, self.high, is_log=True).at(u)

        def scaled(x: Any) -> Any:
            clipped = np.clip(np.asarray(x) * factor, self.smallest, self.largest)
            return clipped if np.ndim(x) else float(clipped)

        return jax.tree.map(scaled, self.value)

    def grid(self, num: int) -> list[Any]:
        """Returns `num` values whose factors are evenly spaced and include both ends. With 1, returns the middle."""
        return [self.at(0.5)] if num == 1 else [self.at(k / (num - 1)) for k in range(num)]

    def __repr__(self) -> str:
        return f"times({self.low:g}, {self.high:g})"


@dataclasses.dataclass(frozen=True)
class Factor:
    """The value that a strategy has on a problem, times a factor whose logarithm is uniform.

    Attributes:
        low: The smallest factor.
        high: The largest factor.
    """

    low: float
    high: float

    def of(self, value: Any, bounds: Mapping[str, float | None], name: str) -> Range | Scaled:
        """Returns the distribution of a setting.

        Args:
            value: The value that is multiplied: a number, or a spread per parameter.
            bounds: The bounds of the setting, `above`, `at_least` and `at_most`, to which the range is clipped.
            name: The name of the setting, for messages.

        Raises:
            ValueError: If the value is not a positive number, or several, or only one value lies within the bounds.
        """
        if not is_scalable(value):
            raise ValueError(
                f"{name} is searched by {self!r}, which multiplies the value that it has without a search; this must "
                f"be positive, got {shown(value)}. Give it a value, or a range such as zoo.space.log_uniform(1e-3, 1)."
            )
        smallest = -math.inf if bounds.get("at_least") is None else float(bounds["at_least"] or 0.0)
        largest = math.inf if bounds.get("at_most") is None else float(bounds["at_most"] or 0.0)
        above = bounds.get("above")
        numbers = [float(np.min(x)) for x in jax.tree.leaves(value)]
        if above is not None and self.low * min(numbers) <= above:  # close to the bound, but not on it
            smallest = max(smallest, above + _MARGIN * (min(numbers) - above))
        if not jax.tree_util.all_leaves([value]) or np.ndim(value):
            return Scaled(value, self.low, self.high, smallest, largest)
        low, high = max(self.low * numbers[0], smallest), min(self.high * numbers[0], largest)
        return _range(low, high, f"{name}: {self!r} of {numbers[0]:g} within its bounds", is_log=True)

    def __repr__(self) -> str:
        return f"times({self.low:g}, {self.high:g})"


Distribution = Range | Choice | Scaled
Given = Range | Choice | Factor
"""What a search space has, before it is known which strategy and which problem it is for."""
_MARGIN = 1e-3  # part of the distance between a value and a bound that is not a valid value


def uniform(low: float, high: float) -> Range:
    """Returns the range of numbers from `low` to `high`.

    Raises:
        TypeError: If a bound is not a number.
        ValueError: If a bound is not finite, or `low` is not less than `high`.
    """
    return _range(low, high, "uniform")


def log_uniform(low: float, high: float) -> Range:
    """Returns the range from `low` to `high` with uniform logarithms, for example for step sizes and learning rates.

    Raises:
        TypeError: If a bound is not a number.
        ValueError: If a bound is not finite, or not 0 < `low` < `high`.
    """
    return _range(low, high, "log_uniform", is_log=True)


def times(low: float, high: float) -> Factor:
    """Returns the range from `low` to `high` times the value that the strategy has on the problem without a search.

    That value is what was given for the strategy, what the problem suggests, or the default; a spread per parameter is
    multiplied as a whole. The logarithms are uniform. The range is clipped to the bounds of the setting. So one range
    serves for step sizes and learning rates in any units.

    Raises:
        TypeError: If a bound is not a number.
        ValueError: If a bound is not finite, or not 0 < `low` < `high`.
    """
    found = _range(low, high, "times", is_log=True)
    return Factor(float(found.low), float(found.high))


def is_scalable(value: Any) -> bool:
    """Whether a value can be multiplied by a factor: a positive number, or several in the structure of a solution."""
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(x, (int, float, np.number, np.ndarray, jax.Array)) and np.all(np.asarray(x) > 0) for x in leaves
    )


def is_logarithmic(distribution: Distribution) -> bool:
    """Whether the logarithms of the values are uniform."""
    return isinstance(distribution, Scaled) or (isinstance(distribution, Range) and distribution.is_log)


def integers(low: int, high: int, *, step: int = 1, log: bool = False) -> Range:
    """Returns the whole numbers from `low` to `high`, including both.

    Args:
        low: The smallest value.
        high: The largest value. It is rounded down to a value that `step` reaches.
        step: The distance between two values, such as 2 for population sizes of antithetic pairs.
        log: Whether the logarithms are uniform, for example for population sizes.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If `low` is not less than `high`, `log` is set and `low` is not positive, or `step` is not positive.
    """
    for name, value in (("low", low), ("high", high)):
        as_count(value, f"integers: {name}", at_least=-(2**31))
    step = as_count(step, "integers: step")
    return _range(low, low + (high - low) // step * step, "integers", is_log=log, step=step)


def choice(values: Sequence[Any]) -> Choice:
    """Returns a choice among values. In a search space, a plain list of values means the same.

    Raises:
        TypeError: If `values` is not a list or a tuple.
        ValueError: If `values` is empty.
    """
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"choice expects a list of values, got {shown(values)}.")
    if not values:
        raise ValueError("choice expects at least one value, got an empty list.")
    return Choice(tuple(values))


def as_distribution(value: Any, name: str) -> Given:
    """Returns a distribution, given as a distribution or as a list of values.

    Raises:
        TypeError: If `value` is neither.
    """
    if isinstance(value, (Range, Choice, Factor)):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple) and len(value) == 2:
        raise TypeError(
            f"{name} is a pair, {shown(value)}, which may be a range or two values. Write zoo.space.uniform{value} or "
            f"zoo.space.log_uniform{value} for a range, and a list for two values."
        )
    if isinstance(value, (list, tuple)):
        return choice(value)
    raise TypeError(
        f"{name} must be a list of values or a distribution such as zoo.space.log_uniform(1e-3, 1), got {shown(value)}."
    )


def _range(low: Any, high: Any, name: str, *, is_log: bool = False, step: int | None = None) -> Range:
    low, high = as_scalar(low, f"{name}: low"), as_scalar(high, f"{name}: high")
    if is_log and low <= 0:
        raise ValueError(f"{name} needs a positive low, since its logarithm is taken, got {low:g}.")
    if low >= high:
        raise ValueError(f"{name} needs low < high, got {low:g} and {high:g}.")
    return Range(int(low) if step else low, int(high) if step else high, is_log=is_log, step=step)


def _mix(low: float, high: float, u: float) -> float:
    return low + u * (high - low)
