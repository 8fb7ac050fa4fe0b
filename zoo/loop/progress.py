"""Shows the progress of a run, to a callback and as a progress bar."""

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from zoo.core.evaluation import Aux
from zoo.core.solution import Solution
from zoo.loop.notebook import lacks_widgets, notebook_line


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a run, as a callback receives it while the run runs.

    Attributes:
        generation: Generations done.
        steps: Problem steps spent.
        seconds: Time spent in the compiled loop, without compilation and scoring.
        metrics: The latest score, by name.
        mean: The recommended solution.
        best_fitness: Lowest fitness of any member so far. Fitness is minimised, also where the score is maximised; see
            `RunResult`.
        mean_fitness: Mean fitness of the latest population, without members whose fitness is not finite.
        std_fitness: Standard deviation of the fitness of the same members.
        history: The history of the generations since the previous call, one entry per generation: `generation`, `steps`
            and `seconds` (interpolated within a call of the compiled loop), and what `RunResult.history` has.
        diagnosis: The state of the search, by name: `sigma`, `step_norm`, `condition_number`, `failed`. See
            `RunResult.scores` and `RunResult.history`.
        aux: What the problem reports for each member of the latest population besides its fitness, by name. Each array
            is `[population_size, ...]`.
    """

    generation: int
    steps: int
    seconds: float
    metrics: dict[str, float]
    mean: Solution
    best_fitness: float
    mean_fitness: float
    std_fitness: float
    history: dict[str, np.ndarray]
    diagnosis: dict[str, float]
    aux: Aux


def say(line: str, *, show: bool) -> None:
    """Prints a line to standard error, or logs it with the logger "zoo" if it is not to be shown."""
    if show:
        print(line, file=sys.stderr)
    else:
        logging.getLogger("zoo").info(line)


class Compiling:
    """A status text with the time since compilation began. The time is computed whenever the text is shown."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __str__(self) -> str:
        return f"compiling, {time.perf_counter() - self._since:.0f} s"


@contextlib.contextmanager
def progress_bar(
    title: str | None, total: int, *, status: object = "", is_count: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Yields `show(done, status)`, which updates a progress bar.

    Args:
        title: The text on the left, whose middle is cut out if the line is short. With `None`, there is no bar, and
            `show` does nothing.
        total: The value of `done` at the end.
        status: The text on the right at the start. It is converted to a string whenever the bar is drawn. If the line
            is short, its last parts, which commas separate, are left out.
        is_count: Whether to show `done/total` and the elapsed time. Otherwise the bar shows the percentage and the
            remaining time.
    """
    if title is None:
        yield lambda done, status: None
        return
    if lacks_widgets():
        with notebook_line(title, total, status, is_count=is_count) as show:
            yield show
        return
    import rich.progress

    from zoo.loop.progress_line import Line

    with rich.progress.Progress(Line(is_count=is_count)) as bar:
        task = bar.add_task(title, total=total, status=status)
        yield lambda done, status: bar.update(task, completed=done, status=status)
