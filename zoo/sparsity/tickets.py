"""Lottery tickets: the weights of a network that are kept, and the initial solution that they are trained from.

A folder of tickets has the file `tickets.json`, with the strategy, the problem and an identity number. For each
criterion it has `solution.npz`, the initial solutions, and `round_00.npz`, `round_01.npz`, ... with masks, means and
statistics of all seeds. Every file stores the identity number, so that files of other tickets are not mistaken for
these.

Reference: Lange, Sprekeler 2023, "Lottery Tickets in Evolutionary Optimization: On Sparse Backpropagation-Free
Trainability", arXiv 2306.00045; Frankle, Carbin 2019, "The Lottery Ticket Hypothesis", arXiv 1803.03635.
"""

import dataclasses
import functools
import hashlib
import pathlib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.keys import as_key
from zoo.core.leaves import leaf_name
from zoo.core.masks import Mask, apply_mask, kept_fraction, prunable_leaves
from zoo.core.problem import Problem
from zoo.core.short import short
from zoo.core.solution import Solution, check_solution
from zoo.core.strategy import Strategy
from zoo.figures.notebook import notebook_block, picture
from zoo.loop.archive import archive, load_archive
from zoo.loop.compiled import run_keys
from zoo.loop.files import (
    DamagedError,
    Write,
    as_folder,
    below,
    beside,
    checked,
    checked_name,
    damage_of,
    make_below,
    named_once,
    read_json,
    remove,
    replaced_files,
    write_file,
    write_json,
)
from zoo.loop.lock import FolderLock
from zoo.loop.provenance import fingerprint
from zoo.loop.result import RunResult
from zoo.loop.run import run
from zoo.registry import ProblemLike, StrategyLike, as_problem, make_strategy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A lottery ticket.

    Attributes:
        mask: Booleans in the structure of a solution, true where a weight is kept.
        solution: The initial solution, not masked. Training is rewound to it.
        kept: Fraction of the prunable weights that are kept.
        mean: The trained mean, zero where pruned. `None` if the ticket was not trained.
        statistics: The problem's statistics at the end of training, for example of observations. `()` if there are
            no statistics.
        metrics: The scores of the mean, by name.
        info: The origin of the ticket: `criterion`, and for a ladder `seed` and `round`.
    """

    mask: Mask
    solution: Solution
    kept: float
    mean: Solution | None = None
    statistics: Any = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, strategy: Strategy, state: Any) -> Self:
        """Returns the current ticket of the strategy `lottery`, for users who write their own loop.

        Args:
            strategy: The strategy `lottery`.
            state: Its state.

        Raises:
            TypeError: If `strategy` is another strategy, or `state` is not a state of `lottery`.
        """
        try:
            mask, solution, round = state.mask, state.solution, int(state.round)
            criterion, exclude = strategy.score, strategy.exclude  # pyright: ignore[reportAttributeAccessIssue]
        except AttributeError:
            raise TypeError(
                "Ticket.of expects the strategy 'lottery' and its state, got "
                f"{type(strategy).__name__} and {type(state).__name__}."
            ) from None
        kept = kept_fraction(mask, prunable_leaves(solution, exclude))
        info = {"criterion": criterion, "round": round}
        return cls(mask=mask, solution=solution, kept=kept, mean=strategy.mean(state), info=info)

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items()) or "not trained"
        return (
            f"<Ticket: {self.kept:.1%} of the weights kept; {short(self.info)}; {scores}\n"
            f"  solution: {short(self.solution)}>"
        )

    def train(
        self,
        strategy: StrategyLike,
        problem: ProblemLike,
        key: int | jax.Array = 0,
        **options: Any,
    ) -> RunResult:
        """Trains only the kept weights of the ticket, from its initial solution.

        Args:
            strategy: Any strategy, its id, or a dictionary of its id and settings. Gradient descent is
                `{"id": "bptt", "optimizer": "adam", "learning_rate": 1e-3, "population_size": 1}`.
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed.
            **options: Options of `zoo.run`, such as `num_generations`.

        Returns:
            A `RunResult`.

        Raises:
            ValueError: If the problem's network has other shapes.
        """
        problem = as_problem(problem)
        _check_fits(self.mask, problem)
        masked = make_strategy("masked", problem=problem, base=strategy, mask=self.mask)
        return run(masked, problem, key, solution=self.solution, **options)

    def evaluate(self, problem: ProblemLike, key: int | jax.Array = 0) -> dict[str, float]:
        """Returns the held-out scores of the trained mean, by name.

        If the ticket was not trained, scores the masked initial solution.

        Args:
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed. The held-out data are the data of a run with this key.
        """
        problem = as_problem(problem, self.statistics)
        _check_fits(self.mask, problem)
        solution = apply_mask(self.mask, self.solution) if self.mean is None else self.mean
        metrics = _score(problem, run_keys(as_key(key)).score, jax.tree.map(jnp.asarray, solution))
        return {name: float(value) for name, value in metrics.items()}

    @checks_arguments
    def permuted(self, key: int | jax.Array = 0, *, weights: bool = False) -> Self:
        """Returns the ticket with the mask permuted within each leaf, not trained.

        Every layer keeps the same number of weights.

        Args:
            key: JAX random key, or a seed.
            weights: Whether to permute the initial weights together with the mask. If true, the kept weights have the
                same values and only their places change.
        """
        leaves, structure = jax.tree.flatten(self.mask)
        keys = jax.random.split(as_key(key), len(leaves))
        orders = [jax.random.permutation(k, m.size) for k, m in zip(keys, leaves, strict=True)]
        orders = jax.tree.unflatten(structure, orders)

        def permute(x: Any, order: jax.Array) -> jax.Array:
            return jnp.asarray(x).ravel()[order].reshape(np.shape(x))

        mask = jax.tree.map(permute, self.mask, orders)
        if weights:  # leaves that are kept whole, such as biases, stay as they are
            keeps_all = jax.tree.map(lambda m: bool(np.all(m)), self.mask)
            solution = jax.tree.map(
                lambda x, order, all: x if all else permute(x, order), self.solution, orders, keeps_all
            )
        else:
            solution = self.solution
        return self._untrained(mask=mask, solution=solution)

    def reinitialized(self, problem: ProblemLike, key: int | jax.Array = 0) -> Self:
        """Returns the ticket with the initial weights of a run with this key, not trained.

        Args:
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed.
        """
        problem = as_problem(problem)
        _check_fits(self.mask, problem)
        return self._untrained(solution=check_solution(problem.initial_solution(run_keys(as_key(key)).solution)))

    def layers(self, exclude: str | tuple[str, ...] = ()) -> dict[str, float]:
        """Returns the fraction that each prunable leaf keeps, by its path. `exclude` works as in `lottery`."""
        chosen = jax.tree.leaves(prunable_leaves(self.solution, exclude))
        masks = jax.tree_util.tree_leaves_with_path(self.mask)
        return {
            leaf_name(path): float(np.mean(m)) for (path, m), is_chosen in zip(masks, chosen, strict=True) if is_chosen
        }

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the ticket to a folder, replacing any ticket there. `zoo.load_ticket` reads it back.

        Raises:
            ValueError: If the folder cannot be written, or another process is using it.
        """
        folder = as_folder(folder, "Ticket.save(folder)")
        facts = {"kept": self.kept, "metrics": self.metrics, "info": self.info, "is_trained": self.mean is not None}
        trees = {"mask": self.mask, "solution": self.solution, "mean": self.mean, "statistics": self.statistics}
        with FolderLock(folder, "Ticket.save") as lock:
            lock.check_writable()
            write_file(folder / "ticket.npz", _archive(facts, trees))

    def _untrained(self, **changes: Any) -> Self:
        return dataclasses.replace(self, mean=None, statistics=(), metrics={}, **changes)


