"""The ladder of lottery tickets: train, prune, rewind, round by round, for several criteria and seeds."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from zoo.core.keys import as_key
from zoo.core.masks import kept_fraction, prunable_leaves
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop import compiled
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive
from zoo.loop.identity import Identity, identify
from zoo.loop.provenance import describe_key, describe_settings, make_metadata
from zoo.registry import as_problem, make_strategy
from zoo.sparsity.tickets import Round, Tickets, load_metadata, load_rounds, save_metadata, save_round, save_solutions


def lottery_tickets(
    strategy: str | Strategy | dict[str, Any],
    problem: str | Problem,
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
    """Finds lottery tickets: trains, prunes and rewinds round by round, with all seeds in one compiled program.

    What the problem gathers over all members, such as observation statistics, goes on from round to round.

    Args:
        strategy: What trains: a strategy, its id, or a dictionary of its id and settings. What is left open of the
            latter is filled in from the problem's suggestions.
        problem: A problem or its id.
        key: JAX random key, or a seed. Seed i is the same initial solution and held-out data for every criterion.
        criteria: By what to prune: `"snr"`, `"magnitude"`, `"random"`; see the strategy `lottery`.
        num_seeds: Seeds per criterion.
        num_rounds: Rounds of training; all weights are kept in the first one.
        generations_per_round: Generations in each.
        prune_fraction: The fraction of what is left that goes between two rounds.
        exclude: Leaves that are never pruned, as in `lottery`; biases never are.
        weight_decay: As in `lottery`.
        out: Folder that each round is saved to. What is finished there is not computed again: an interrupted ladder
            resumes exactly, and one of more rounds or criteria goes on.
        accept_versions: Whether to go on from what other versions of the zoo or of JAX computed, or code that cannot be
            compared.
        progress: Whether to show progress bars.

    Returns:
        `Tickets`.

    Raises:
        ValueError: If a setting is invalid, or the folder has tickets of other settings.
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
    criteria = [criteria] if isinstance(criteria, str) else list(criteria)
    for name, value in (("num_seeds", num_seeds), ("num_rounds", num_rounds)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    if not criteria or len(set(criteria)) < len(criteria):
        raise ValueError(f"lottery_tickets expects at least one criterion, and none of them twice, got {criteria}.")
    key = as_key(key)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_seeds))
    settings = {
        "base": strategy,
        "generations_per_round": generations_per_round,
        "prune_fraction": prune_fraction,
        "exclude": exclude,
        "weight_decay": weight_decay,
    }
    # All are made, and a generation is traced, before anything runs or is written, so that a mistake shows at once.
    lotteries: dict[str, Any] = {c: make_strategy("lottery", problem=problem, score=c, **settings) for c in criteria}
    jax.eval_shape(_first_generation, lotteries[criteria[0]], problem, keys[0])
    facts = {"key": describe_key(key), "num_seeds": int(num_seeds)}
    lottery = next(iter(lotteries.values()))
    identity = identify(lottery.replace(score="snr"), problem, **facts)  # for all criteria
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
    folder = None if out is None else pathlib.Path(out)
    if folder is not None:
        metadata = _join_folder(folder, metadata, identity, accept_versions=accept_versions)
    budget = Budget.make(problem, num_rounds * lotteries[criteria[0]].generations_per_round, None, num_rounds)
    rounds, solutions = {}, {}
    for number, (criterion, lottery) in enumerate(lotteries.items(), 1):
        title = f"tickets by {criterion} ({number}/{len(criteria)})" if progress else None
        rounds[criterion], solutions[criterion] = _climb(
            lottery, problem, keys, budget, criterion, folder, title, accept_versions=accept_versions
        )
    return Tickets(rounds, solutions, metadata)


def _climb(
    lottery: Any,
    problem: Problem,
    keys: jax.Array,
    budget: Budget,
    criterion: str,
    folder: pathlib.Path | None,
    title: str | None,
    *,
    accept_versions: bool,
) -> tuple[list[Round], Any]:
    """Returns the rounds of one criterion, and the initial solutions."""
    rounds = [] if folder is None else load_rounds(folder, criterion, problem)

    def observe(carry: compiled.Carry, metrics: dict[str, jax.Array]) -> None:
        state, number = carry.state, int(carry.state.round[0])
        arrays = (state.mask, jax.vmap(lottery.mean)(state), carry.problem_state.statistics, metrics)
        first = jax.tree.map(lambda x: x[0], state.mask)  # the other seeds keep as many
        kept = kept_fraction(first, prunable_leaves(first, lottery.exclude))
        each = Round(*jax.device_get(arrays), kept=kept)
        if number > len(rounds):
            raise _missing_rounds(folder, criterion)
        del rounds[number:]  # of a ladder that was interrupted between a round and its checkpoint
        rounds.append(each)
        if folder is not None:
            if number == 0:
                save_solutions(folder, criterion, state.solution)
            save_round(folder, criterion, number, each)

    checkpoint = None if folder is None else folder / criterion / "checkpoints"
    options = Options(
        budget=budget, observe=observe, checkpoint=checkpoint, accept_versions=accept_versions, progress=title
    )
    outcome = drive(lottery, problem, keys, options)
    if len(rounds) < len(budget.limits):
        raise _missing_rounds(folder, criterion)
    del rounds[len(budget.limits) :]  # of a longer ladder that is there already
    return rounds, jax.device_get(outcome.carry.state.solution)


def _first_generation(lottery: Strategy, problem: Problem, key: jax.Array) -> Any:
    keys, carry = compiled.start(lottery, problem, key, None, batched=False)
    return compiled.generation(lottery, problem, carry, compiled.generation_keys(keys.generations, 0))


def _missing_rounds(folder: pathlib.Path | None, criterion: str) -> ValueError:
    return ValueError(
        f"Rounds are missing in {folder} that its checkpoint is past. Delete the subfolder {criterion!r} to start anew."
    )


def _join_folder(
    folder: pathlib.Path, metadata: dict[str, Any], identity: Identity, *, accept_versions: bool
) -> dict[str, Any]:
    """Writes the facts into the folder, along with the criteria that are there already, and returns them.

    Raises:
        ValueError: If the folder is a file, or has tickets of another ladder.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"lottery_tickets(out=...) needs a folder, but {folder} is a file.")
    path = folder / "tickets.json"
    if path.is_file():
        there = load_metadata(folder)
        complaint = f"The tickets in {folder} are of another ladder"
        identity.check(there.get("identity"), complaint, accept_versions=accept_versions)
        criteria = [*there["criteria"], *(c for c in metadata["criteria"] if c not in there["criteria"])]
        metadata = {**metadata, "date": there.get("date"), "criteria": criteria}
    save_metadata(folder, metadata)
    return metadata
