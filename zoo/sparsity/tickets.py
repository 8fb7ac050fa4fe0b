"""Lottery tickets: which weights of a network are kept, and from where they are trained.

A folder of tickets has `tickets.json` (what trained them on what, and their number), and for each criterion
`solution.npz` (the initial solutions) and `round_00.npz`, `round_01.npz`, ... with masks, means and statistics of all
seeds. All of these files have that number, so that those of other tickets are not taken for them.

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
        mask: Booleans in the structure of a solution: which weights are kept.
        solution: The initial solution, not masked, to which training is rewound.
        kept: Fraction of the prunable weights that are kept.
        mean: What training it came to, zero where pruned; `None` if it was not trained.
        statistics: The problem's statistics at the end of that, such as those of observations; `()` if none.
        metrics: The scores of the mean, by name.
        info: Where it comes from: `criterion`, and of a ladder `seed` and `round`.
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
        """Returns the ticket that the strategy `lottery` has found by now, for loops of one's own.

        Args:
            strategy: The strategy `lottery`.
            state: Its state.

        Raises:
            TypeError: If it is another strategy.
        """
        try:
            mask, solution, round = state.mask, state.solution, int(state.round)
            criterion, exclude = strategy.score, strategy.exclude  # pyright: ignore[reportAttributeAccessIssue]
        except AttributeError:
            raise TypeError(
                "Ticket.of expects the strategy 'lottery' and a state of it, got "
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
        """Trains the ticket: its weights alone, from its initial solution.

        Args:
            strategy: Any strategy, its id, or a dictionary of its id and settings. Gradient descent is
                `{"id": "bptt", "optimizer": "adam", "learning_rate": 1e-3, "population_size": 1}`.
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed.
            **options: Those of `zoo.run`, such as `num_generations`.

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
        """Returns the held-out score of the trained mean, or of the masked initial solution, by name.

        Args:
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed; the held-out data are those of a run with this key.
        """
        problem = as_problem(problem, self.statistics)
        _check_fits(self.mask, problem)
        solution = apply_mask(self.mask, self.solution) if self.mean is None else self.mean
        metrics = _score(problem, run_keys(as_key(key)).score, jax.tree.map(jnp.asarray, solution))
        return {name: float(value) for name, value in metrics.items()}

    @checks_arguments
    def permuted(self, key: int | jax.Array = 0, *, weights: bool = False) -> Self:
        """Returns the ticket with the mask permuted within each leaf, not trained: as many weights in every layer.

        Args:
            key: JAX random key, or a seed.
            weights: Whether the initial weights are permuted along with the mask: then only their places change.
        """
        leaves, structure = jax.tree.flatten(self.mask)
        keys = jax.random.split(as_key(key), len(leaves))
        orders = [jax.random.permutation(k, m.size) for k, m in zip(keys, leaves, strict=True)]
        orders = jax.tree.unflatten(structure, orders)

        def permute(x: Any, order: jax.Array) -> jax.Array:
            return jnp.asarray(x).ravel()[order].reshape(np.shape(x))

        mask = jax.tree.map(permute, self.mask, orders)
        if weights:  # biases, all kept, have no places of their own
            keeps_all = jax.tree.map(lambda m: bool(np.all(m)), self.mask)
            solution = jax.tree.map(
                lambda x, order, all: x if all else permute(x, order), self.solution, orders, keeps_all
            )
        else:
            solution = self.solution
        return self._untrained(mask=mask, solution=solution)

    def reinitialized(self, problem: ProblemLike, key: int | jax.Array = 0) -> Self:
        """Returns the ticket with other initial weights, those of a run with this key; not trained.

        Args:
            problem: A problem, its id, or a dictionary of its id and settings, with a network of the same shapes.
            key: JAX random key, or a seed.
        """
        problem = as_problem(problem)
        _check_fits(self.mask, problem)
        return self._untrained(solution=check_solution(problem.initial_solution(run_keys(as_key(key)).solution)))

    def layers(self, exclude: str | tuple[str, ...] = ()) -> dict[str, float]:
        """Returns the fraction that each prunable leaf keeps, by its path; `exclude` as in `lottery`."""
        chosen = jax.tree.leaves(prunable_leaves(self.solution, exclude))
        masks = jax.tree_util.tree_leaves_with_path(self.mask)
        return {
            leaf_name(path): float(np.mean(m)) for (path, m), is_chosen in zip(masks, chosen, strict=True) if is_chosen
        }

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the ticket to a folder, in place of one that is there; `zoo.load_ticket` reads it back.

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
    """A round of a ladder, all seeds: every array has a leading axis of seeds."""

    mask: Mask
    mean: Solution
    statistics: Any
    metrics: dict[str, np.ndarray]
    kept: float