class Round(NamedTuple):
    """A round of a ladder. Every array has a leading axis of seeds."""

    mask: Mask
    mean: Solution
    statistics: Any
    metrics: dict[str, np.ndarray]
    kept: float


class Tickets:
    """The tickets of `lottery_tickets`.

    Attributes:
        rounds: Lists of `Round`, by criterion.
        solutions: Initial solutions with a leading axis of seeds, by criterion.
        metadata: JSON-able facts: the strategy, the problem, their settings, `headline`, `maximize`, and everything
            else that decides the numbers.
    """

    def __init__(self, rounds: dict[str, list[Round]], solutions: dict[str, Solution], metadata: dict[str, Any]):
        self.rounds = rounds
        self.solutions = solutions
        self.metadata = metadata

    def __repr__(self) -> str:
        lines = [f"<Tickets: {self.metadata['num_seeds']} seeds"]
        for criterion, rounds in self.rounds.items():
            kept = f", down to {rounds[-1].kept:.1%} of the weights" if rounds else ""
            lines.append(f"{criterion}: {len(rounds)} rounds{kept}")
        return "\n  ".join(lines) + ">"

    def _repr_html_(self) -> str:
        return notebook_block(repr(self), self._html_table, lambda: picture(self.plot()))

    def _html_table(self) -> str:
        from zoo.reports.grids import frame_grid, html_table

        return html_table(frame_grid(self.summary()))

    @property
    def criteria(self) -> list[str]:
        """The criteria that the tickets were pruned by."""
        return list(self.rounds)

    @functools.cached_property
    def frame(self) -> "pd.DataFrame":
        """Tidy scores: a row per criterion, seed, round and metric, with `kept` and `value`."""
        import pandas as pd

        rows = [
            {"criterion": c, "seed": seed, "round": r, "kept": each.kept, "metric": name, "value": float(value)}
            for c, rounds in self.rounds.items()
            for r, each in enumerate(rounds)
            for name, values in each.metrics.items()
            for seed, value in enumerate(values)
        ]
        return pd.DataFrame(rows)

    @functools.cached_property
    def layers(self) -> "pd.DataFrame":
        """Tidy fractions that layers keep: a row per criterion, seed, round and prunable leaf, with `layer_kept`."""
        import pandas as pd

        rows = []
        for criterion, rounds in self.rounds.items():
            for r in range(len(rounds)):
                for seed in range(self.num_seeds):
                    ticket = self.ticket(criterion, seed=seed, round=r)
                    labels = {"criterion": criterion, "seed": seed, "round": r, "kept": ticket.kept}
                    each = ticket.layers(tuple(self.metadata.get("exclude", ())))
                    rows += [{**labels, "layer": name, "layer_kept": kept} for name, kept in each.items()]
        return pd.DataFrame(rows)

    @property
    def num_seeds(self) -> int:
        """Number of seeds."""
        return len(jax.tree.leaves(next(iter(self.solutions.values())))[0])

    def ticket(self, criterion: str, *, seed: int = 0, round: int = -1) -> Ticket:
        """Returns one ticket.

        Args:
            criterion: Criterion that it was pruned by.
            seed: Number of the seed, counted from 0.
            round: Number of the round, counted from 0. Round 0 keeps all weights. Negative numbers count from the end.

        Raises:
            KeyError: If there is no such ticket.
        """
        if criterion not in self.rounds:
            raise KeyError(f"criterion must be one of {', '.join(map(repr, self.rounds))}, got {criterion!r}.")
        rounds = self.rounds[criterion]
        if not 0 <= seed < self.num_seeds or not -len(rounds) <= round < len(rounds):
            raise KeyError(
                f"There is no ticket with seed {seed} and round {round}. There are {self.num_seeds} seeds and "
                f"{len(rounds)} rounds, counted from 0."
            )
        round %= len(rounds)
        mask, mean, statistics, metrics, kept = rounds[round]

        def of_seed(tree: Any) -> Any:
            return jax.tree.map(lambda x: x[seed], tree)

        return Ticket(
            mask=of_seed(mask),
            solution=of_seed(self.solutions[criterion]),
            kept=kept,
            mean=of_seed(mean),
            statistics=of_seed(statistics),
            metrics={name: float(values[seed]) for name, values in metrics.items()},
            info={"criterion": criterion, "seed": int(seed), "round": int(round)},  # they may be NumPy integers
        )

    def summary(self) -> "pd.DataFrame":
        """Returns mean headline scores over seeds: a row per round, with `kept` and a column per criterion."""
        rows = self.frame[self.frame.metric == self.metadata["headline"]]
        table = rows.pivot_table(
            index=["round", "kept"], columns="criterion", values="value", aggfunc="mean", sort=False
        )
        return table.sort_index()[self.criteria].reset_index().rename_axis(columns=None)

    def plot(self) -> "Figure":
        """Draws the headline score against the kept fraction. See `zoo.plot_ladder`."""
        from zoo.sparsity.plot import plot_ladder

        return plot_ladder(self.frame, metric=self.metadata["headline"], maximize=self.metadata["maximize"])

    def plot_layers(self) -> "Figure":
        """Draws the fraction that each layer keeps. See `zoo.plot_layers`."""
        from zoo.sparsity.plot import plot_layers

        return plot_layers(self.layers)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the tickets to a folder, replacing any tickets there. `zoo.load_tickets` reads them back.

        Raises:
            ValueError: If the folder cannot be written, if another process is using it, or if a criterion cannot be the
                name of a folder.
        """
        folder = as_folder(folder, "Tickets.save(folder)")
        number = fingerprint([self.metadata, [_digest(self.solutions), _digest(self.rounds)]])
        with FolderLock(folder, "Tickets.save") as lock:
            lock.check_writable()
            writes: dict[pathlib.Path, Write | None] = {}
            for criterion, rounds in self.rounds.items():
                place = make_below(folder, criterion)
                writes |= dict.fromkeys(_round_files(place))  # the old ladder may have more rounds
                writes[place / "solution.npz"] = _solutions_archive(self.solutions[criterion], number)
                writes |= {_round_file(place, r): _round_archive(each, number) for r, each in enumerate(rounds)}
            with replaced_files(writes):
                save_metadata(folder, {**self.metadata, "criteria": self.criteria}, number)
            for criterion in self.rounds:
                remove(folder / criterion / "checkpoints")  # they belong to the old tickets


@checks_arguments
def load_ticket(folder: str | pathlib.Path, problem: ProblemLike) -> Ticket:
    """Loads a ticket that `Ticket.save` saved.

    Args:
        folder: Folder of the ticket.
        problem: A problem or its id. Its network must have the structure of the ticket.

    Raises:
        FileNotFoundError: If there is no ticket in the folder.
        ValueError: If the problem's network has other shapes, or the file is damaged.
    """
    folder, problem = as_folder(folder, "load_ticket(folder)"), as_problem(problem)
    path = folder / "ticket.npz"
    try:
        stored, facts = load_archive(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There are no lottery tickets in {folder}: no {path.name} is there.") from None
    with damage_of(path):
        kept, metrics, info, is_trained = checked(facts, kept=float, metrics=dict, info=dict, is_trained=bool)
        checked(metrics, **dict.fromkeys(metrics, float))
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    like = {"mask": _mask_like(solution), "solution": solution, "mean": None, "statistics": ()}
    if is_trained:
        like |= {"mean": solution, "statistics": jax.eval_shape(problem.init_statistics)}
    trees = _fit(path, stored, like, num_axes=0)
    return Ticket(kept=kept, metrics=metrics, info=info, **trees)


@checks_arguments
def load_tickets(folder: str | pathlib.Path, problem: ProblemLike) -> Tickets:
    """Loads the finished rounds that `lottery_tickets(out=...)` or `Tickets.save` saved.

    If a round is damaged, leaves out this round and all later rounds of its criterion, and warns with its name.

    Args:
        folder: Folder of the tickets.
        problem: A problem or its id. Its network must have the structure of the tickets.

    Raises:
        FileNotFoundError: If there are no tickets in the folder.
        ValueError: If the problem's network has other shapes, or `tickets.json` is damaged.
    """
    folder, problem = as_folder(folder, "load_tickets(folder)"), as_problem(problem)
    metadata, number = load_metadata(folder)
    while True:
        tickets, lost = _load_tickets(folder, problem, metadata, number)
        before = number
        metadata, number = load_metadata(folder)
        if number == before:  # no other tickets were saved there meanwhile
            break
    if lost:
        warnings.warn(f"Leaving out damaged rounds and all rounds after them: {named_once(lost)}", stacklevel=2)
    if not tickets.rounds:
        raise FileNotFoundError(f"There is no finished round of tickets in {folder}.")
    return tickets


def _load_tickets(
    folder: pathlib.Path, problem: Problem, metadata: dict[str, Any], number: str
) -> tuple[Tickets, list[DamagedError]]:
    """Returns the tickets with this identity number, and the damage that was found."""
    lost: list[DamagedError] = []
    rounds, solutions = {}, {}
    for criterion in metadata["criteria"]:
        found = load_rounds(folder, criterion, problem, number, lost)
        solution = load_solutions(folder, criterion, problem, number, lost) if found else None
        if solution is not None:
            path = _round_file(folder / criterion, 0)
            if _num_seeds(found[0].mask) != _num_seeds(solution) or metadata["headline"] not in found[0].metrics:
                raise DamagedError(path, "it does not fit the other files.")
            rounds[criterion], solutions[criterion] = found, solution
    return Tickets(rounds, solutions, metadata), lost


def save_metadata(folder: pathlib.Path, metadata: dict[str, Any], number: str) -> None:
    """Writes the metadata of a ladder, and the identity number of its files."""
    write_json(folder / "tickets.json", {"number": number, **metadata})


def load_metadata(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Reads the metadata of a ladder, and the identity number of its files.

    Raises:
        FileNotFoundError: If there is no metadata.
        DamagedError: If the file is damaged, or holds something else.
    """
    path = folder / "tickets.json"
    try:
        metadata = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There are no lottery tickets in {folder}: no {path.name} is there.") from None
    with damage_of(path):
        criteria, number = checked(metadata, criteria=list, number=str)
        for criterion in criteria:
            checked_name(criterion)
        checked(metadata, headline=str, maximize=bool)
    del metadata["number"]
    return metadata, number


