"""Pruning at initialisation: chooses which weights of a network to keep, before any training.

Each criterion scores the weights and keeps the highest scores. Let theta be the initial solution, g the gradient of the
fitness and H its Hessian. The scores are

- `snip`: |theta g|, the first-order change of the fitness when a weight is removed. Lee, Ajanthan, Torr 2019, arXiv
  1810.02340. The paper also normalises the scores, which does not change their order.
- `grasp`: theta (H g). To first order, removing weight i changes |g|^2, the initial speed of gradient descent, by
  -2 theta_i (H g)_i. The paper's score is -theta (H g), and it removes the highest. Both keep |g| as large as possible.
  Wang, Zhang, Grosse 2020, arXiv 2002.07376, Algorithm 1.
- `synflow`: |theta dR/dtheta|, where R is the sum of the outputs of the network with weights |theta| on an input of
  ones. It uses no data. Weights are removed in many small steps, so that no layer loses all its weights before it must.
  Tanaka, Kunin, Yamins, Ganguli 2020, arXiv 2006.05467, Algorithm 1.
- `magnitude`: |theta|, a baseline.
- `random`: random scores, a baseline.

GraSP differs from the authors' code in two ways. Its g covers all trained parameters, biases included. The logits are
not divided by a temperature of 200, because a problem need not have logits.
"""

import contextlib
import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count
from zoo.core.keys import as_key
from zoo.core.leaves import as_patterns
from zoo.core.masks import Mask, apply_mask, full_mask, keep_best, num_prunable, prunable_leaves
from zoo.core.problem import Problem
from zoo.core.solution import Solution, check_solution, check_start
from zoo.loop.compiled import run_keys
from zoo.registry import ProblemLike, as_problem
from zoo.sparsity.tickets import Ticket

Criterion = Literal["snip", "grasp", "synflow", "magnitude", "random"]
Flow = Callable[[Solution], jax.Array]


@jax.transfer_guard("allow")
@checks_arguments
def prune_at_init(
    problem: ProblemLike,
    kept: float,
    criterion: Criterion = "snip",
    *,
    key: jax.Array | int = 0,
    solution: Solution | None = None,
    num_batches: int = 8,
    num_iterations: int | None = None,
    exclude: str | tuple[str, ...] = (),
    flow: Flow | None = None,
) -> Ticket:
    """Prunes a network before training, with one threshold over all layers.

    Args:
        problem: A problem, its id, or a dictionary of its id and settings.
        kept: Fraction of the prunable weights to keep, in (0, 1]. The number of kept weights is rounded to the nearest
            whole number, and is at least one.
        criterion: How weights are scored: `"snip"`, `"grasp"`, `"synflow"`, `"magnitude"` or `"random"`. The module's
            docstring describes them.
        key: JAX random key, or a seed. The initial solution is the one that `zoo.run` starts from with this key. The
            key also draws the batches and the random mask.
        solution: Initial solution. Defaults to `problem.initial_solution`.
        num_batches: Number of evaluations that the gradient is averaged over (snip, grasp).
        num_iterations: Number of pruning steps. Each step scores the remaining weights again and removes a fixed
            fraction of them. Defaults to 100 for synflow and 1 otherwise.
        exclude: Regular expressions. A leaf is never pruned if one of them is found in its path. Biases are never
            pruned either. See `zoo.core.masks.prunable_leaves`.
        flow: Function that returns the network's outputs on an input of ones, given a solution (synflow). It gets the
            solution in double precision, so that deep networks do not overflow. Defaults to the problem's network. If
            its activation is chosen by name, a ReLU replaces it: no value is negative, so each layer is linear, as in
            the paper. Biases enter R with their absolute values. They change only the scores of weights in later
            layers.

    Returns:
        The ticket. It is not trained, so `mean` is `None`.

    Raises:
        ValueError: If a setting is out of range, the solution does not fit the problem or is not finite, all scores are
            zero, or some scores are not finite.
        TypeError: If the problem lacks the gradient or the network that the criterion needs.

    >>> import zoo
    >>> ticket = zoo.prune_at_init("supervised/digits", 0.1, "magnitude")
    >>> round(ticket.kept, 3)
    0.1
    """
    problem = as_problem(problem)
    _check_settings(kept, criterion, num_batches=num_batches, num_iterations=num_iterations)
    _check_problem(problem, criterion, flow)
    keys = run_keys(as_key(key))
    if solution is None:
        solution = check_solution(problem.initial_solution(keys.solution))
    else:
        solution = check_start(solution, like=jax.eval_shape(problem.initial_solution, keys.solution))
    exclude = as_patterns(exclude, "exclude")
    size = num_prunable(solution, prunable_leaves(solution, exclude))
    num_kept = max(round(kept * size), 1)
    counts = _schedule(size, num_kept, num_iterations or (100 if criterion == "synflow" else 1))
    # R is a product over the layers, which may overflow in single precision.
    with jax.enable_x64(True) if criterion == "synflow" else contextlib.nullcontext():
        mask, finite, informative = _prune(
            problem,
            solution,
            keys.strategy if criterion == "random" else keys.problem,
            counts,
            criterion=criterion,
            num_batches=num_batches,
            exclude=exclude,
            flow=flow if criterion == "synflow" else None,
        )
    if num_kept < size and not isinstance(finite, jax.core.Tracer):
        _check_scores(criterion, bool(finite), bool(informative))
    return Ticket(mask=mask, solution=solution, kept=num_kept / size, info={"criterion": criterion})


