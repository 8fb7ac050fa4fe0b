"""The ladder of lottery tickets: rounds of training, pruning and rewinding, for several criteria and seeds."""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, shown
from zoo.core.keys import as_key
from zoo.core.masks import kept_fraction, prunable_leaves
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop import compiled
from zoo.loop.budget import Budget
from zoo.loop.checkpoint import drop_checkpoints
from zoo.loop.drive import Options, drive
from zoo.loop.files import DamagedError, as_folder, below, make_below, named_once
from zoo.loop.identity import Identity, identify
from zoo.loop.lock import FolderLock
from zoo.loop.provenance import describe_key, describe_settings, fingerprint, make_metadata
from zoo.registry import ProblemLike, StrategyLike, as_problem, make_strategy
from zoo.sparsity.tickets import (
    Round,
    Tickets,
    load_metadata,
    load_rounds,
    load_solutions,
    save_metadata,
    save_round,
    save_solutions,
)


@jax.transfer_guard("allow")
@checks_arguments
def lottery_tickets(
    strategy: StrategyLike,
    problem: ProblemLike,
    key: int | jax.Array = 0,
    *,
    criteria: Sequence[str] = ("snr", "magnitude", "random"),
    num_seeds: int = 5,
    num_rounds: int = 20,
    generations_per_round: int = 300,
    prune_fraction: float = 0.2,
    exclude: str | tuple[str, ...] = (),
    weight_decay: float = 0.0,
    out: str | pathlib.Path | None = None,
    accept_versions: bool = False,
    progress: bool = True,
) -> Tickets:
    """Finds lottery tickets: trains, prunes and rewinds in rounds, with all seeds in one compiled program.

    The problem's statistics, for example of observations, are kept from round to round.

    Args:
        strategy: The strategy that trains: a strategy, its id, or a dictionary of its id and settings. For an id or a
            dictionary, the problem's suggestions fill in the settings that are not given.
        problem: A problem or its id.
        key: JAX random key, or a seed. Seed i has the same initial solution and held-out data for every criterion.
        criteria: Criteria to prune by: `"snr"`, `"magnitude"`, `"random"`. See the strategy `lottery`.
        num_seeds: Number of seeds per criterion.
        num_rounds: Number of rounds of training. The first round keeps all weights.
        generations_per_round: Number of generations in each round.
        prune_fraction: Fraction of the remaining weights that is pruned between two rounds.
        exclude: Leaves that are never pruned, as in `lottery`. Biases are never pruned either.
        weight_decay: Weight decay, as in `lottery`.
        out: Folder that each round is saved to. Rounds that are finished there are not computed again: an interrupted
            ladder resumes exactly, and a ladder with more rounds or criteria continues. A damaged round is computed
            again, and a warning names it. Only one process at a time may use the folder.
        accept_versions: Whether to continue from results that another version of the zoo or of JAX computed, or code
            that cannot be compared.
        progress: Whether to show progress bars.

    Returns:
        `Tickets`.

    Raises:
        ValueError: If a setting is invalid, or the folder has tickets of other settings, cannot be written, or is in
            use.
        TypeError: If the strategy does not fit the problem.

    References:
        Lange, Sprekeler 2023, arXiv 2306.00045.

    >>> import zoo
    >>> problem = zoo.make_problem("supervised/digits", hidden=(4,))
    >>> tickets = zoo.lottery_tickets(
    ...     {"id": "snes", "population_size": 16}, problem, criteria=["snr"], num_seeds=2, num_rounds=3,
    ...     generations_per_round=5, progress=False,
    ... )
    >>> [round(float(kept), 2) for kept in tickets.summary().kept]
    [1.0, 0.8, 0.64]
    >>> result = tickets.ticket("snr", seed=1).train("pgpe", problem, num_generations=5)
    """
    problem = as_problem(problem)
    if not isinstance(criteria, Iterable):
        raise TypeError(f"criteria must be names such as 'snr', got {shown(criteria)}.")
    criteria = [criteria] if isinstance(criteria, str) else list(criteria)
    for name, value in (("num_seeds", num_seeds), ("num_rounds", num_rounds)):
        as_count(value, name)
    if not criteria or len(set(criteria)) < len(criteria):
        raise ValueError(f"criteria must be at least one criterion, each given once, got {criteria}.")
    key = as_key(key)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_seeds))
    settings = {
        "base": strategy,
        "generations_per_round": generations_per_round,
        "prune_fraction": prune_fraction,
        "exclude": exclude,
        "weight_decay": weight_decay,
    }
    # Makes all strategies and traces a generation before anything runs or is written, so that a mistake shows at once.
    lotteries: dict[str, Any] = {c: make_strategy("lottery", problem=problem, score=c, **settings) for c in criteria}
    jax.eval_shape(_first_generation, lotteries[criteria[0]], problem, keys[0])
    facts = {"key": describe_key(key), "num_seeds": int(num_seeds)}
    lottery = next(iter(lotteries.values()))
    identity = identify(lottery.replace(score="snr"), problem, **facts)  # the same for all criteria
    metadata = {
        **make_metadata(),
        "identity": identity.facts(),
        "strategy_settings": {**describe_settings(lottery), "score": None},
        "problem_settings": describe_settings(problem),
        **facts,
        "criteria": criteria,
        "exclude": list(lotteries[criteria[0]].exclude),
        "headline": problem.headline,
        "maximize": problem.maximize,
    }
    # Absolute, because a problem may change the working directory.
    folder = None if out is None else as_folder(out, "lottery_tickets(out=...)").absolute()
    budget = Budget.make(problem, num_rounds * lotteries[criteria[0]].generations_per_round, None, num_rounds)
    rounds, solutions = {}, {}
    with contextlib.ExitStack() as stack:
        there: dict[str, _Folder] = {}
        if folder is not None:
            lock = stack.enter_context(FolderLock(folder, "lottery_tickets(out=...)"))
            metadata, there = _join_folder(folder, metadata, identity, problem, lock, accept_versions=accept_versions)
            if any(len(each.rounds) < num_rounds for each in there.values()):
                lock.check_writable()
        for count, (criterion, lottery) in enumerate(lotteries.items(), 1):
            title = f"tickets by {criterion} ({count}/{len(criteria)})" if progress else None
            saved = there.get(criterion)
            climbed = _climb(lottery, problem, keys, budget, saved, title, accept_versions=accept_versions)
            rounds[criterion], solutions[criterion] = climbed
    return Tickets(rounds, solutions, metadata)


