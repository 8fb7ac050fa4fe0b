"""What a run came to, and how it is saved and loaded."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.problem import Problem
from zoo.core.solution import Solution
from zoo.core.strategy import Strategy
from zoo.loop.archive import archive, load_archive
from zoo.loop.compiled import Carry
from zoo.loop.files import damage_of, opened, read_parts, write_parts
from zoo.loop.lock import FolderLock
from zoo.loop.log import Log
from zoo.loop.provenance import describe_settings, make_metadata

if TYPE_CHECKING:
    import pandas as pd  # otherwise imported when needed, so that `import zoo` stays cheap


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The outcome of `run`.

    Attributes:
        strategy: The strategy that ran, open settings filled in.
        problem: The problem it ran on.
        key: The random key that it ran with.
        mean: The recommended solution, in the structure of the initial one.
        best_solution: The member with the lowest fitness seen. Where fitness is noisy it may owe that to luck.
        best_fitness: Its fitness.
        state: Final state of the strategy.
        problem_state: Final state of the problem, with the statistics it gathered.
        metrics: The final score of `mean`, by name.
        history: Arrays by name, one entry per generation: `steps` (cumulative), `best_fitness` and `mean_fitness` of
            the generation.
        scores: Arrays by name, one entry per scoring: `generation`, `steps`, `seconds`, and the metrics.
        seconds: Time spent in the compiled loop; compilation and scoring apart.
        compile_seconds: Time spent compiling (close to zero when a program was already there).
        stopped_by: `"budget"`, `"target"` or `"callback"`.
    """

    strategy: Strategy
    problem: Problem
    key: jax.Array
    mean: Solution
    best_solution: Solution
    best_fitness: float
    state: Any
    problem_state: Any
    metrics: dict[str, float]
    history: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    stopped_by: str

    @property
    def score(self) -> float:
        """The final headline score."""
        return self.metrics[self.problem.headline]

    @property
    def num_generations(self) -> int:
        """Generations done."""
        return len(self.history["steps"])

    @property
    def num_steps(self) -> int:
        """Problem steps spent."""
        return int(self.history["steps"][-1]) if len(self.history["steps"]) else 0

    def progress(self) -> tuple[Carry, Log]:
        """Returns what a run that goes on from here begins with."""
        carry = Carry(
            state=self.state,
            problem_state=self.problem_state,
            best_solution=self.best_solution,
            best_fitness=jnp.asarray(self.best_fitness, float),
            generation=jnp.asarray(self.num_generations, jnp.int32),
            steps=jnp.zeros((), jnp.int32),
        )
        return carry, Log.from_curves(self.history, self.scores, self.seconds)

    def curve(self) -> "pd.DataFrame":
        """Returns the score curve as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.scores)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves solutions, statistics, curves and settings to a folder; `zoo.load_run` reads them back.

        What is there is replaced as a whole: at any moment there is the old run or this one.

        Raises:
            ValueError: If the folder cannot be written, or another process is using it.
        """
        import pandas as pd

        folder = pathlib.Path(folder)
        tree = {
            "mean": self.mean,
            "best_solution": self.best_solution,
            "statistics": getattr(self.problem_state, "statistics", ()),
        }
        frames = {
            "curve.csv": self.curve().to_csv(index=False),
            "history.csv": pd.DataFrame(self.history).to_csv(index_label="generation"),
        }
        facts = {
            **make_metadata(),
            "strategy": describe_settings(self.strategy),
            "problem": describe_settings(self.problem),
            "metrics": self.metrics,
            "best_fitness": self.best_fitness,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "stopped_by": self.stopped_by,
        }
        parts = {name: functools.partial(_write_text, text) for name, text in frames.items()}
        with FolderLock(folder, "RunResult.save") as lock:
            lock.check_writable()
            write_parts(folder, "run.json", facts, {**parts, "solution.npz": archive(tree)})


def load_run(folder: str | pathlib.Path) -> dict[str, Any]:
    """Loads what `RunResult.save` wrote.

    Returns:
        The facts of `run.json`, and `mean`, `best_solution` and `statistics` (nested dicts of arrays), `curve` and
        `history` (frames).

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If a file of it is damaged.
    """
    folder = pathlib.Path(folder)
    if not os.path.lexists(folder / "run.json"):
        raise FileNotFoundError(f"No run in {folder.absolute()}: expected a file run.json there.")
    return read_parts(folder, "run.json", functools.partial(_read_run, folder))


def _read_run(folder: pathlib.Path, facts: dict[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    import pandas as pd

    frames = {}
    for name in ("curve", "history"):
        with opened(folder / f"{name}.csv", digests.get(f"{name}.csv", "")) as file:
            frames[name] = pd.read_csv(file, float_precision="round_trip")
    tree, _ = load_archive(folder / "solution.npz", digests.get("solution.npz", ""))
    with damage_of(folder / "solution.npz"):
        if {*tree} != {"mean", "best_solution", "statistics"}:
            raise ValueError("it has no solutions")
    return {**facts, **tree, **frames}


def _write_text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
