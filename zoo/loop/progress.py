"""What is shown of a run while it goes on: to a callback, and as a progress bar."""

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator

from zoo.core.evaluation import Aux
from zoo.core.solution import Solution


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a callback sees between two segments.

    Attributes:
        generation: Generations done.
        steps: Problem steps spent.
        seconds: Time spent in the compiled loop; compilation and scoring apart.
        metrics: The latest score, by name.
        mean: The recommended solution.
        best_fitness: Lowest fitness of any member so far.
        diagnosis: How the search is doing, by name: `sigma`, `step_norm`, `condition_number`, `failed`; see
            `RunResult.scores` and `RunResult.history`.
        aux: What the problem says of each member of the latest population, by name, `[population_size, ...]` each.
    """

    generation: int
    steps: int
    seconds: float
    metrics: dict[str, float]
    mean: Solution
    best_fitness: float
    diagnosis: dict[str, float]
    aux: Aux


def say(line: str, *, show: bool) -> None:
    """Prints a line beside progress bars, or hands it to the logger "zoo"."""
    if show:
        print(line, file=sys.stderr)
    else:
        logging.getLogger("zoo").info(line)


class Compiling:
    """A status that says for how long a program has been compiled by now, whenever it is shown."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __str__(self) -> str:
        return f"compiling, {time.perf_counter() - self._since:.0f} s"


@contextlib.contextmanager
def progress_bar(
    title: str | None, total: int, *, status: object = "", is_count: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Yields `show(done, status)`, which moves a progress bar; it does nothing without a title.

    Args:
        title: The text on the left.
        total: What `done` is at the end.
        status: The text on the right at the start; made a string anew whenever the bar is drawn.
        is_count: Whether to show `done/total` and the time that has passed. Otherwise the bar shows the percentage and
            the time that remains.
    """
    if title is None:
        yield lambda done, status: None
        return
    import rich.progress

    if is_count:
        columns = (rich.progress.MofNCompleteColumn(), rich.progress.TimeElapsedColumn())
    else:
        columns = (rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn())
    with rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        *columns,
        rich.progress.TextColumn("{task.fields[status]}"),
    ) as bar:
        task = bar.add_task(title, total=total, status=status)
        yield lambda done, status: bar.update(task, completed=done, status=status)
