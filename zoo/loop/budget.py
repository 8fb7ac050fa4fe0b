"""Budgets: when a run ends, and when it is scored."""

import dataclasses
from typing import Any

import numpy as np

from zoo.core.checks import as_count, as_scalar, check_bounds, shown
from zoo.core.evaluation import MAX_STEPS
from zoo.core.problem import Problem
from zoo.loop.compiled import Limits
from zoo.loop.log import Log

_INT32_MAX = np.iinfo(np.int32).max
_NUM_PAUSES = 20


@dataclasses.dataclass(frozen=True)
class Budget:
    """The points of a run where the host takes over, for scores, progress and checkpoints. The last one is its end.

    Attributes:
        unit: What the limits count, `"generations"` or `"steps"`.
        limits: Where the run pauses, in increasing order. It ends at the last limit.
        is_scored: Whether the run is scored at each limit. At the last limit it always is.
    """

    unit: str
    limits: tuple[int, ...]
    is_scored: tuple[bool, ...]

    @classmethod
    def make(
        cls,
        problem: Problem,
        num_generations: int | None,
        num_steps: int | None,
        num_scores: int | None,
        *,
        needs_scores: bool = False,
    ) -> "Budget":
        """Checks a budget and divides it evenly.

        Args:
            problem: The problem.
            num_generations: Budget in generations.
            num_steps: Budget in problem steps, if `num_generations` is `None`. If both are `None`, the problem's
                `suggested_num_steps` is used.
            num_scores: How often the run pauses and is scored. With `None`, the run pauses 20 times. It is scored each
                time, or at the end only if the problem is expensive.
            needs_scores: Whether to score at each pause, also if the problem is expensive.

        Raises:
            TypeError: If a budget is not a number.
            ValueError: If both budgets are given, or a budget is not a positive whole number.
        """
        if num_generations is not None and num_steps is not None:
            raise ValueError("Give one budget: num_generations or num_steps, not both.")
        unit, total = ("steps", num_steps) if num_generations is None else ("generations", num_generations)
        if total is None:
            total = problem.suggested_num_steps
        at_end_only = num_scores is None and problem.is_expensive and not needs_scores
        pauses = _NUM_PAUSES if num_scores is None else num_scores
        total, pauses = _whole(total, f"num_{unit}"), _whole(pauses, "num_scores")
        if unit == "generations":
            as_count(total, "num_generations")  # the program counts them in 32 bits, unlike steps
        count = min(pauses, total)
        limits = tuple(-(-total * (k + 1) // count) for k in range(count))
        return cls(unit, limits, tuple(k + 1 == count or not at_end_only for k in range(count)))

    def done(self, log: Log) -> np.ndarray:
        """Returns how much each seed has done, in the budget's unit."""
        return log.steps if self.unit == "steps" else log.generations

    def is_spent(self, log: Log, generation_steps: int | None) -> np.ndarray:
        """Returns which seeds are at their end, because the budget has no room for another generation.

        Args:
            log: How much each seed has done.
            generation_steps: Problem steps of a generation. `None` if only an evaluation tells.
        """
        if self.unit == "generations":
            return log.generations >= self.limits[-1]
        return (log.overshoot > 0) | (log.steps + (generation_steps or 1) > self.limits[-1])

    def check_left(self, log: Log, generation_steps: int | None) -> None:
        """Raises a `ValueError` if the run that `start` names has spent the budget already."""
        done = int(self.done(log).max())
        if self.is_spent(log, generation_steps).all():
            raise ValueError(
                f"The run to start from has done {done} {self.unit}, and the budget counts from its beginning: "
                f"num_{self.unit}={self.limits[-1]} leaves no room for another generation. Give a larger budget."
            )

    def check_covers(self, log: Log, folder: Any) -> None:
        """Raises a `ValueError` if the run whose checkpoint is in a folder has done more than the budget."""
        done = int(self.done(log).max())
        if done > self.limits[-1]:
            raise ValueError(
                f"The run in {folder} has done {done} {self.unit}, more than num_{self.unit}={self.limits[-1]}. Ask "
                f"for num_{self.unit}={done} or more, or choose another folder."
            )

    def limits_of_call(self, log: Log, limit: int) -> Limits:
        """Returns the limits, per seed, for a call of the compiled loop that runs up to `limit` of the budget."""
        unlimited = np.full(len(log.steps), _INT32_MAX)
        if self.unit == "generations":
            return Limits(np.full(len(log.steps), limit), unlimited, unlimited)
        most = np.minimum(self.limits[-1] - log.steps, _INT32_MAX)
        return Limits(unlimited, np.clip(limit - log.steps, 0, MAX_STEPS), most)


def _whole(value: Any, name: str) -> int:
    """Returns a positive whole number, which may be given as a float such as 1e6."""
    number = as_scalar(value, name)
    check_bounds(number, name, at_least=1)
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, got {shown(value)}.")
    return int(value)
