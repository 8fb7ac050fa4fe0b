"""Stores how a run was called as JSON, so that the run can be repeated if the registry has its strategy and problem.

Only ids, numbers and text are stored. A folder may be untrusted, so it never names a function to call.
"""

import dataclasses
import json
import os
import pathlib
import warnings
from typing import Any

import jax
import numpy as np

from zoo.loop.converged import Converged
from zoo.loop.files import DamagedError, as_folder, damage_of, read_json, write_json
from zoo.loop.provenance import describe_key, key_from
from zoo.registry import ProblemLike, StrategyLike, given_problem, given_strategy, recipe

CHECKPOINTS = "checkpoints"
"""The subfolder of a run's folder for its checkpoints."""
_FILE = "call.json"


def describe_call(
    strategy: StrategyLike, problem: ProblemLike, key: jax.Array, *, solution: Any, **budget: Any
) -> dict[str, Any]:
    """Returns the call of a run as JSON-able facts.

    Args:
        strategy: The strategy, or its id.
        problem: The problem, or its id.
        key: The random key.
        solution: The initial solution that was given. Only whether there was one is stored.
        **budget: `num_generations`, `num_steps`, `num_scores`, `target` and `stop`. Each may be `None`.
    """
    numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in budget.items()}
    if isinstance(stop := numbers.get("stop"), Converged):
        numbers["stop"] = dataclasses.asdict(stop)
    return {
        **describe_given(strategy, problem),
        "key": describe_key(key),
        "has_solution": solution is not None,
        "budget": numbers,
    }


def describe_given(strategy: StrategyLike, problem: ProblemLike) -> dict[str, Any]:
    """Returns the ids and the settings of a strategy and a problem as JSON-able facts; see `stored_recipe`."""
    given = {"strategy": strategy, "problem": problem}
    return {kind: _describe_recipe(recipe(item, kind)) for kind, item in given.items()}


def make_call(
    call: Any, strategy: StrategyLike | None, problem: ProblemLike | None
) -> tuple[StrategyLike, ProblemLike, jax.Array]:
    """Returns the strategy, the problem and the key of a stored call. A strategy or problem that is given is returned.

    Raises:
        ValueError: If the strategy or the problem is not given and cannot be made, or the call is damaged.
    """
    try:
        if problem is None:
            id, settings, _ = stored_recipe(call, "problem")
            problem = given_problem(id, settings)
        if strategy is None:
            id, settings, for_problem = stored_recipe(call, "strategy")
            of = given_problem(problem) if for_problem else None
            strategy = given_strategy(id, settings, "make_call", of)
        return strategy, problem, key_from(call["key"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"The stored call of this run is damaged or of another version: {error}.") from error


def stored_recipe(call: Any, kind: str) -> tuple[str, dict[str, Any], bool]:
    """Returns the id, the settings, and whether the problem's suggestions fill in the open settings."""
    stored = call[kind]
    if "missing" in stored:
        raise ValueError(
            f"The {kind} of this run {stored['missing']}, so it cannot be made from the folder alone. Pass it from "
            f"Python: zoo.load_run(folder, {kind}=...), or zoo.run(..., checkpoint=...) to go on."
        )
    settings = {name: _decode(value) for name, value in stored["settings"].items()}
    return str(stored["id"]), settings, stored["for_problem"]


def save_call(folder: str | pathlib.Path, call: dict[str, Any]) -> None:
    """Writes a call into a folder of checkpoints, unless the same call is there already. Warns of a damaged one."""
    path = pathlib.Path(folder) / _FILE
    there = None
    try:
        there = read_json(path)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        warnings.warn(f"{error} It is written again.", stacklevel=2)
    if there != json.loads(json.dumps(call)):
        write_json(path, call)


def load_call(folder: str | pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    """Returns the call of a finished or interrupted run in a folder, and the folder of its checkpoints.

    Raises:
        FileNotFoundError: If the folder holds no call.
        DamagedError: If the file with the call is damaged.
    """
    folder = as_folder(folder, "The folder of a run")
    checkpoints = folder if os.path.lexists(folder / _FILE) else folder / CHECKPOINTS
    for path, name in ((checkpoints / _FILE, None), (folder / "run.json", "call")):
        if not os.path.lexists(path):
            continue
        stored = read_json(path)
        with damage_of(path):
            call = stored if name is None else stored[name]
            if set(call["budget"]) != {"num_generations", "num_steps", "num_scores", "target", "stop"}:
                raise ValueError("it does not say how the run was called.")
            if call["budget"]["stop"] is not None:
                call["budget"]["stop"] = Converged(**call["budget"]["stop"])
            return call, checkpoints
    raise FileNotFoundError(f"No run in {folder.absolute()}: expected a file run.json or {CHECKPOINTS}/{_FILE} there.")


def _describe_recipe(made_of: dict[str, Any] | None) -> dict[str, Any]:
    if made_of is None:
        return {"missing": "is not in the registry with its settings, or was changed after it was made"}
    try:
        settings = {name: _encode(value) for name, value in made_of["settings"].items()}
    except TypeError as error:
        return {"missing": f"has settings that are neither numbers nor text ({error})"}
    return {"id": made_of["id"], "settings": settings, "for_problem": made_of["for_problem"]}


def _encode(value: Any) -> Any:
    """Returns a value as JSON in which tuples and lists differ."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in (tuple, list):
        return {type(value).__name__: [_encode(each) for each in value]}
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encode(each) for name, each in value.items()}}
    raise TypeError(f"of type {type(value).__name__}")


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {name: _decode(each) for name, each in content.items()}
    return (tuple if kind == "tuple" else list)(_decode(each) for each in content)
