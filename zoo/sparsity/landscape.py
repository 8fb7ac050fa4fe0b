"""The loss landscape around solutions: scores between two solutions, and around one solution.

Between two solutions (linear mode connectivity, Frankle et al. 2020, arXiv 1912.05671): the scores on the straight line
from one to the other, and the barrier on this line. Around one solution (flatness, as Lange, Sprekeler 2023, arXiv
2306.00045, measured it for optima of evolution strategies): the scores under isotropic Gaussian perturbations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, as_scalar, shown
from zoo.core.keys import as_key
from zoo.core.masks import Mask, apply_mask, full_mask
from zoo.core.population import map_members
from zoo.core.problem import Problem, Statistics
from zoo.core.promotion import promoted
from zoo.core.solution import Solution, check_start
from zoo.core.structure import fit_structure
from zoo.loop.compiled import run_keys
from zoo.registry import ProblemLike, as_problem

_MEMBERS_AT_A_TIME = 8  # if the problem sets no bound: a score needs memory for all held-out data


@jax.transfer_guard("allow")
def interpolate(
    problem: ProblemLike,
    one: Solution,
    other: Solution,
    key: jax.Array | int = 0,
    *,
    num_points: int = 21,
    statistics: Statistics = None,
) -> pd.DataFrame:
    """Scores solutions on the straight line between two: (1 - alpha) one + alpha other.

    Args:
        problem: A problem, its id, or a dictionary of its id and settings.
        one: The solution at alpha = 0.
        other: The solution at alpha = 1, in the same structure and shapes.
        key: JAX random key, or a seed. All points are scored on the held-out data of a run with this key.
        num_points: Number of values of alpha, spaced evenly from 0 to 1.
        statistics: The problem's statistics, for example of observations, for all points. Defaults to the problem's
            own.

    Returns:
        A row per point and metric: `alpha`, `metric`, `value`.

    Raises:
        ValueError: If a solution or the statistics do not fit the problem, if a solution is not finite, or if
            `num_points` is less than two.
        TypeError: If a leaf of a solution is not a floating-point array.

    >>> import jax.numpy as jnp, zoo
    >>> problem = zoo.from_function(lambda x: -jnp.sum(x**2), jnp.zeros(2))
    >>> frame = zoo.interpolate(problem, -jnp.ones(2), jnp.ones(2))
    >>> zoo.barrier(frame, "fitness", maximize=False)
    2.0
    """
    keys = run_keys(as_key(key))
    num_points = as_count(num_points, "num_points", at_least=2)  # the two ends
    alphas = np.linspace(0, 1, num_points)
    problem = as_problem(problem, statistics)
    like = jax.eval_shape(problem.initial_solution, keys.solution)
    one, other = check_start(one, like, "one"), check_start(other, like, "other")
    metrics = _score_between(problem, one, other, keys.score, jnp.asarray(alphas))
    return _tidy({"alpha": alphas}, metrics)


@checks_arguments
def barrier(frame: pd.DataFrame, metric: str, maximize: bool) -> float:
    """Returns the barrier between two solutions: the largest shortfall of the scores from the line between the ends.

    At each alpha, compares the score with (1 - alpha) score(0) + alpha score(1) (Entezari et al. 2022, arXiv
    2110.06296). Frankle et al. compare with the mean score of both ends. The two definitions agree if the ends are
    equally good. If they are not, as with a dense and a sparse network, the mean would count a straight slope as a
    barrier.

    Args:
        frame: Scores, as returned by `interpolate`.
        metric: Name of the metric.
        maximize: Whether larger is better.

    Returns:
        The barrier, at least 0. It is infinite if a score between the ends is NaN, because NaN counts as the worst
        score. It is NaN if the score of an end is not finite.

    Raises:
        ValueError: If the frame lacks the metric or the ends, or has several rows for an alpha.
    """
    rows = metric_rows(frame, metric, ("alpha",)).sort_values("alpha")
    alpha, value = rows.alpha.to_numpy(float), rows.value.to_numpy(float)
    if alpha[0] != 0 or alpha[-1] != 1 or not np.all(np.diff(alpha) > 0):
        raise ValueError(f"barrier expects a frame of zoo.interpolate with each alpha from 0 to 1 once, got {alpha}.")
    if not np.isfinite(value[[0, -1]]).all():
        return np.nan
    straight = (1 - alpha) * value[0] + alpha * value[-1]
    shortfall = straight - value if maximize else value - straight
    return float(np.max(np.where(np.isnan(shortfall), np.inf, shortfall)))


@jax.transfer_guard("allow")
def flatness(
    problem: ProblemLike,
    solution: Solution,
    key: jax.Array | int = 0,
    *,
    sigmas: Sequence[float] = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
    num_samples: int = 16,
    mask: Mask | None = None,
    statistics: Statistics = None,
) -> pd.DataFrame:
    """Scores a solution under isotropic Gaussian perturbations.

    Each sample is one direction, and it is the same at every sigma. So chance does not blur how the score falls with
    sigma.

    Args:
        problem: A problem, its id, or a dictionary of its id and settings.
        solution: The solution.
        key: JAX random key, or a seed. All samples are scored on the held-out data of a run with this key.
        sigmas: Standard deviations of the perturbation.
        num_samples: Number of directions.
        mask: Booleans in the structure of the solution. Perturbs only the entries where it is true. With `None`,
            perturbs all entries.
        statistics: The problem's statistics, for example of observations. Defaults to the problem's own.

    Returns:
        A row per sigma, sample and metric: `sigma`, `sample`, `metric`, `value`.

    Raises:
        ValueError: If a sigma is negative or not finite, if there is no sigma or no sample, if the solution, the mask
            or the statistics do not fit the problem, or if the solution is not finite.
        TypeError: If a leaf of the solution is not a floating-point array, or the mask does not hold booleans.

    >>> import jax.numpy as jnp, zoo
    >>> problem = zoo.from_function(lambda x: jnp.sum(x**2), jnp.zeros(2))
    >>> frame = zoo.flatness(problem, jnp.ones(2), sigmas=(0.0, 1.0), num_samples=2)
    >>> frame[frame.sigma == 0].value.tolist()
    [2.0, 2.0]
    """
    keys = run_keys(as_key(key))
    given = np.asarray(sigmas).tolist() if isinstance(sigmas, (np.ndarray, jax.Array)) else sigmas
    given = given if isinstance(given, Sequence) else []
    scales = np.asarray([as_scalar(sigma, "sigmas", finite=False) for sigma in given])
    if not len(scales) or not np.all(np.isfinite(scales) & (scales >= 0)):
        raise ValueError(f"sigmas must be one or more finite standard deviations, none negative, got {sigmas!r}.")
    num_samples = as_count(num_samples, "num_samples")
    problem = as_problem(problem, statistics)
    solution = check_start(solution, jax.eval_shape(problem.initial_solution, keys.solution))
    mask = full_mask(solution) if mask is None else _checked_mask(mask, solution)
    directions = jax.random.split(keys.strategy, num_samples)
    metrics = _score_around(problem, solution, mask, keys.score, jnp.asarray(scales), directions)
    columns = {"sigma": np.repeat(scales, num_samples), "sample": np.tile(np.arange(num_samples), len(scales))}
    return _tidy(columns, metrics)


def metric_rows(frame: pd.DataFrame, metric: str, columns: Sequence[str]) -> pd.DataFrame:
    """Returns the rows of one metric.

    Args:
        frame: A tidy frame with the columns `metric` and `value`.
        metric: Name of the metric.
        columns: Other columns that the frame must have.

    Raises:
        ValueError: If a column or the metric is missing.
        TypeError: If `metric` is not a string, or the frame is not a `pandas.DataFrame`.
    """
    if not isinstance(metric, str):
        raise TypeError(
            f"metric must be the name of a metric in the frame, such as 'test_accuracy', got {shown(metric)}."
        )
    check_columns(frame, (*columns, "metric", "value"))
    rows = frame.loc[frame.metric == metric]
    if not len(rows):
        raise ValueError(f"metric must be one of {list(frame.metric.unique())} for this frame, got {metric!r}.")
    return rows


def check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises a `ValueError` if a frame lacks a column, and a `TypeError` if it is not a frame."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"Expected a frame with the columns {list(columns)}, got {shown(frame)}.")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"Expected a frame with the columns {list(columns)}, got {list(frame)}: {missing} missing.")


# Everything with numbers is an argument, so that these functions are not compiled again for other solutions.


@jax.jit
def _score_between(
    problem: Problem, one: Solution, other: Solution, key: jax.Array, alphas: jax.Array
) -> dict[str, jax.Array]:
    def score(alpha: jax.Array) -> dict[str, jax.Array]:
        def between(x: jax.Array, y: jax.Array) -> jax.Array:
            x, y = promoted(x, y)
            # This way to write the interpolation is exact at both ends.
            return (1 - alpha).astype(x.dtype) * x + alpha.astype(y.dtype) * y

        return problem.score(key, jax.tree.map(between, one, other))

    return map_members(score, alphas, batch_size=problem.member_batch_size or _MEMBERS_AT_A_TIME)


@jax.jit
def _score_around(
    problem: Problem, solution: Solution, mask: Mask, key: jax.Array, sigmas: jax.Array, directions: jax.Array
) -> dict[str, jax.Array]:
    def score(sigma: jax.Array, direction: jax.Array) -> dict[str, jax.Array]:
        noise = apply_mask(mask, optax.tree.random_like(direction, solution))
        point = jax.tree.map(lambda x, z: x + sigma.astype(x.dtype) * z, solution, noise)
        return problem.score(key, point)

    num_sigmas, num_samples = len(sigmas), len(directions)
    # Noise is drawn again at each sigma: keeping it would take memory for all samples at once.
    return map_members(
        score,
        jnp.repeat(sigmas, num_samples),
        jnp.tile(directions, num_sigmas),
        batch_size=problem.member_batch_size or _MEMBERS_AT_A_TIME,
    )


def _checked_mask(mask: Mask, solution: Solution) -> Mask:
    mask = fit_structure("mask", mask, solution)
    dtypes = {str(getattr(m, "dtype", type(m).__name__)) for m in jax.tree.leaves(mask)}
    if dtypes != {"bool"}:
        raise TypeError(f"mask must hold booleans, true where a weight is kept, got {sorted(dtypes)}.")
    return jax.tree.map(jnp.asarray, mask)


def _tidy(columns: Mapping[str, np.ndarray], metrics: Mapping[str, Any]) -> pd.DataFrame:
    frames = [
        pd.DataFrame({**columns, "metric": name, "value": np.asarray(values, float)})
        for name, values in metrics.items()
    ]
    return pd.concat(frames, ignore_index=True)