@dataclasses.dataclass
class _Folder:
    """The folder that a criterion is saved to, and the rounds that are saved there already."""

    folder: pathlib.Path  # of the ladder
    criterion: str
    number: str
    rounds: list[Round]
    has_solutions: bool
    is_writable: bool

    @property
    def checkpoints(self) -> pathlib.Path:
        names = (self.criterion, "checkpoints")
        return make_below(self.folder, *names) if self.is_writable else below(self.folder, *names)

    def save_solutions(self, solutions: Any) -> None:
        """Saves the initial solutions, unless they are saved already."""
        if not self.has_solutions and self.is_writable:
            save_solutions(self.folder, self.criterion, solutions, self.number)
            self.has_solutions = True

    def save_round(self, round: int, each: Round) -> None:
        save_round(self.folder, self.criterion, round, each, self.number)


def _climb(
    lottery: Any,
    problem: Problem,
    keys: jax.Array,
    budget: Budget,
    there: _Folder | None,
    title: str | None,
    *,
    accept_versions: bool,
) -> tuple[list[Round], Any]:
    """Returns the rounds of one criterion, and the initial solutions."""
    rounds = [] if there is None else there.rounds
    if there is not None and there.is_writable:
        # Missing rounds are run again, from a checkpoint before them or from the beginning.
        drop_checkpoints(there.checkpoints, after=len(rounds) * lottery.generations_per_round)

    def observe(carry: compiled.Carry, metrics: dict[str, jax.Array]) -> None:
        state, number = carry.state, int(carry.state.round[0])
        arrays = (state.mask, jax.vmap(lottery.mean)(state), carry.problem_state.statistics, metrics)
        first = jax.tree.map(lambda x: x[0], state.mask)  # the other seeds keep the same number
        kept = kept_fraction(first, prunable_leaves(first, lottery.exclude))
        each = Round(*jax.device_get(arrays), kept=kept)
        # Later rounds may be there already, from before an interruption.
        rounds[number : number + 1] = [each]
        if there is not None:
            there.save_solutions(state.solution)
            there.save_round(number, each)

    checkpoint = None if there is None else there.checkpoints
    options = Options(
        budget=budget,
        observe=observe,
        checkpoint=checkpoint,
        accept_versions=accept_versions,
        may_be_longer=True,  # only the rounds asked for are returned
        progress=title,
    )
    outcome = drive(lottery, problem, keys, options)
    solutions = jax.device_get(outcome.carry.state.solution)
    if there is not None:
        there.save_solutions(solutions)
    return rounds[: len(budget.limits)], solutions


def _first_generation(lottery: Strategy, problem: Problem, key: jax.Array) -> Any:
    keys, carry = compiled.start(lottery, problem, key, None, batched=False)
    return compiled.generation(lottery, problem, carry, compiled.generation_keys(keys.generations, 0))


def _join_folder(
    folder: pathlib.Path,
    metadata: dict[str, Any],
    identity: Identity,
    problem: Problem,
    lock: FolderLock,
    *,
    accept_versions: bool,
) -> tuple[dict[str, Any], dict[str, _Folder]]:
    """Writes the metadata into the folder, together with the criteria that are saved there already.

    Raises:
        ValueError: If the folder has tickets of another ladder, or files that are not tickets.
    """
    damaged: list[DamagedError] = []
    number, criteria = fingerprint(identity.facts()), metadata["criteria"]
    facts = None
    try:
        facts, number = load_metadata(folder)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        damaged.append(error)
    if facts is not None:
        complaint = f"The tickets in {folder} belong to another ladder"
        identity.check(facts.get("identity"), complaint, accept_versions=accept_versions)
        criteria_there = list(dict.fromkeys([*facts["criteria"], *criteria]))
        metadata = {**metadata, "date": facts.get("date"), "criteria": criteria_there}
    there = {}
    for criterion in criteria:
        rounds = load_rounds(folder, criterion, problem, number, damaged)
        solutions = load_solutions(folder, criterion, problem, number, damaged)
        there[criterion] = _Folder(folder, criterion, number, rounds, solutions is not None, lock.is_writable)
    if facts is None and damaged and not any(each.rounds for each in there.values()):
        raise ValueError(
            f"{damaged[0]} Or it was not written by es-zoo. Choose another folder, or delete this one to start again."
        )
    if damaged:
        warnings.warn(f"Computing the missing rounds again: {named_once(damaged)}", stacklevel=3)
    if lock.is_writable:
        save_metadata(folder, metadata, number)
    return metadata, there
