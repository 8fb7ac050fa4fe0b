"""The search space of a sweep, and its settings: drawn on a grid, at random, or as Sobol points, or given."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from zoo.core.checks import shown
from zoo.core.distributions import Choice, Distribution, Given, as_distribution
from zoo.core.search_space import value_of
from zoo.core.strategy import Strategy
from zoo.loop.provenance import describe_value

SAMPLERS = ("sobol", "random", "grid")


def as_space(space: Any) -> dict[str, Given]:
    """Returns a search space with a distribution for each setting.

    Raises:
        TypeError: If it is not a mapping from names to distributions or lists of values.
        ValueError: If it is empty.
    """
    if not isinstance(space, Mapping) or not all(isinstance(name, str) for name in space):
        raise TypeError(
            "space must be a dictionary from settings to distributions or lists of values, such as "
            f'{{"sigma": zoo.space.log_uniform(1e-3, 1), "optimizer": ["adam", "sgd"]}}; got {shown(space)}.'
        )
    if not space:
        raise ValueError("space has no settings to sweep. Give at least one.")
    return {name: as_distribution(value, f"space[{name!r}]") for name, value in space.items()}


def as_settings(settings: Any) -> list[dict[str, Any]]:
    """Returns the settings of a sweep that are given one by one.

    Raises:
        TypeError: If they are not a list of mappings from names to values.
        ValueError: If there are none, or they do not have the same names.
    """
    if not isinstance(settings, (list, tuple)) or not all(isinstance(each, Mapping) for each in settings):
        raise TypeError(
            f'settings must be a list of dictionaries such as [{{"sigma": 0.1}}, {{"sigma": 1.0}}], got '
            f"{shown(settings)}."
        )
    if not settings or not settings[0]:
        raise ValueError("settings has nothing to try. Give at least one dictionary with at least one value.")
    for each in settings:
        if not all(isinstance(name, str) for name in each) or each.keys() != settings[0].keys():
            raise ValueError(
                f"All of settings must have values for the same names, got {shown(list(settings[0]))} and "
                f"{shown(list(each))}."
            )
    return [{name: each[name] for name in settings[0]} for each in settings]


def draw_with_default(
    space: Mapping[str, Distribution], strategy: Strategy, num: int, sampler: str, seed: int
) -> list[dict[str, Any]]:
    """Returns settings of which the first has the values that a strategy has, and the others are drawn."""
    default = {name: value_of(strategy, name) for name in space}
    if num == 1:
        return [default]
    # One more is drawn, since a list may have the default. A grid cannot be cut.
    drawn = draw_settings(space, num - (sampler == "grid"), sampler, seed)
    others = [each for each in drawn if describe_value(each) != describe_value(default)]
    return [default, *others[: num - 1]]


def check_sampler(sampler: str) -> None:
    """Raises a `ValueError` if there is no such sampler."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(map(repr, SAMPLERS))}, got {sampler!r}.")


def draw_settings(space: Mapping[str, Distribution], num: int, sampler: str, seed: int) -> list[dict[str, Any]]:
    """Returns settings drawn from a space, without repetitions.

    Args:
        space: Distributions by setting.
        num: How many settings are drawn. A grid may have fewer: all combinations of the lists, and as many points per
            range as `num` has room for. A space of lists alone has no more settings than combinations.
        sampler: `"sobol"`, `"random"` or `"grid"`.
        seed: Seed of the random numbers.

    Raises:
        ValueError: If the sampler is unknown, or a grid of the lists alone has more than `num` points.
    """
    check_sampler(sampler)
    if sampler == "grid":
        return _grid(space, num)
    if all(isinstance(each, Choice) for each in space.values()):
        combinations = int(np.prod([len(each.grid(1)) for each in space.values()], dtype=float))
        if combinations <= num:
            return _grid(space, num)
    found: dict[str, dict[str, Any]] = {}
    size = num
    while len(found) < num and size <= 64 * num:  # whole numbers and lists repeat: draw more
        for point in _points(len(space), size, sampler, seed):
            setting = {name: each.at(float(u)) for (name, each), u in zip(space.items(), point, strict=True)}
            found.setdefault(repr(setting), setting)
        size *= 2
    return list(found.values())[:num]


def _points(dims: int, num: int, sampler: str, seed: int) -> np.ndarray:
    """Returns points in the unit cube, `[num, dims]`. More points of the same seed begin with fewer."""
    rng = np.random.default_rng(seed)
    if sampler == "random":
        return rng.random((num, dims))
    exponent = max(0, int(np.ceil(np.log2(num))))  # the points are balanced in powers of two
    return scipy.stats.qmc.Sobol(dims, scramble=True, rng=rng).random_base2(exponent)[:num]


def _grid(space: Mapping[str, Distribution], num: int) -> list[dict[str, Any]]:
    lists = {name: each.grid(1) for name, each in space.items() if isinstance(each, Choice)}
    num_combinations = int(np.prod([len(each) for each in lists.values()], dtype=float))
    if num_combinations > num:
        raise ValueError(
            f"A grid over the lists of this space has {num_combinations} settings, more than num_settings={num}. Give "
            'a larger num_settings, or sampler="sobol".'
        )
    num_ranges = len(space) - len(lists)
    per_range = int((num / num_combinations) ** (1 / num_ranges) + 1e-9) if num_ranges else 1
    axes = [each.grid(max(per_range, 1)) for each in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
