"""When a search has converged, so that going on is of no use."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from zoo.core.checks import as_scalar, check_bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converged:
    """Stops a search that has converged: `zoo.run(..., stop=zoo.Converged())`.

    The criteria are those of Hansen 2016, arXiv 1604.00772, appendix B.3. `None` turns one off. Here d is the number of
    dimensions.

    Attributes:
        tol_fun: Stop when the best fitness of the last 10 + 30 d / population size generations, and all fitness of the
            last one, differ by no more than this.
        tol_x: Stop when no standard deviation is above this times the largest initial one.
        stagnation: Stop when neither the best nor the mean fitness of a generation improved, in the median over 30 %,
            over this times 120 + 30 d / population size generations. So does a search in which all members fail (their
            fitness is NaN or infinite) that long.
        max_condition: Stop when the condition number of the search covariance is above this.

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
        """Returns of how many recent generations `by_fitness` needs to know the fitness."""
        windows = (_flat_window(num_dims, population_size), self._stagnation_window(num_dims, population_size))
        return max(window or 0 for window in windows)

    def by_fitness(
        self, best: np.ndarray, mean: np.ndarray, worst: float, num_dims: int, population_size: int
    ) -> dict[str, str]:
        """Returns why to stop, by the name of the criterion, judged by fitness; empty if there is no reason.

        Args:
            best: `[num_generations]` best fitness of recent generations, the latest last.
            mean: `[num_generations]` their mean fitness; NaN where all members failed.
            worst: Fitness in the last generation that is furthest from the best; infinite if a member failed.
            num_dims: Dimensions of the search.
            population_size: Members of a generation.
        """
        reasons = {}
        window = _flat_window(num_dims, population_size)
        if self.tol_fun is not None and len(best) >= window:
            recent = best[-window:]
            spread = max(float(recent.max()), worst) - float(recent.min())
            if spread <= self.tol_fun:  # not where it is infinite or no number
                reasons["tol_fun"] = f"fitness varies by {spread:g}"
        window = self._stagnation_window(num_dims, population_size)
        if window is not None and len(best) >= window:
            third = math.ceil(0.3 * window)
            curves = np.stack([best[-window:], mean[-window:]])
            curves = np.where(np.isnan(curves), np.inf, curves)  # or a search in which all fails would never end
            if np.all(np.median(curves[:, -third:], axis=1) >= np.median(curves[:, :third], axis=1)):
                reasons["stagnation"] = f"no improvement in {window} generations"
        return reasons

    def by_spread(self, largest_std: float, initial_std: float, condition_number: float) -> dict[str, str]:
        """Returns why to stop, by the name of the criterion, judged by the search distribution."""
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
    """Looks at a run in every so many generations, whether it has converged.

    Args:
        stop: The criteria.
        num_dims: Dimensions of the search.
        population_size: Members of a generation.
        every: Generations from one look to the next, counted from the beginning of the run.
    """

    def __init__(self, stop: Converged, num_dims: int, population_size: int, *, every: int):
        self._stop, self._sizes, self._every = stop, (num_dims, population_size), every
        self.num_recent = stop.num_recent(num_dims, population_size)
        """Of how many recent generations it needs to know the history."""

    def next(self, generations: np.ndarray) -> np.ndarray:
        """Returns at which generation it looks next, after so many."""
        return (generations // self._every + 1) * self._every

    def is_due(self, generations: np.ndarray) -> np.ndarray:
        """Returns whether it looks after so many generations."""
        return (generations > 0) & (generations % self._every == 0)

    def reason(
        self, recent: Mapping[str, np.ndarray], largest_std: float, initial_std: float, condition_number: float
    ) -> str | None:
        """Returns the criterion that a run meets; `None`: there is none.

        Args:
            recent: `best_fitness`, `mean_fitness` and `worst_fitness` of recent generations.
            largest_std: The largest standard deviation of the search.
            initial_std: What it was at first.
            condition_number: That of the search covariance.
        """
        best, mean, worst = (recent[name] for name in ("best_fitness", "mean_fitness", "worst_fitness"))
        reasons = self._stop.by_fitness(best, mean, float(worst[-1]), *self._sizes)
        return next(iter(reasons | self._stop.by_spread(largest_std, initial_std, condition_number)), None)


def _flat_window(num_dims: int, population_size: int) -> int:
    return 10 + math.ceil(30 * num_dims / population_size)
