"""Reads back what `RunResult.save` wrote."""

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop import compiled
from zoo.loop.call import make_call
from zoo.loop.checkpoint import load_tree
from zoo.loop.identity import compare
from zoo.loop.provenance import describe_numbers
from zoo.loop.result import ARRAYS, TREES, RunResult, numbered_leaves
from zoo.registry import resolve

_SCALARS = ("metrics", "best_fitness", "seconds", "compile_seconds", "stopped_by")


def load_run(
    folder: str | pathlib.Path, problem: str | Problem | None = None, strategy: str | Strategy | None = None
) -> RunResult:
    """Loads what `RunResult.save`, or `zoo run --out`, wrote.

    Solutions and states come back in their structure, and `zoo.run(start=result)` goes on from them. What was run is
    said in `run.json`: whether a problem that is passed is the one of the run is not checked, but for shapes.

    Args:
        folder: Where the run is.
        problem: The problem, or its id. It may be left out if the run's was made by an id of the registry, with
            settings that are numbers or text.
        strategy: The strategy, or its id; it may be left out likewise.

    Returns:
        A `RunResult`.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If it is damaged, was computed in another precision, or is one of other shapes; or if the strategy
            or the problem is left out and cannot be made.
    """
    folder = pathlib.Path(folder)
    path = folder / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"No run in {folder.absolute()}: expected a file run.json there.")
    try:
        facts = json.loads(path.read_text())
        call, numbers = facts["call"], dict(facts["numbers"])
        scalars = {name: facts[name] for name in _SCALARS}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is damaged, or of another version. Choose another folder.") from None
    if differences := compare(numbers, describe_numbers()):
        raise ValueError(
            f"The run in {folder} was computed with other numbers: {'; '.join(differences)}. Set JAX as it was, for "
            "example by JAX_ENABLE_X64."
        )
    made_strategy, made_problem, key = make_call(call, strategy, problem)
    made_strategy, made_problem = resolve(made_strategy, made_problem)
    start = functools.partial(compiled.start, batched=False)
    _, carry = jax.eval_shape(start, made_strategy, made_problem, key, None)
    like = {"mean": carry.best_solution, **{name: getattr(carry, name) for name in TREES[1:]}}
    trees = _read_trees(folder, like, key)
    return RunResult(
        strategy=made_strategy,
        problem=made_problem,
        key=key,
        **trees,
        history=_read_curve(folder / "history.csv", {"best_fitness", "mean_fitness", "steps"}),
        scores=_read_curve(folder / "curve.csv", {"generation", "steps", "seconds", *scalars["metrics"]}),
        **scalars,
        call=call,
    )


def _read_trees(folder: pathlib.Path, like: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """Reads pytrees of given structures; random keys in them are of the generator of `key`."""
    stored, trees = load_tree(folder / ARRAYS), {}

    def restore(array: Any, like: Any) -> jax.Array:
        is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
        array = jnp.asarray(array)
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(key)) if is_key else array

    for name, tree in like.items():
        leaves, there = jax.tree.leaves(tree), stored.get(name, {})
        if sorted(there) != sorted(numbered_leaves(tree)):
            raise ValueError(_other_shapes(folder, name, f"{len(leaves)} arrays", f"{len(there)}"))
        restored = [restore(there[number], x) for number, x in sorted(numbered_leaves(tree).items())]
        shapes, expected = ([(x.shape, str(x.dtype)) for x in each] for each in (restored, leaves))
        if shapes != expected:
            raise ValueError(_other_shapes(folder, name, f"arrays {expected}", str(shapes)))
        trees[name] = jax.tree.unflatten(jax.tree.structure(tree), restored)
    return trees


def _other_shapes(folder: pathlib.Path, name: str, expected: str, there: str) -> str:
    return (
        f"The run in {folder} is of another problem or strategy: {name} has {expected}, there are {there}. Load it "
        "with those that it was run with."
    )


def _read_curve(path: pathlib.Path, columns: set[str]) -> dict[str, np.ndarray]:
    import pandas as pd

    try:
        frame = pd.read_csv(path, float_precision="round_trip")
        whole = [name for name in frame if name in ("generation", "steps")]
        frame = frame.astype({name: np.int64 if name in whole else np.float64 for name in frame})
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. The run cannot be loaded.") from error
    if not columns <= set(frame):
        raise ValueError(f"{path} is damaged: it should have columns {sorted(columns)}, and has {list(frame)}.")
    return {str(name): frame[name].to_numpy() for name in frame if path.stem == "curve" or name != "generation"}
