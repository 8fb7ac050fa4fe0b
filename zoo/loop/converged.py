"""Criteria for a search that has converged, and cannot improve any more."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from zoo.core.checks import as_scalar, check_bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converged:
    """Stops a search that has converged: `zoo.run(..., stop=zoo.Converged())`.

    The criteria are from Hansen 2016, arXiv 1604.00772, appendix B.3. `None` turns a criterion off. d is the number of
    dimensions.

    Attributes:
        tol_fun: Stops when the best fitness of each of the last 10 + 30 d / population size generations, and the
            fitness of all members of the last generation, differ by no more than this.
        tol_x: Stops when no standard deviation is above `tol_x` times the largest initial standard deviation.
        stagnation: Stops when neither the best nor the mean fitness improved within a window of `stagnation` times
            120 + 30 d / population size generations. Compares the medians over the newest and the oldest 30 % of the
            window. A search in which every member fails (its fitness is NaN or infinite) has stagnated too.
        max_condition: Stops when the condition number of the search covariance is above this.

    Raises:
        TypeError: If a criterion is neither a number nor `None`.
        ValueError: If a criterion is negative, not finite, or a `stagnation` of 0.

    >>> import jax.numpy as jnp, zoo
    >>> result = zoo.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(4), sigma=1.0, stop=zoo.Converged())
    >>> result.stopped_by
    'tol_fun'
    """

    tol_fun: float | None = 1e-12
    tol_x: float | None = 1e-12
    stagnation: float | None = 1.0
    max_condition: float | None = 1e14

    def __post_init__(self) -> None:
        """Checks the criteria."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None:
                continue
            name = f"Converged.{field.name}"
            value = as_scalar(getattr(self, field.name), name)
            check_bounds(value, name, **({"above": 0} if field.name == "stagnation" else {"at_least": 0}))
            object.__setattr__(self, field.name, value)

    def num_recent(self, num_dims: int, population_size: int) -> int:
        """Returns the number of recent generations whose fitness `by_fitness` needs."""
        windows = (_flat_window(num_dims, population_size), self._stagnation_window(num_dims, population_size))
        return max(window or 0 for window in windows)

    def by_fitness(
        self, best: np.ndarray, mean: np.ndarray, worst: float, num_dims: int, population_size: int
    ) -> dict[str, str]:
        """Returns the reasons to stop that fitness gives, by the name of the criterion. Empty if there is none.

        Args:
            best: `[num_generations]` best fitness of recent generations, in order.
            mean: `[num_generations]` mean fitness of the same generations. NaN where all members failed.
            worst: Worst fitness in the last generation. Infinite if a member failed.
            num_dims: Dimensions of the search.
            population_size: Members of a generation.
        """
        reasons = {}
        window = _flat_window(num_dims, population_size)
        if self.tol_fun is not None and len(best) >= window:
            recent = best[-window:]
            spread = max(float(recent.max()), worst) - float(recent.min())
            if spread <= self.tol_fun:  # false if the spread is infinite or NaN
                reasons["tol_fun"] = f"fitness varies by {spread:g}"
        window = self._stagnation_window(num_dims, population_size)
        if window is not None and len(best) >= window:
            third = math.ceil(0.3 * window)
            curves = np.stack([best[-window:], mean[-window:]])
            curves = np.where(np.isnan(curves), np.inf, curves)  # NaN compares as false, and would never stagnate
            if np.all(np.median(curves[:, -third:], axis=1) >= np.median(curves[:, :third], axis=1)):
                reasons["stagnation"] = f"no improvement in {window} generations"
        return reasons

    def by_spread(self, largest_std: float, initial_std: float, condition_number: float) -> dict[str, str]:
        """Returns the reasons to stop that the search distribution gives, by the name of the criterion."""
        reasons = {}
        if self.tol_x is not None and largest_std <= self.tol_x * initial_std:
            reasons["tol_x"] = f"largest standard deviation {largest_std:g}"
        if self.max_condition is not None and condition_number > self.max_condition:
            reasons["max_condition"] = f"condition number {condition_number:g}"
        return reasons

    def _stagnation_window(self, num_dims: int, population_size: int) -> int | None:
        if self.stagnation is None:
            return None
        return math.ceil(self.stagnation * (120 + math.ceil(30 * num_dims / population_size)))


class Watch:
    """Checks at regular generations whether a run has converged.

    Args:
        stop: The criteria.
        num_dims: Dimensions of the search.
        population_size: Members of a generation.
        every: Generations between two checks, counted from the beginning of the run.
    """

    def __init__(self, stop: Converged, num_dims: int, population_size: int, *, every: int):
        self._stop, self._sizes, self._every = stop, (num_dims, population_size), every
        self.num_recent = stop.num_recent(num_dims, population_size)
        """Number of recent generations whose history `reason` needs."""

    def next(self, generations: np.ndarray) -> np.ndarray:
        """Returns the generation of the next check, for each number of generations done."""
        return (generations // self._every + 1) * self._every

    def is_due(self, generations: np.ndarray) -> np.ndarray:
        """Returns whether a check is due, for each number of generations done."""
        return (generations > 0) & (generations % self._every == 0)

    def reason(
        self, recent: Mapping[str, np.ndarray], largest_std: float, initial_std: float, condition_number: float
    ) -> str | None:
        """Returns the first criterion that a run meets. Returns `None` if it meets none.

        Args:
            recent: `best_fitness`, `mean_fitness` and `worst_fitness` of recent generations.
            largest_std: The largest standard deviation of the search.
            initial_std: The largest initial standard deviation.
            condition_number: The condition number of the search covariance.
        """
        best, mean, worst = (recent[name] for name in ("best_fitness", "mean_fitness", "worst_fitness"))
        reasons = self._stop.by_fitness(best, mean, float(worst[-1]), *self._sizes)
        return next(iter(reasons | self._stop.by_spread(largest_std, initial_std, condition_number)), None)


def _flat_window(num_dims: int, population_size: int) -> int:
    return 10 + math.ceil(30 * num_dims / population_size)