def save_solutions(folder: pathlib.Path, criterion: str, solutions: Solution, number: str) -> None:
    """Writes the initial solutions of a ladder."""
    write_file(make_below(folder, criterion) / "solution.npz", _solutions_archive(solutions, number))


def save_round(folder: pathlib.Path, criterion: str, round: int, each: Round, number: str) -> None:
    """Writes a round of a ladder."""
    write_file(_round_file(make_below(folder, criterion), round), _round_archive(each, number))


def load_solutions(
    folder: pathlib.Path, criterion: str, problem: Problem, number: str, damaged: list[DamagedError]
) -> Solution | None:
    """Reads the initial solutions of a ladder. Returns `None` if they are missing, and adds damage to the list."""
    try:
        path = below(folder, criterion) / "solution.npz"
        if (found := _find(path, number)) is None:
            return None
        like = {"solution": jax.eval_shape(problem.initial_solution, jax.random.key(0))}
        return _fit(path, found[0], like, num_axes=1)["solution"]
    except DamagedError as error:
        damaged.append(error)
        return None


def load_rounds(
    folder: pathlib.Path, criterion: str, problem: Problem, number: str, damaged: list[DamagedError]
) -> list[Round]:
    """Reads the rounds of a ladder up to the first one that is missing, and adds damage to the list."""
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    like = {"mask": _mask_like(solution), "mean": solution, "statistics": jax.eval_shape(problem.init_statistics)}
    rounds: list[Round] = []
    try:
        place = below(folder, criterion)
        while (found := _find(path := _round_file(place, len(rounds)), number)) is not None:
            stored, facts = found
            with damage_of(path):
                kept, metrics = checked(facts, kept=float, metrics=dict)
                metrics = {name: np.asarray(values, float) for name, values in metrics.items()}
                if any(values.ndim != 1 for values in metrics.values()):
                    raise ValueError("it does not have one score per seed")
            rounds.append(Round(**_fit(path, stored, like, num_axes=1), metrics=metrics, kept=kept))
            if _num_seeds(rounds[-1]._replace(kept=())) != _num_seeds(rounds[0].mask):
                rounds.pop()
                raise DamagedError(path, "its number of seeds differs from the other rounds.")
    except DamagedError as error:
        damaged.append(error)
    return rounds


