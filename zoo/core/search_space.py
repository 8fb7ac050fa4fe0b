"""The search space of a strategy on a problem: which settings are tuned, and strategies with other values of them."""

from collections.abc import Collection, Mapping
from typing import Any

from zoo.core.distributions import Distribution, Factor, Given, is_scalable
from zoo.core.settings import bounds_of
from zoo.core.strategy import Strategy


def declared_space(strategy: Strategy, given: Collection[str]) -> dict[str, Given]:
    """Returns the search space that a strategy declares, without the settings that the user gave for it.

    Settings that a factor cannot change, because their value is zero, are left out as well.
    """
    return {
        name: each
        for name, each in strategy.search_space().items()
        if name not in given and (not isinstance(each, Factor) or is_scalable(value_of(strategy, name)))
    }


def resolve(space: Mapping[str, Given], strategy: Strategy | None) -> dict[str, Distribution]:
    """Returns the space with ranges for its factors, which multiply the values that a strategy has.

    A space without factors needs no strategy.

    Raises:
        ValueError: If such a value is not positive.
        TypeError: If the strategy has no such setting.
    """
    found: dict[str, Distribution] = {}
    for name, each in space.items():
        if isinstance(each, Factor):
            value, owner = value_of(strategy, name), value_of(strategy, name.rpartition(".")[0])
            found[name] = each.of(value, bounds_of(owner, name.rpartition(".")[2]), name)
        else:
            found[name] = each
    return found


def value_of(strategy: Strategy | None, path: str) -> Any:
    """Returns the value of a setting, such as "sigma" or "base.sigma". An empty path is the strategy itself.

    Raises:
        TypeError: If there is no such setting.
    """
    value: Any = strategy
    for name in path.split(".") if path else ():
        if not hasattr(value, name):
            raise _no_setting(value, name)
        value = getattr(value, name)
    return value


def with_value(strategy: Any, path: str, value: Any) -> Any:
    """Returns a strategy with another value of a setting, such as "sigma" or "base.sigma".

    Raises:
        TypeError: If there is no such setting.
    """
    name, _, rest = path.partition(".")
    if not hasattr(strategy, name):
        raise _no_setting(strategy, name)
    return strategy.replace(**{name: with_value(getattr(strategy, name), rest, value) if rest else value})


def with_values(strategy: Strategy, values: Mapping[str, Any]) -> Strategy:
    """Returns a strategy with other values of several settings; see `with_value`."""
    for name, value in values.items():
        strategy = with_value(strategy, name, value)
    return strategy


def _no_setting(strategy: Any, name: str) -> TypeError:
    return TypeError(f"{type(strategy).__name__} has no setting {name!r}, which the space sweeps.")
