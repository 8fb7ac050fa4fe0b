"""When a run ends and when it is scored."""

import dataclasses
import numbers
from typing import Any

import numpy as np

from zoo.core.problem import Problem
from zoo.loop.log import Log

_INT32_MAX = np.iinfo(np.int32).max
_MAX_STEPS = 2**30  # problem steps per call, so that they are counted in 32 bits without overflow


@dataclasses.dataclass(frozen=True)
class Budget:
    """When a run ends and when it is scored: `limits[k]`, in generations or in problem steps."""

    unit: str  # "generations" or "steps"
    limits: tuple[int, ...]

    @classmethod
    def make(cls, problem: Problem, num_generations: int | None, num_steps: int | None, num_scores: int) -> "Budget":
        """Checks a budget and divides it evenly.

        Raises:
            ValueError: If both budgets are given or a number is not positive.
        """
        if num_generations is not None and num_steps is not None:
            raise ValueError("Give one budget: num_generations or num_steps, not both.")
        unit, total = ("steps", num_steps) if num_generations is None else ("generations", num_generations)
        if total is None:
            total = problem.suggested_num_steps
        for name, value in ((f"num_{unit}", total), ("num_scores", num_scores)):
            if not _is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
        total = int(total)
        if unit == "generations" and total > _INT32_MAX:
            raise ValueError(f"num_generations must be at most {_INT32_MAX}, got {total}.")
        count = min(int(num_scores), total)
        return cls(unit, tuple(-(-total * (k + 1) // count) for k in range(count)))

    def done(self, log: Log) -> np.ndarray:
        """Returns how far each seed is, in the budget's unit."""
        return log.steps if self.unit == "steps" else log.generations

    def check_left(self, log: Log) -> None:
        """Raises a `ValueError` if a run to go on from has spent the budget."""
        done = int(self.done(log).max())
        if done >= self.limits[-1]:
            raise ValueError(
                f"The run to start from has done {done} {self.unit}, and a budget counts from its beginning: "
                f"num_{self.unit} must be more than that, got {self.limits[-1]}."
            )

    def limits_of_call(self, log: Log, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the limits that one call of the compiled loop gets, per seed: generation, and steps from now."""
        unlimited = np.full(len(log.steps), _INT32_MAX)
        if self.unit == "steps":
            return unlimited, np.clip(limit - log.steps, 0, _MAX_STEPS)
        return np.full(len(log.steps), limit), unlimited


def _is_whole(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and float(value).is_integer()