class Tickets:
    """The tickets of `lottery_tickets`.

    Attributes:
        rounds: By criterion, a `Round` each.
        solutions: By criterion, the initial solutions, with a leading axis of seeds.
        metadata: JSON-able facts: strategy, problem and their settings, `headline`, `maximize`, and whatever decides
            the numbers.
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

    @property
    def criteria(self) -> list[str]:
        """The criteria by which was pruned."""
        return list(self.rounds)

    @functools.cached_property
    def frame(self) -> "pd.DataFrame":
        """Scores, tidy: a row per criterion, seed, round and metric, with `kept` and `value`."""
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
        """What each layer keeps, tidy: a row per criterion, seed, round and prunable leaf, with `layer_kept`."""
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
            criterion: By which it was pruned.
            seed: From 0.
            round: From 0, where all weights are kept; negative numbers count from the last one.

        Raises:
            KeyError: If there is none.
        """
        if criterion not in self.rounds:
            raise KeyError(f"No tickets by {criterion!r}; there are those by {', '.join(map(repr, self.rounds))}.")
        rounds = self.rounds[criterion]
        if not 0 <= seed < self.num_seeds or not -len(rounds) <= round < len(rounds):
            raise KeyError(
                f"No ticket of seed {seed} and round {round}; there are {self.num_seeds} seeds and {len(rounds)} "
                "rounds, counted from 0."
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
            info={"criterion": criterion, "seed": int(seed), "round": int(round)},  # which may be NumPy's
        )

    def summary(self) -> "pd.DataFrame":
        """Returns the headline score: a row per round with `kept`, a column per criterion, the mean over seeds."""
        rows = self.frame[self.frame.metric == self.metadata["headline"]]
        table = rows.pivot_table(
            index=["round", "kept"], columns="criterion", values="value", aggfunc="mean", sort=False
        )
        return table.sort_index()[self.criteria].reset_index().rename_axis(columns=None)

    def plot(self) -> "Figure":
        """Draws the headline score against the kept fraction; see `zoo.plot_ladder`."""
        from zoo.sparsity.plot import plot_ladder

        return plot_ladder(self.frame, metric=self.metadata["headline"], maximize=self.metadata["maximize"])

    def plot_layers(self) -> "Figure":
        """Draws what each layer keeps; see `zoo.plot_layers`."""
        from zoo.sparsity.plot import plot_layers

        return plot_layers(self.layers)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves the tickets to a folder, in place of those there; `zoo.load_tickets` reads them back.

        Raises:
            ValueError: If the folder cannot be written, another process is using it, or a criterion cannot be the name
                of a folder.
        """
        folder = as_folder(folder, "Tickets.save(folder)")
        number = fingerprint([self.metadata, [_digest(self.solutions), _digest(self.rounds)]])
        with FolderLock(folder, "Tickets.save") as lock:
            lock.check_writable()
            writes: dict[pathlib.Path, Write | None] = {}
            for criterion, rounds in self.rounds.items():
                place = make_below(folder, criterion)
                writes |= dict.fromkeys(_round_files(place))  # there may be more of them
                writes[place / "solution.npz"] = _solutions_archive(self.solutions[criterion], number)
                writes |= {_round_file(place, r): _round_archive(each, number) for r, each in enumerate(rounds)}
            with replaced_files(writes):
                save_metadata(folder, {**self.metadata, "criteria": self.criteria}, number)
            for criterion in self.rounds:
                remove(folder / criterion / "checkpoints")  # they are those of other tickets


@checks_arguments
def load_ticket(folder: str | pathlib.Path, problem: ProblemLike) -> Ticket:
    """Loads what `Ticket.save` saved.

    Args:
        folder: Where it is.
        problem: A problem or its id, whose network has the structure of the ticket's.

    Raises:
        FileNotFoundError: If there is no ticket.
        ValueError: If the problem's network has other shapes.
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
    """Loads the tickets that `lottery_tickets(out=...)` or `Tickets.save` saved, as far as there are.

    From a round that is damaged on, those of its criterion are left out, and one warning names it.

    Args:
        folder: Where they are.
        problem: A problem or its id, whose network has the structure of the tickets'.

    Raises:
        FileNotFoundError: If there are no tickets.
        ValueError: If the problem's network has other shapes, or `tickets.json` is damaged.
    """
    folder, problem = as_folder(folder, "load_tickets(folder)"), as_problem(problem)
    metadata, number = load_metadata(folder)
    while True:
        tickets, lost = _load_tickets(folder, problem, metadata, number)
        before = number
        metadata, number = load_metadata(folder)
        if number == before:  # nobody has put others there meanwhile
            break
    if lost:
        warnings.warn(f"Left out, with what follows on it: {named_once(lost)}", stacklevel=2)
    if not tickets.rounds:
        raise FileNotFoundError(f"No finished round of tickets in {folder}.")
    return tickets


