"""Callbacks: what is called while a run runs, and with what."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from zoo.core.checks import shown
from zoo.loop.progress import Progress
from zoo.loop.result import RunResult


class Callback(Protocol):
    """What `zoo.run(callback=...)` calls: any object with some of these methods, or a function of a `Progress`.

    A subclass overrides the methods that it needs.

    >>> import zoo
    >>> class Best(zoo.Callback):
    ...     def __call__(self, progress):
    ...         print(progress.generation, progress.best_fitness < 1)
    ...     def end(self, result):
    ...         print("ended by", result.stopped_by)
    >>> result = zoo.run("cma_es", "blackbox/sphere", num_generations=100, callback=Best(), callback_every=50)
    50 True
    100 True
    ended by budget
    """

    def start(self, facts: Mapping[str, Any]) -> None:
        """Starts. Called once, after compilation.

        Args:
            facts: JSON-able facts about the run: the settings of `strategy` and `problem`, `key`, `budget`,
                `generation` (0, or where a run goes on), `date`, versions, device and commit.
        """

    def __call__(self, progress: Progress) -> bool | None:
        """Sees the progress. A true return value stops the run."""

    def end(self, result: RunResult | None) -> None:
        """Ends. Called once if `start` was reached.

        Args:
            result: What the run returns. `None` if an error or Ctrl-C ended it.
        """


@dataclasses.dataclass
class Callbacks:
    """The callbacks of a run as one.

    Attributes:
        each: The callbacks, which have some of the methods of `Callback`.
        is_started: Whether they have been told that the run starts.
    """

    each: tuple[Any, ...]
    is_started: bool = False

    @classmethod
    def of(cls, callback: Any) -> "Callbacks":
        """Returns the callbacks that the user gave: one, several in a list or a tuple, or none.

        Raises:
            TypeError: If one of them cannot be called.
        """
        given = tuple(callback) if isinstance(callback, list | tuple) else () if callback is None else (callback,)
        for each in given:
            if isinstance(each, type):
                raise TypeError(
                    f"callback must be an object, got the class {each.__name__}. Make one: {each.__name__}(...)."
                )
            if not any(callable(getattr(each, name, None)) for name in ("start", "__call__", "end")):
                raise TypeError(
                    "callback must be a function of a zoo.Progress, an object like a zoo.Callback, or a list of these, "
                    f"got {shown(each)}."
                )
        return cls(given)

    def start(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """Tells the callbacks that the run starts. `facts` is called if one of them wants to know."""
        self.is_started = True
        told = [each for each in self.each if hasattr(each, "start")]
        described = facts() if told else {}
        for each in told:
            each.start(described)

    def __call__(self, progress: Progress) -> bool:
        """Shows the progress to all callbacks. Returns whether one of them stops the run."""
        stops = [bool(each(progress)) for each in self.each if callable(each)]  # none is left out
        return any(stops)

    def end(self, result: RunResult | None) -> None:
        """Tells the callbacks that the run has ended. All of them are told, also if one raises an error."""
        with contextlib.ExitStack() as stack:
            for each in reversed(self.each) if self.is_started else ():
                if hasattr(each, "end"):
                    stack.callback(each.end, result)

    @contextlib.contextmanager
    def told_of_errors(self) -> Iterator[None]:
        """Tells the callbacks if an error ends the run in this block. Their own errors do not hide it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.end(None)
            raise
