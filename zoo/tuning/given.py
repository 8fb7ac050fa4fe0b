"""Which settings of a strategy the user gave. These are not tuned."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo.core.settings import internal_fields
from zoo.core.strategy import Strategy
from zoo.loop.provenance import describe_value
from zoo.registry import StrategyLike, recipe


def given_names(strategy: StrategyLike) -> set[str]:
    """Returns the names of the settings that were given for a strategy; "base.sigma" is one of its base.

    Of a strategy that was made already, these are the settings that it was made with. If it was not made by its id,
    these are the settings whose values differ from the defaults.
    """
    if isinstance(strategy, str):
        return set()
    if isinstance(strategy, Mapping):
        return _names(strategy)
    made = recipe(strategy, "strategy")
    return _changed(strategy) if made is None else _names(made["settings"])


def _names(settings: Mapping[str, Any]) -> set[str]:
    found = set()
    for name, value in settings.items():
        if isinstance(value, Strategy) or (isinstance(value, Mapping) and "id" in value):
            found |= {f"{name}.{inner}" for inner in given_names(value)}
        elif name != "id":
            found.add(name)
    return found


def _changed(strategy: Strategy) -> set[str]:
    found = set()
    for field in dataclasses.fields(strategy):  # pyright: ignore[reportArgumentType]
        value = getattr(strategy, field.name)
        if isinstance(value, Strategy):
            found |= {f"{field.name}.{inner}" for inner in given_names(value)}
        elif field.name not in internal_fields(type(strategy)) and describe_value(value) != describe_value(
            field.default
        ):
            found.add(field.name)
    return found