def _load_tickets(
    folder: pathlib.Path, problem: Problem, metadata: dict[str, Any], number: str
) -> tuple[Tickets, list[DamagedError]]:
    """Returns the tickets of that number, and what is damaged."""
    lost: list[DamagedError] = []
    rounds, solutions = {}, {}
    for criterion in metadata["criteria"]:
        found = load_rounds(folder, criterion, problem, number, lost)
        solution = load_solutions(folder, criterion, problem, number, lost) if found else None
        if solution is not None:
            path = _round_file(folder / criterion, 0)
            if _num_seeds(found[0].mask) != _num_seeds(solution) or metadata["headline"] not in found[0].metrics:
                raise DamagedError(path, "it does not fit what is beside it.")
            rounds[criterion], solutions[criterion] = found, solution
    return Tickets(rounds, solutions, metadata), lost


def save_metadata(folder: pathlib.Path, metadata: dict[str, Any], number: str) -> None:
    """Writes the facts about a ladder, and the number that its files have."""
    write_json(folder / "tickets.json", {"number": number, **metadata})


def load_metadata(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Reads the facts about a ladder, and the number that its files have.

    Raises:
        FileNotFoundError: If there are none.
        DamagedError: If they are damaged, or something else.
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
    """Reads the initial solutions of a ladder, if they are there; damage is added to the list."""
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
    """Reads the rounds of a ladder, from the first one as far as they are there; damage is added to the list."""
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
                    raise ValueError("it has no score for each seed")
            rounds.append(Round(**_fit(path, stored, like, num_axes=1), metrics=metrics, kept=kept))
            if _num_seeds(rounds[-1]._replace(kept=())) != _num_seeds(rounds[0].mask):
                rounds.pop()
                raise DamagedError(path, "it is not of the same seeds as the others.")
    except DamagedError as error:
        damaged.append(error)
    return rounds


def _find(path: pathlib.Path, number: str) -> tuple[Any, dict[str, Any]] | None:
    """Returns what is in the file of that number, at its place or beside it; `None` if there is none."""
    damage: DamagedError | None = None
    for place in (path, beside(path)):
        try:
            stored, facts = load_archive(place)
            if facts.get("number") == number:
                return stored, facts
        except FileNotFoundError:
            continue
        except DamagedError as error:
            if place == path:  # beside it, whoever was killed may have left half a file
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
    """Returns what writes facts and pytrees, as lists of leaves: their structure is the problem's."""
    return archive({name: jax.tree.leaves(tree) for name, tree in trees.items()}, facts)


def _mask_like(solution: Solution) -> Mask:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, bool), solution)


def _fit(path: pathlib.Path, stored: Any, like: dict[str, Any], *, num_axes: int) -> dict[str, Any]:
    """Returns stored leaves as pytrees of the given structures, whose arrays have so many further leading axes.

    Raises:
        ValueError: If the number of leaves, a shape or the kind of a dtype differs.
    """
    trees = {}
    for name, tree in like.items():
        leaves = stored.get(name, []) if isinstance(stored, dict) else None
        if not isinstance(leaves, list) or not all(isinstance(x, np.ndarray) and x.ndim >= num_axes for x in leaves):
            raise DamagedError(path, f"it has no arrays of {name}.")
        expected, structure = jax.tree.flatten(tree)
        shapes, there = [np.shape(x) for x in expected], [x.shape[num_axes:] for x in leaves]
        kinds = [[_kind(x.dtype) for x in each] for each in (expected, leaves)]
        if shapes != there or kinds[0] != kinds[1]:
            raise ValueError(
                f"The tickets in {path.parent} are those of another network: the problem has {name} of shapes {shapes} "
                f"and kinds {kinds[0]}, in {path.name} there are {there} and {kinds[1]}. Load them with the problem "
                "that they were trained on."
            )
        trees[name] = jax.tree.unflatten(structure, leaves)
    return trees


def _num_seeds(tree: Any) -> set[int]:
    """Returns the lengths of the leading axes of all arrays, which should be one number."""
    return {len(x) for x in jax.tree.leaves(tree)}


def _kind(dtype: Any) -> str:
    """Returns what a number is, whatever its precision."""
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
            f"The ticket is one of a network of the shapes {shapes[0]}, this problem has {shapes[1]}. Give the problem "
            "a network of the same layers."
        )


@jax.jit
def _score(problem: Problem, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
    return problem.score(key, solution)
