"""The pauses of a run between its scorings, and who gets to see the run there: the callback and the log."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.sharding import gather
from zoo.core.strategy import Strategy
from zoo.loop.compiled import Carry
from zoo.loop.log import Log
from zoo.loop.log_file import LogFile
from zoo.loop.progress import Progress

_NEVER = np.iinfo(np.int32).max


class Pauses:
    """Shows a run to its callback and its log.

    Args:
        callback: The callback. A true return value stops the run. With `None`, there is none.
        every: Generations between two pauses, counted from the beginning of the run. With `None`, the run pauses at the
            limits of its budget only.
        log_file: The log. With `None`, there is none.
    """

    def __init__(self, callback: Callable[[Progress], bool | None] | None, every: int | None, log_file: LogFile | None):
        self._callback, self._every, self._log_file = callback, every, log_file
        self._seen = 0  # generations that the callback has seen
        self._begun = 0  # generations that were done before

    def begin(self, log: Log, *, is_from_result: bool) -> None:
        """Takes note of what a run has done before it goes on.

        Args:
            log: The log of the run.
            is_from_result: Whether it goes on from a result, whose last generation the callback has seen. Otherwise the
                callback may have seen the last pause before the checkpoint only.
        """
        self._seen = self._begun = int(log.generations[0])
        if self._every is not None and not is_from_result:
            self._seen = self._begun // self._every * self._every
        if self._log_file is not None:
            self._log_file.begin(log)

    def next(self, generations: np.ndarray) -> np.ndarray:
        """Returns the generation of the next pause, for each number of generations done."""
        if self._every is None:
            return np.full_like(generations, _NEVER)
        return (generations // self._every + 1) * self._every

    def is_due(self, log: Log, *, at_limit: bool, is_end: bool) -> bool:
        """Returns whether the callback is due.

        Args:
            log: The log of the run.
            at_limit: Whether the run is at a limit of its budget.
            is_end: Whether the run is at its end.
        """
        generation = int(log.generations[0])
        is_there = at_limit if self._every is None else is_end or generation % self._every == 0
        return is_there and generation > max(self._seen, self._begun)

    def write(self, log: Log) -> None:
        """Writes the generations that are new to the log."""
        if self._log_file is not None:
            self._log_file.update(log)

    def call(self, strategy: Strategy, carry: Carry, log: Log) -> bool:
        """Shows the callback where a run of one seed is. Returns whether the callback stops the run."""
        seen, self._seen = self._seen, int(log.generations[0])
        return self._callback is not None and bool(self._callback(_progress_of(strategy, carry, log, seen)))


def _progress_of(strategy: Strategy, carry: Carry, log: Log, since: int) -> Progress:
    """Returns the progress of a run, with the history after a generation."""
    history = log.since(0, since)
    return Progress(
        generation=int(log.generations[0]),
        steps=int(log.steps[0]),
        seconds=log.seconds,
        metrics=log.metrics(0),
        mean=gather(jax.tree.map(jnp.copy, strategy.mean(carry.state))),  # the memory of the carry is reused
        best_fitness=float(carry.best_fitness),
        mean_fitness=float(history["mean_fitness"][-1]),
        std_fitness=float(history["std_fitness"][-1]),
        history=history,
        diagnosis=log.diagnosis(0),
        aux=gather(jax.tree.map(jnp.copy, carry.aux)),
    )
