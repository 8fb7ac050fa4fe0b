"""Draws the settings of a sweep from its search space: on a grid, at random, or as Sobol points."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from zoo.core.checks import shown
from zoo.core.distributions import Choice, Distribution, as_distribution

SAMPLERS = ("sobol", "random", "grid")


def as_space(space: Any) -> dict[str, Distribution]:
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
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(map(repr, SAMPLERS))}, got {sampler!r}.")
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