def _find(path: pathlib.Path, number: str) -> tuple[Any, dict[str, Any]] | None:
    """Returns the contents of the file with this number, at its place or beside it, or `None` if it is missing."""
    damage: DamagedError | None = None
    for place in (path, beside(path)):
        try:
            stored, facts = load_archive(place)
            if facts.get("number") == number:
                return stored, facts
        except FileNotFoundError:
            continue
        except DamagedError as error:
            if place == path:  # a process that was killed may have left half a file beside it
                damage = error
    if damage is not None:
        raise damage
    return None


def _round_file(folder: pathlib.Path, round: int) -> pathlib.Path:
    return folder / f"round_{round:02d}.npz"


def _round_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.glob("round_*.npz"))


def _round_archive(each: Round, number: str) -> Write:
    metrics = {name: np.asarray(x, float).tolist() for name, x in each.metrics.items()}
    trees = {"mask": each.mask, "mean": each.mean, "statistics": each.statistics}
    return _archive({"number": number, "kept": each.kept, "metrics": metrics}, trees)


def _solutions_archive(solutions: Solution, number: str) -> Write:
    return _archive({"number": number}, {"solution": solutions})


def _archive(facts: dict[str, Any], trees: dict[str, Any]) -> Write:
    """Returns a function that writes facts and pytrees. Stores only their leaves: the problem has their structure."""
    return archive({name: jax.tree.leaves(tree) for name, tree in trees.items()}, facts)