@functools.partial(jax.jit, static_argnames=("criterion", "num_batches", "exclude", "flow"))
def _prune(
    problem: Problem,
    solution: Solution,
    key: jax.Array,
    counts: jax.Array,
    *,
    criterion: str,
    num_batches: int,
    exclude: tuple[str, ...],
    flow: Flow | None,
) -> tuple[Mask, jax.Array, jax.Array]:
    """Returns the mask, whether all scores were finite, and whether any score of the first step was not zero."""
    prunable = prunable_leaves(solution, exclude)

    def score(mask: Mask) -> Any:
        weights = apply_mask(mask, solution)
        if criterion == "random":
            return _random_like(key, weights)
        if criterion == "magnitude":
            return jax.tree.map(jnp.abs, weights)
        if criterion == "synflow":
            return _synflow_scores(flow or _network_flow(problem), weights)
        gradient = _mean_gradient(problem, key, num_batches)
        return (_snip_scores if criterion == "snip" else _grasp_scores)(gradient, weights, mask)

    def prune(mask: Mask, count: jax.Array) -> tuple[Mask, tuple[jax.Array, jax.Array]]:
        scores = score(mask)
        survivors = [
            jnp.where(m, s, 0)
            for m, s, is_chosen in zip(*map(jax.tree.leaves, (mask, scores, prunable)), strict=True)
            if is_chosen
        ]
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(s)) for s in survivors]))
        informative = jnp.any(jnp.stack([jnp.any(s != 0) for s in survivors]))
        return keep_best(scores, mask, count, prunable), (finite, informative)

    mask, (finite, informative) = jax.lax.scan(prune, full_mask(solution), counts)
    return mask, jnp.all(finite), informative[0]  # later steps may leave no path through the network


def _snip_scores(gradient: Callable[[Solution], Solution], weights: Solution, mask: Mask) -> Any:
    del mask  # pruned weights are zero already
    return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, gradient(weights))


def _grasp_scores(gradient: Callable[[Solution], Solution], weights: Solution, mask: Mask) -> Any:
    direction = apply_mask(mask, gradient(weights))  # pruned weights are not trained
    _, product = jax.jvp(gradient, (weights,), (direction,))  # H g
    return jax.tree.map(jnp.multiply, weights, product)


def _synflow_scores(flow: Flow, weights: Solution) -> Any:
    weights = jax.tree.map(lambda w: jnp.abs(w.astype(float)), weights)
    gradient = jax.grad(lambda w: jnp.sum(flow(w)))(weights)
    return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, gradient)


def _random_like(key: jax.Array, solution: Solution) -> Any:
    leaves, structure = jax.tree.flatten(solution)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def _mean_gradient(problem: Problem, key: jax.Array, num_batches: int) -> Callable[[Solution], Solution]:
    """Returns a function that averages the problem's surrogate gradient over the same evaluations in every call."""
    problem = problem.with_statistics(problem.init_statistics())
    keys = jax.random.split(key, num_batches)

    def gradient(solution: Solution) -> Solution:
        gradients = jax.lax.map(lambda k: problem.gradient(k, solution), keys)  # one by one, to bound memory
        return jax.tree.map(lambda g, x: jnp.mean(g, axis=0).astype(x.dtype), gradients, solution)

    return gradient


def _network_flow(problem: Any) -> Flow:
    """Returns the function from non-negative weights to the network's outputs on an input of ones."""
    network, inputs = problem.network_and_inputs
    if isinstance(getattr(network, "activation", None), str):  # a tanh would saturate
        network = dataclasses.replace(network, activation="relu")
    return lambda solution: network.apply(solution, jnp.ones_like(inputs, float))


def _schedule(size: int, num_kept: int, num_iterations: int) -> jax.Array:
    """Returns the number of weights to keep after each step: n r, n r^2, ... (SynFlow, Algorithm 1)."""
    steps = np.arange(1, num_iterations + 1) / num_iterations
    counts = np.round(size * (num_kept / size) ** steps)
    counts[-1] = num_kept
    return jnp.asarray(counts, jnp.int32)


def _check_settings(kept: Any, criterion: Any, **counts: Any) -> None:
    is_number = isinstance(kept, numbers.Real) and not isinstance(kept, bool)
    if not is_number or not 0 < float(kept) <= 1:
        raise ValueError(f"kept must be a fraction in (0, 1] of the prunable weights, got {kept!r}.")
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion must be one of {', '.join(get_args(Criterion))}, got {criterion!r}.")
    for name, count in counts.items():
        if name != "num_iterations" or count is not None:
            as_count(count, name)


def _check_problem(problem: Problem, criterion: str, flow: Flow | None) -> None:
    name = type(problem).__name__
    if criterion in ("snip", "grasp") and not problem.differentiable and type(problem).gradient is Problem.gradient:
        raise TypeError(
            f"{criterion} needs the gradient of the fitness, and {name} has none. Choose synflow, magnitude or random, "
            "or give the problem a `gradient` method. If autodiff of `fitness` is useful, set `differentiable = True`."
        )
    if criterion == "synflow" and flow is None and not hasattr(problem, "network_and_inputs"):
        raise TypeError(
            f"synflow needs a network, and {name} has no `network_and_inputs`. Pass flow=lambda solution: <outputs of "
            "the network on an input of ones>, or choose snip, grasp, magnitude or random."
        )


def _check_scores(criterion: str, finite: bool, informative: bool) -> None:
    if not finite:
        raise ValueError(
            f"{criterion} gives scores that are not finite at this solution, so the weights cannot be ranked. Pass a "
            "solution with smaller weights, or choose magnitude or random."
        )
    if not informative:
        raise ValueError(
            f"{criterion} gives every weight a score of zero at this solution. All weights may be zero, or no gradient "
            "may reach them. Pass another solution, or choose another criterion, such as random."
        )
