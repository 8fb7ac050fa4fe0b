"""The result of a run, and how it is saved."""

import dataclasses
import functools
import html
import pathlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.checks import as_count
from zoo.core.evaluation import Aux
from zoo.core.keys import as_key
from zoo.core.problem import Problem
from zoo.core.short import short
from zoo.core.solution import Solution
from zoo.core.strategy import Strategy
from zoo.figures.notebook import notebook_block
from zoo.loop.archive import archive
from zoo.loop.compiled import Carry
from zoo.loop.files import DamagedError, as_folder, below, damage_of, opened, read_parts, write_parts
from zoo.loop.lock import FolderLock
from zoo.loop.log import Log
from zoo.loop.provenance import describe_numbers, describe_settings, make_metadata
from zoo.loop.reevaluate import Reevaluation, reevaluate

if TYPE_CHECKING:
    # Imported where they are needed, so that `import zoo` stays cheap.
    import pandas as pd
    from matplotlib.figure import Figure

ARRAYS = "arrays.npz"
TREES: tuple[str, ...] = ("mean", "best_solution", "best_aux", "aux", "state", "problem_state")
"""The fields that a folder stores as arrays. It stores lists of leaves, because the run gives the structure."""


@dataclasses.dataclass(frozen=True, repr=False)
class RunResult:
    """The result of `run`.

    Strategies minimise fitness, so lower fitness is always better. A problem reports scores, and its `maximize` says
    whether a higher headline score is better. If the score is a return or an accuracy, fitness has another sign or
    scale. For example, in `rl/*` the fitness of a member is minus the return of its episodes. Fitness is measured on
    the members during the search. Scores are measured on the mean, on held-out data.

    Attributes:
        strategy: The strategy that ran, with open settings filled in.
        problem: The problem that it ran on.
        key: The random key of the run.
        mean: The recommended solution, in the structure of the initial solution.
        best_solution: The member with the lowest fitness of the run. If fitness is noisy, this is the luckiest member:
            use `mean` instead, or what `best` returns.
        best_fitness: Fitness of `best_solution` (lower is better).
        best_aux: What else the problem reported for `best_solution`, by name. See `Problem.fitness_and_aux`.
        aux: What else the problem reported for each member of the last population, by name. Each array is
            `[population_size, ...]`.
        state: Final state of the strategy.
        problem_state: Final state of the problem, with the statistics that it gathered.
        metrics: The final score of `mean`, by name.
        history: Arrays by name, with one entry per generation: `steps` (cumulative), `best_fitness`, `mean_fitness` and
            `std_fitness` (mean and standard deviation over the members whose fitness is finite; NaN if there are none),
            `worst_fitness` (infinite if a member failed), `failed` (the share of members whose fitness is not finite),
            and `aux/<name>` (the mean over the members of each number that the problem reports besides fitness).
        scores: Arrays by name, with one entry per scoring: `generation`, `steps`, `seconds`, the metrics, and the state
            of the search: `sigma` (root mean square of the standard deviations that are not zero), `step_norm`
            (Euclidean distance of the mean from the mean at the previous scoring, divided by the generations between)
            and `condition_number` (of the covariance matrix of the search distribution).
        seconds: Time spent in the compiled loop, without compilation and scoring.
        compile_seconds: Time spent compiling. It is close to zero if the program was compiled before.
        overshoot: Problem steps of the generation that was dropped at the end, because the budget had no room for it. 0
            if no generation was dropped.
        stopped_by: `"budget"`, `"target"`, `"callback"`, or the criterion of `Converged`, such as `"tol_fun"`.
        call: The call of the run, as JSON-able facts.
    """

    strategy: Strategy
    problem: Problem
    key: jax.Array
    mean: Solution
    best_solution: Solution
    best_fitness: float
    best_aux: Aux
    aux: Aux
    state: Any
    problem_state: Any
    metrics: dict[str, float]
    history: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    overshoot: int
    stopped_by: str
    call: dict[str, Any]

    @property
    def score(self) -> float:
        """The final headline score."""
        return self.metrics[self.problem.headline]

    @property
    def num_generations(self) -> int:
        """Number of generations done."""
        return len(self.history["steps"])

    @property
    def num_steps(self) -> int:
        """Number of problem steps spent."""
        return int(self.history["steps"][-1]) if len(self.history["steps"]) else 0

    @property
    def failed(self) -> float:
        """The share of all members whose fitness was NaN or infinite."""
        shares = self.history["failed"]
        return float(shares.mean()) if len(shares) else 0.0

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items())
        direction = "higher" if self.problem.maximize else "lower"
        failed = f"  {100 * self.failed:.3g} % of members failed\n" if self.failed else ""
        return (
            f"<RunResult: {type(self.strategy).__name__} on {type(self.problem).__name__}; ended by {self.stopped_by}\n"
            f"  score of the mean: {scores} ({direction} {self.problem.headline} is better)\n"
            f"  best fitness of a member: {self.best_fitness:.6g} (lower is better)\n"
            f"{failed}"
            f"  {self.num_generations} generations, {self.num_steps:,} steps, {self.seconds:.2f} s\n"
            f"  mean: {short(self.mean)}>"
        )

    def _repr_html_(self) -> str:
        return notebook_block(repr(self), self._scores_table)

    def _scores_table(self) -> str:
        """Returns HTML of the metrics at the first scoring and at the last one."""
        rows = [
            f"<tr><td>{html.escape(name)}</td><td>{self.scores[name][0]:.4g}</td><td>{value:.4g}</td></tr>"
            for name, value in self.metrics.items()
            if name in self.scores
        ]
        first = f"at {self.scores['steps'][0]:,} steps"
        return f"<table><tr><th>score</th><th>{first}</th><th>at the end</th></tr>{''.join(rows)}</table>"

    @jax.transfer_guard("allow")
    def best(self, num_reevaluations: int = 64, key: int | jax.Array = 0) -> Reevaluation:
        """Evaluates `mean` and `best_solution` again, and returns the better one.

        Use it if fitness is noisy, for example on minibatches, on random episodes or for a random function.

        Args:
            num_reevaluations: Evaluations of each solution, with the same random numbers for both.
            key: JAX random key, or a seed.

        Returns:
            A `Reevaluation`: the `solution`, its mean `fitness`, the `standard_error` of the mean, and the `name` of
            the field.

        Raises:
            TypeError: If `num_reevaluations` is not a whole number.
            ValueError: If `num_reevaluations` is not positive.

        >>> import jax, jax.numpy as jnp, zoo
        >>> def noisy(key, x):
        ...     return jnp.sum(x**2) + jax.random.normal(key)
        >>> result = zoo.run("snes", zoo.from_function(noisy, jnp.ones(3), takes_key=True), num_generations=50)
        >>> result.best_fitness < -1 < result.best().fitness
        True
        """
        num_reevaluations = as_count(num_reevaluations, "num_reevaluations")
        candidates = {"mean": self.mean, "best_solution": self.best_solution}
        return reevaluate(self.problem, self.problem_state, candidates, as_key(key), num_reevaluations)[0]

    def progress(self) -> tuple[Carry, Log]:
        """Returns the carry and the log from which a run with `start=` goes on."""
        carry = Carry(
            state=self.state,
            problem_state=self.problem_state,
            best_solution=self.best_solution,
            best_fitness=jnp.asarray(self.best_fitness, float),
            best_aux=self.best_aux,
            aux=self.aux,
            generation=jnp.asarray(self.num_generations, jnp.int32),
            steps=jnp.zeros((), jnp.int32),
            overshoot=jnp.zeros((), jnp.int32),
        )
        return carry, Log.from_curves(self.history, self.scores, self.seconds)

    def curve(self) -> "pd.DataFrame":
        """Returns the score curve as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.scores)

    def plot(self, x: Literal["steps", "generations", "seconds"] = "steps") -> "Figure":
        """Draws fitness in each generation, the score of the mean, and the state of the search.

        These are the numbers of `history` and `scores`. Numbers that a strategy does not have, such as the condition
        number of some, have no panel.

        Args:
            x: What the panels are drawn against. Fitness is not recorded against `"seconds"`.

        Returns:
            A matplotlib figure (`figure.savefig("run.png")`).

        Raises:
            ValueError: If `x` is something else.
        """
        from zoo.figures.run import plot_run

        if x not in ("steps", "generations", "seconds"):
            raise ValueError(f"RunResult.plot: x must be 'steps', 'generations' or 'seconds', got {x!r}.")
        names = f"{type(self.strategy).__name__} on {type(self.problem).__name__}"
        facts = {"maximize": self.problem.maximize, "title": f"{names}; ended by {self.stopped_by}"}
        return plot_run(self.history, self.scores, self.problem.headline, x=x, **facts)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves solutions, states, curves and settings to a folder. `zoo.load_run` reads them back.

        A run that is saved there is replaced as a whole: at any moment the folder holds the old run or the new one. If
        the old one is damaged, a warning names the damaged file.

        Raises:
            ValueError: If the folder cannot be written, or another process uses it.
        """
        import pandas as pd

        folder = as_folder(folder, "RunResult.save(folder)")
        frames = {
            "curve.csv": self.curve().to_csv(index=False),
            "history.csv": pd.DataFrame(self.history).to_csv(index_label="generation"),
        }
        facts = {
            **make_metadata(),
            "numbers": describe_numbers(),
            "call": self.call,
            "strategy": describe_settings(self.strategy),
            "problem": describe_settings(self.problem),
            "metrics": self.metrics,
            "best_fitness": self.best_fitness,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "overshoot": self.overshoot,
            "stopped_by": self.stopped_by,
        }
        trees = {name: jax.tree.leaves(getattr(self, name)) for name in TREES}
        parts = {name: functools.partial(_write_text, text) for name, text in frames.items()}
        with FolderLock(folder, "RunResult.save") as lock:
            lock.check_writable()
            _warn_if_damaged(folder)
            write_parts(folder, "run.json", facts, {**parts, ARRAYS: archive(trees)})


def _warn_if_damaged(folder: pathlib.Path) -> None:
    """Warns if the saved run in a folder is damaged, because the user may have wanted to look at it."""

    def open_all(_facts: dict[str, Any], digests: Mapping[str, str]) -> None:
        with damage_of(folder / "run.json"):
            for name, digest in digests.items():
                with opened(below(folder, name), digest):
                    pass

    try:
        read_parts(folder, "run.json", open_all)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        warnings.warn(f"{error} The run that was saved there is replaced.", stacklevel=3)


def _write_text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