def _mask_like(solution: Solution) -> Mask:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, bool), solution)


def _fit(path: pathlib.Path, stored: Any, like: dict[str, Any], *, num_axes: int) -> dict[str, Any]:
    """Returns stored leaves as pytrees of the given structures, with `num_axes` additional leading axes.

    Raises:
        ValueError: If the number of leaves, a shape or the kind of a dtype differs.
    """
    trees = {}
    for name, tree in like.items():
        leaves = stored.get(name, []) if isinstance(stored, dict) else None
        if not isinstance(leaves, list) or not all(isinstance(x, np.ndarray) and x.ndim >= num_axes for x in leaves):
            raise DamagedError(path, f"it has no arrays for {name}.")
        expected, structure = jax.tree.flatten(tree)
        shapes, there = [np.shape(x) for x in expected], [x.shape[num_axes:] for x in leaves]
        kinds = [[_kind(x.dtype) for x in each] for each in (expected, leaves)]
        if shapes != there or kinds[0] != kinds[1]:
            raise ValueError(
                f"The tickets in {path.parent} belong to another network: {path.name} has arrays of shapes {there} and "
                f"kinds {kinds[1]}, but the {name} of this problem has shapes {shapes} and kinds {kinds[0]}. Load them "
                "with the problem that they were trained on."
            )
        trees[name] = jax.tree.unflatten(structure, leaves)
    return trees


def _num_seeds(tree: Any) -> set[int]:
    """Returns the set of lengths of the leading axes of all arrays. It has one element if they agree."""
    return {len(x) for x in jax.tree.leaves(tree)}


def _kind(dtype: Any) -> str:
    """Returns the kind of a dtype, without its precision."""
    kinds = {"bool": jnp.bool_, "integer": jnp.integer, "real": jnp.floating, "complex": jnp.complexfloating}
    return next(name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind))


def _digest(tree: Any) -> str:
    """Returns a hash of all arrays of a pytree."""
    digest = hashlib.sha256()
    for x in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return digest.hexdigest()


def _check_fits(mask: Mask, problem: Problem) -> None:
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    shapes = [
        {leaf_name(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (mask, solution)
    ]
    if jax.tree.structure(mask) != jax.tree.structure(solution) or shapes[0] != shapes[1]:
        raise ValueError(
            f"The ticket's network has shapes {shapes[0]}, but this problem's has {shapes[1]}. Give the problem a "
            "network with the same layers."
        )


@jax.jit
def _score(problem: Problem, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
    return problem.score(key, solution)
