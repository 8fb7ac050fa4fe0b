"""Loads what `RunResult.save` wrote."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.loop import compiled
from zoo.loop.archive import load_archive
from zoo.loop.call import make_call
from zoo.loop.csv_file import read_csv
from zoo.loop.files import as_folder, checked, damage_of, opened, read_parts
from zoo.loop.identity import compare
from zoo.loop.log import HISTORY, NOT_METRICS
from zoo.loop.provenance import describe_numbers
from zoo.loop.result import ARRAYS, TREES, RunResult
from zoo.registry import ProblemLike, StrategyLike, resolve


@jax.transfer_guard("allow")
@checks_arguments
def load_run(
    folder: str | pathlib.Path, problem: ProblemLike | None = None, strategy: StrategyLike | None = None
) -> RunResult:
    """Loads a run that `RunResult.save` or `zoo run --out` wrote.

    Solutions and states come back in their structure, and `zoo.run(start=result)` goes on from them. `run.json` says
    what was run. A problem or strategy that is passed is only checked for the shapes of its arrays.

    Args:
        folder: The folder of the run.
        problem: The problem, its id, or a dictionary of its id and settings. It may be left out if the problem of the
            run was made by an id of the registry, with settings that are numbers or text.
        strategy: The strategy, its id, or a dictionary of its id and settings. It may be left out under the same
            condition.

    Returns:
        A `RunResult`.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the run is damaged, was computed in another precision, or has other shapes; or if the strategy
            or the problem is left out and cannot be made.
    """
    folder = as_folder(folder, "load_run(folder)")
    if not os.path.lexists(folder / "run.json"):
        raise FileNotFoundError(f"No run in {folder.absolute()}: expected a file run.json there.")
    return read_parts(folder, "run.json", functools.partial(_read_run, folder, problem, strategy))


def _read_run(
    folder: pathlib.Path,
    problem: ProblemLike | None,
    strategy: StrategyLike | None,
    facts: dict[str, Any],
    digests: Mapping[str, str],
) -> RunResult:
    with damage_of(folder / "run.json"):
        call, numbers, metrics = checked(facts, call=dict, numbers=dict, metrics=dict)
        values = checked(facts, best_fitness=float, seconds=float, compile_seconds=float, overshoot=int, stopped_by=str)
    if differences := compare(numbers, describe_numbers()):
        raise ValueError(
            f"The run in {folder} was computed with other numbers: {'; '.join(differences)}. Set JAX as it was then, "
            "for example by JAX_ENABLE_X64."
        )
    made_strategy, made_problem, key = make_call(call, strategy, problem)
    made_strategy, made_problem = resolve(made_strategy, made_problem)
    start = functools.partial(compiled.start, batched=False)
    _, carry = jax.eval_shape(start, made_strategy, made_problem, key, None)
    like = {"mean": carry.best_solution, **{name: getattr(carry, name) for name in TREES[1:]}}
    read_curve = functools.partial(_read_curve, folder, digests=digests)
    return RunResult(
        strategy=made_strategy,
        problem=made_problem,
        key=key,
        **_read_trees(folder, digests, like, key),
        history=read_curve("history.csv", {*HISTORY}),
        scores=read_curve("curve.csv", {*NOT_METRICS, *metrics}),
        metrics=metrics,
        **dict(zip(("best_fitness", "seconds", "compile_seconds", "overshoot", "stopped_by"), values, strict=True)),
        call=call,
    )


def _read_trees(
    folder: pathlib.Path, digests: Mapping[str, str], like: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Reads pytrees of the structures in `like`. Random keys in them get the generator of `key`."""
    stored, _ = load_archive(folder / ARRAYS, digests.get(ARRAYS, ""))
    with damage_of(folder / ARRAYS):
        stored = dict(zip(TREES, checked(stored, **dict.fromkeys(TREES, list)), strict=True))
    trees = {}

    def restore(array: Any, like: Any) -> jax.Array:
        is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
        array = jnp.asarray(array)
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(key)) if is_key else array

    for name, tree in like.items():
        leaves, there = jax.tree.leaves(tree), stored[name]
        if len(there) != len(leaves):
            raise ValueError(_other_shapes(folder, name, f"{len(leaves)} arrays", f"{len(there)}"))
        restored = [restore(array, x) for array, x in zip(there, leaves, strict=True)]
        shapes, expected = ([(x.shape, str(x.dtype)) for x in each] for each in (restored, leaves))
        if shapes != expected:
            raise ValueError(_other_shapes(folder, name, f"arrays {expected}", str(shapes)))
        trees[name] = jax.tree.unflatten(jax.tree.structure(tree), restored)
    return trees


def _other_shapes(folder: pathlib.Path, name: str, expected: str, there: str) -> str:
    return (
        f"The run in {folder} is of another problem or strategy: {name} should be {expected}, but the run has {there}. "
        "Load it with the problem and the strategy that it was run with."
    )


def _read_curve(
    folder: pathlib.Path, name: str, columns: set[str], *, digests: Mapping[str, str]
) -> dict[str, np.ndarray]:
    with opened(folder / name, digests.get(name, "")) as file:
        frame = read_csv(file, lambda column: int if column in ("generation", "steps") else float)
        if not columns <= set(frame):
            raise ValueError(f"it should have columns {sorted(columns)}, but has {list(frame)}.")
    return {str(x): frame[x].to_numpy() for x in frame if name == "curve.csv" or x != "generation"}
