"""Statistics of a gradient estimator at one solution: bias, variance and cost.

This is the analysis of Li et al. 2023, arXiv 2304.12180, for any strategy on any problem. The solution is held fixed.
An online strategy is sampled in its steady state: after one episode of burn-in, over all windows of the next episode.
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, as_scalar
from zoo.core.keys import as_key
from zoo.core.problem import Problem
from zoo.core.promotion import ravel
from zoo.core.solution import Solution, check_solution, check_start
from zoo.core.spread import is_one_number
from zoo.core.strategy import Strategy
from zoo.core.unrolled import UnrolledProblem
from zoo.loop.compiled import ask_and_evaluate
from zoo.loop.programs import Program
from zoo.loop.progress import Compiling, progress_bar
from zoo.registry import ProblemLike, StrategyLike, make_strategy, resolve

_MEMBERS_AT_A_TIME = 4096


@dataclasses.dataclass(frozen=True)
class EstimatorStatistics:
    """Statistics of the gradient estimate of one generation; see `estimator_statistics`.

    Attributes:
        mean: Mean estimate.
        standard_error: Standard error of each entry of the mean.
        reference: The gradient with which the estimate is compared.
        reference_error: Standard error of each entry of the reference.
        total_variance: Variance of one estimate, summed over its entries.
        total_variance_error: Standard error of `total_variance`.
        bias: Norm of the difference between the mean and the reference.
        bias_by_chance: The approximate size of `bias` for an unbiased estimator, from the sampling errors of mean and
            reference.
        cosine: Mean cosine between an estimate and the reference.
        reference_sigma: Standard deviation of the smoothing of the reference. With `None`, the reference is the exact
            gradient, without smoothing. Compare bias and cosine of two estimators only if they have the same value.
        exact: Gradient of the objective by backpropagation through whole episodes, without smoothing. `None` if the
            problem has no useful gradient.
        exact_bias: Norm of the difference between the mean and the exact gradient, or `None` without one.
        steps_per_estimate: Problem steps that one estimate costs.
        seconds_per_estimate: Seconds that one estimate costs when many are computed together, without compilation.
        num_samples: Number of independent samples.
    """

    mean: Solution
    standard_error: Solution
    reference: Solution
    reference_error: Solution
    total_variance: float
    total_variance_error: float
    bias: float
    bias_by_chance: float
    cosine: float
    reference_sigma: float | None
    exact: Solution | None
    exact_bias: float | None
    steps_per_estimate: float
    seconds_per_estimate: float
    num_samples: int

    @property
    def variance_per_step(self) -> float:
        """Total variance times the steps of an estimate: the variance per problem step at equal cost."""
        return self.total_variance * self.steps_per_estimate

    @property
    def variance_per_second(self) -> float:
        """Total variance times the seconds of an estimate: the variance per second at equal cost."""
        return self.total_variance * self.seconds_per_estimate


class _Sample(NamedTuple):
    """One replica: means over the windows of an episode, and the steps of all these windows together."""

    estimate: jax.Array  # [num_dims]
    squared_norm: jax.Array  # []
    cosine: jax.Array  # []
    steps: Any  # []


@jax.transfer_guard("allow")
@checks_arguments
def estimator_statistics(
    strategy: StrategyLike,
    problem: ProblemLike,
    solution: Solution | None = None,
    key: jax.Array | int = 0,
    num_samples: int = 1000,
    *,
    sigma: float | None = None,
    num_exact: int = 16,
    progress: bool = True,
) -> EstimatorStatistics:
    """Returns bias, variance and cost of a strategy's gradient estimate at a solution.

    The reference is the gradient of the objective smoothed at the strategy's sigma. It is estimated by `full_es` from
    the same number of samples. A sample of an online strategy costs two episodes.

    Args:
        strategy: A strategy that estimates a gradient, its id, or a dictionary of its id and settings.
        problem: A problem, its id, or a dictionary of its id and settings.
        solution: Where to estimate the gradient. Defaults to the problem's initial solution.
        key: JAX random key, or a seed.
        num_samples: Number of independent samples. Errors fall with its square root.
        sigma: Smoothing of the reference. Defaults to the strategy's sigma. If the strategy has no sigma and this is
            not given, the reference is the exact gradient.
        num_exact: Episodes over which the exact gradient is averaged. With 0, it is not computed.
        progress: Whether to show progress bars.

    Raises:
        TypeError: If the strategy does not estimate a gradient.
        ValueError: If the problem never ends an episode, `num_samples` is below 2, there is no reference to compare
            with, or the solution does not fit the problem or is not finite.

    >>> import zoo
    >>> problem = zoo.make_problem("blackbox/sphere", num_dims=2)
    >>> strategy = zoo.make_strategy("open_es", shaping="none")
    >>> statistics = zoo.estimator_statistics(strategy, problem, num_samples=100, progress=False)
    >>> statistics.bias < 4 * statistics.bias_by_chance
    True
    """
    strategy, problem = resolve(strategy, problem)
    if not hasattr(strategy, "estimate"):
        raise TypeError(
            f"estimator_statistics needs a strategy that estimates a gradient, such as nres or open_es; "
            f"{type(strategy).__name__} has no `estimate`."
        )
    if isinstance(problem, UnrolledProblem) and problem.horizon is None:
        raise ValueError(
            f"{type(problem).__name__} never ends an episode, so its estimates have no steady state to sample. Give "
            "it a horizon."
        )
    num_samples = as_count(num_samples, "num_samples", at_least=2)
    num_exact = as_count(num_exact, "num_exact", at_least=0)
    key_solution, key_reference, key_samples, key_exact = jax.random.split(as_key(key), 4)
    if solution is None:
        solution = check_solution(problem.initial_solution(key_solution))
    else:
        solution = check_start(solution, like=jax.eval_shape(problem.initial_solution, key_solution))
    exact = _exact_gradient(problem, solution, key_exact, num_exact)

    sigma = _sigma_of(strategy) if sigma is None else as_scalar(sigma, "sigma")
    if sigma is not None:
        size = 2 * max(1, (strategy.population_size or 2) // 2)
        full_es = make_strategy("full_es", population_size=size, sigma=sigma)
        nothing = jax.tree.map(jnp.zeros_like, solution)
        title = "reference" if progress else None
        target, _ = _run_samples(full_es, problem, solution, nothing, key_reference, num_samples, title)
        reference, reference_error = _mean_and_error(target.estimate)
    elif exact is not None:
        reference = np.asarray(ravel(exact)[0], np.float64)
        reference_error = np.zeros_like(reference)
    else:
        raise ValueError(
            f"{type(strategy).__name__} has no sigma, and {type(problem).__name__} has no gradient to compare with. "
            "Pass sigma=... to compare with the gradient of the objective smoothed by this sigma."
        )
    flat_solution, unravel = ravel(solution)

    def as_solution(flat: np.ndarray) -> Solution:
        return unravel(jnp.asarray(flat, flat_solution.dtype))

    title = type(strategy).__name__ if progress else None
    samples, seconds = _run_samples(
        strategy, problem, solution, as_solution(reference), key_samples, num_samples, title
    )
    mean, error = _mean_and_error(samples.estimate)
    # Sampling adds error @ error to the squared norm of the mean.
    variances = np.asarray(samples.squared_norm, np.float64) - (mean @ mean - error @ error)
    exact_bias = None
    if exact is not None:
        exact_bias = float(np.linalg.norm(mean - np.asarray(ravel(exact)[0], np.float64)))
    return EstimatorStatistics(
        mean=as_solution(mean),
        standard_error=as_solution(error),
        reference=as_solution(reference),
        reference_error=as_solution(reference_error),
        total_variance=float(variances.mean()),
        total_variance_error=float(variances.std(ddof=1) / np.sqrt(num_samples)),
        bias=float(np.linalg.norm(mean - reference)),
        bias_by_chance=float(np.sqrt(error @ error + reference_error @ reference_error)),
        cosine=float(np.mean(np.asarray(samples.cosine, np.float64))),
        reference_sigma=None if sigma is None else float(sigma),
        exact=exact,
        exact_bias=exact_bias,
        steps_per_estimate=float(np.mean(np.asarray(samples.steps, np.float64))),
        seconds_per_estimate=seconds,
        num_samples=num_samples,
    )


def _sigma_of(strategy: Strategy) -> float | None:
    """Returns the initial sigma of a strategy, or `None` if it has no sigma.

    Raises:
        ValueError: If it has a sigma for each parameter.
    """
    sigma, schedule = getattr(strategy, "sigma", None), getattr(strategy, "sigma_schedule", None)
    if sigma is None:
        return None
    if not is_one_number(sigma):
        raise ValueError(
            f"{type(strategy).__name__} has a sigma for each parameter, but the reference is smoothed by one number. "
            "For that number, pass sigma=..."
        )
    return float(sigma if schedule is None else sigma * schedule(0))


def _run_samples(
    strategy: Strategy,
    problem: Problem,
    solution: Solution,
    reference: Solution,
    key: jax.Array,
    num_samples: int,
    title: str | None,
) -> tuple[_Sample, float]:
    """Returns independent samples, and the seconds per estimate. `title` is the title of a progress bar."""
    num_windows = 1
    if isinstance(problem, UnrolledProblem):
        whole = strategy.groups.whole_episodes
        num_windows = 1 if whole else problem._num_windows
    num_burn_in = num_windows if num_windows > 1 else 0
    batch_size = max(1, min(num_samples, _MEMBERS_AT_A_TIME // (strategy.population_size or 1)))
    keys = jax.random.split(key, num_samples)
    starts = range(0, num_samples, batch_size)
    batches: list[_Sample] = []
    with progress_bar(title, num_samples, status=Compiling()) as show:
        arguments = (strategy, problem, solution, reference)
        sizes = {"num_windows": num_windows, "num_burn_in": num_burn_in}
        sample = _samples.compile(*arguments, keys[:batch_size], **sizes)
        clock = time.perf_counter()
        for start in starts:
            # The last batch is filled up with the first keys, so that all batches are calls of one program.
            batch = keys[np.arange(start, start + batch_size) % num_samples]
            batches.append(jax.device_get(sample(*arguments, batch)))
            show(min(start + batch_size, num_samples), "")
        seconds = (time.perf_counter() - clock) / (len(starts) * batch_size * (num_windows + num_burn_in))
    samples = jax.tree.map(lambda *x: np.concatenate(x)[:num_samples], *batches)
    return samples._replace(steps=np.asarray(samples.steps, np.float64) / num_windows), seconds


@functools.partial(Program, repeats=True, static_argnames=("num_windows", "num_burn_in"))
def _samples(
    strategy: Any,
    problem: Problem,
    solution: Solution,
    reference: Solution,
    keys: jax.Array,
    *,
    num_windows: int,
    num_burn_in: int,
) -> _Sample:
    target = ravel(reference)[0]
    # The windows of the burn-in do not count. They are in the same scan, since a second one would be compiled as well.
    counts = np.arange(num_burn_in + num_windows) >= num_burn_in

    def window(carry: tuple[Any, Any, _Sample], inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        state, problem_state, total = carry
        key, is_counted = inputs
        asked = ask_and_evaluate(strategy, problem, jax.random.split(key), state, problem_state)
        population, evaluation, state, problem_state = asked
        estimate = ravel(strategy.estimate(state, population, evaluation))[0]
        told = strategy.tell(state, population, evaluation)
        squared_norm = jnp.sum(jnp.square(estimate))
        norms = jnp.sqrt(squared_norm) * jnp.linalg.norm(target)
        cosine = jnp.where(norms > 0, estimate @ target / jnp.where(norms > 0, norms, 1), 0)
        row = _Sample(estimate, squared_norm, cosine, jnp.asarray(evaluation.steps, jnp.int32))
        total = jax.tree.map(lambda t, x: t + jnp.where(is_counted, x, 0).astype(t.dtype), total, row)
        return (strategy.with_descent(told, state.descent), problem_state, total), None  # the search stays where it is

    def sample(key: jax.Array) -> _Sample:
        key_init, key_problem, key_burn_in, key_windows = jax.random.split(key, 4)
        window_keys = jax.random.split(key_windows, num_windows)
        if num_burn_in:
            window_keys = jnp.concatenate([jax.random.split(key_burn_in, num_burn_in), window_keys])
        zero = jnp.zeros((), target.dtype)
        carry = (
            strategy.init(key_init, solution),
            problem.init(key_problem, strategy.groups, solution),
            _Sample(jnp.zeros_like(target), zero, zero, jnp.zeros((), jnp.int32)),
        )
        (_, _, total), _ = jax.lax.scan(window, carry, (window_keys, jnp.asarray(counts)))
        mean = jax.tree.map(lambda t: t / num_windows, total)
        return mean._replace(steps=total.steps)

    return jax.vmap(sample)(keys)


@functools.partial(Program, repeats=True)
def _mean_gradient(problem: Problem, solution: Solution, keys: jax.Array) -> Solution:
    gradients = jax.lax.map(lambda k: jax.grad(lambda x: problem.fitness(k, x))(solution), keys)
    return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)


def _exact_gradient(problem: Problem, solution: Solution, key: jax.Array, num_exact: int) -> Solution | None:
    """Returns the mean gradient over `num_exact` episodes, or `None` if it is not useful or not finite."""
    if not num_exact or not problem.differentiable:
        return None
    exact = _mean_gradient(problem, solution, jax.random.split(key, num_exact))
    return exact if all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(exact)) else None


def _mean_and_error(estimates: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over independent samples and the standard error of the mean, `[num_dims]` each."""
    samples = np.asarray(estimates, np.float64)
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
