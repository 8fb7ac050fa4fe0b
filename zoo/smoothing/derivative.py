"""The derivative of a smoothed function: the forward pass, and the gradient estimate of the backward pass."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from zoo.core.noise import weighted_sum
from zoo.smoothing.block import Block, expand
from zoo.smoothing.sigma import find_sigma
from zoo.smoothing.subspace import orthonormal_basis, span


def differentiable(block: Block, key: jax.Array, sigma: jax.Array | None) -> list[jax.Array]:
    """Returns the results with their custom derivative. With `sigma=None`, searches for sigma."""
    call = jax.custom_vjp(lambda *operands: _forward(block, *operands)[0])
    rules = (functools.partial(rule, block) for rule in (_forward_rule, _backward_rule))
    call.defvjp(*rules, symbolic_zeros=True)
    return call(key, sigma, block.directions, block.x, block.rest)


def _forward(
    block: Block, key: Any, sigma: Any, directions: Any, x: Any, rest: Any, exact: Any = None
) -> tuple[Any, Any]:
    """Returns the results, and `(sigma, exact, samples)`.

    `exact` are the results at x, and `samples` are the floating-point results at the perturbed points. Both are `None`
    if they were not needed.
    """
    is_mean = block.settings.forward == "mean"
    if exact is None and (not is_mean or not all(block.is_float) or block.settings.baseline == "value"):
        exact = block.traced(x, rest)
    if not is_mean:
        return exact, (sigma, exact, None)
    basis = orthonormal_basis(directions, block.dtype)
    noise_key, probe_key = block.keys(key)
    if sigma is None:
        sigma = find_sigma(block, probe_key, basis, x, rest)
    noise = block.draw(noise_key, block.num_directions)
    samples = block.evaluate(block.floats, sigma, basis, block.both_signs(noise), x, rest)
    means = iter(_mean(block, samples))
    exact_or_none = exact or [None] * len(block.outs)
    results = [next(means) if f else e for f, e in zip(block.is_float, exact_or_none, strict=True)]
    return results, (sigma, exact, samples)


def _forward_rule(block: Block, key: Any, sigma: Any, directions: Any, x: Any, rest: Any) -> tuple[Any, Any]:
    """Returns the results, and the residuals for the backward pass."""
    key, sigma, directions, values, rest_values = _values((key, sigma, directions, x, rest))
    perturbed = {
        i: leaf.value for i, leaf in enumerate(rest) if leaf.perturbed and jnp.issubdtype(leaf.value.dtype, jnp.inexact)
    }
    exact, pullback = None, None
    if perturbed:

        def of_rest(perturbed: dict[int, Any]) -> tuple[Any, Any]:
            results = block.traced(values, [perturbed.get(i, leaf) for i, leaf in enumerate(rest_values)])
            return block.floats(results), results

        _, pullback, exact = jax.vjp(of_rest, perturbed, has_aux=True)
    results, (sigma, exact, samples) = _forward(block, key, sigma, directions, values, rest_values, exact)
    residuals = None
    if any(leaf.perturbed for leaf in x):
        value = block.floats(exact) if block.settings.baseline == "value" else None
        residuals = (key, sigma, directions, values, rest_values, value, samples)
    return results, (residuals, pullback)


def _backward_rule(block: Block, saved: Any, cotangents: Any) -> tuple[Any, ...]:
    """Returns the cotangents of the operands."""
    residuals, pullback = saved
    cotangents = [c for c, is_float in zip(cotangents, block.is_float, strict=True) if is_float]
    x_bar, rest_bar = None, [None] * len(block.rest)
    if pullback is not None:
        outs = block.floats(block.outs)
        dense = [
            jnp.zeros(o.shape, o.dtype) if type(c) is SymbolicZero else c for o, c in zip(outs, cotangents, strict=True)
        ]
        (by_index,) = pullback(dense)
        rest_bar = [by_index.get(i) for i in range(len(block.rest))]
    if residuals is not None:
        x_bar = _estimate(block, cotangents, *residuals)
    return None, None, None, x_bar, rest_bar


def _estimate(
    block: Block, cotangents: Any, key: Any, sigma: Any, directions: Any, x: Any, rest: Any, value: Any, samples: Any
) -> list[jax.Array]:
    """Returns the estimated cotangent of x."""
    basis = orthonormal_basis(directions, block.dtype)
    noise_key, probe_key = block.keys(key)
    if sigma is None:
        sigma = find_sigma(block, probe_key, basis, x, rest)
    noise = block.draw(noise_key, block.num_directions)
    score = functools.partial(_score, block, cotangents)
    if samples is None:
        shifts = block.both_signs(noise)
        scores = block.evaluate(lambda results: score(block.floats(results)), sigma, basis, shifts, x, rest)
    else:
        scores = jax.vmap(score)(samples)
    weights = _weights(block, scores, None if value is None else score(value))
    weights = weights / jnp.broadcast_to(sigma, weights.shape)
    gradient = span(_contract(block, weights, noise), basis)
    known = [jnp.isfinite(c).all(axis=block.trailing(c)) for c in cotangents if type(c) is not SymbolicZero]
    known = functools.reduce(jnp.logical_and, known, jnp.ones(block.lead, bool))
    return [
        jnp.where(expand(known, g), g, jnp.nan).astype(leaf.dtype) for g, leaf in zip(gradient, block.x, strict=True)
    ]


def _weights(block: Block, scores: jax.Array, value: jax.Array | None) -> jax.Array:
    """Returns sigma times the weight of each direction, `[num_directions, *lead]`.

    A direction whose score is not finite has weight zero.
    """
    if block.settings.antithetic:
        plus, minus = jnp.split(scores, 2)
        scores = (plus - minus) / 2
    valid = jnp.isfinite(scores)
    scores = jnp.where(valid, scores, 0)
    count = jnp.sum(valid, axis=0).astype(block.dtype)
    if value is not None:
        scores = scores - jnp.where(jnp.isfinite(value), value, 0)[None]
    elif not block.settings.antithetic and block.settings.baseline != "none":
        scores = scores - (jnp.sum(scores, axis=0) / jnp.maximum(count, 1))[None]
        if block.settings.sampler != "sobol":
            # s_i minus the mean of the others is s_i minus the mean of all, times n / (n - 1). This is unbiased for
            # orthogonal directions too: given the others, a direction and its opposite are equally likely.
            scores = scores * count[None] / jnp.maximum(count - 1, 1)[None]
    return jnp.where(valid, scores, 0) / jnp.maximum(count, 1)[None]


def _score(block: Block, cotangents: list[Any], floats: list[jax.Array]) -> jax.Array:
    """Returns <cotangent, results>, `[*lead]`."""
    products = [
        jnp.sum(r.astype(block.dtype) * c.astype(block.dtype), axis=block.trailing(r))
        for r, c in zip(floats, cotangents, strict=True)
        if type(c) is not SymbolicZero
    ]
    return sum(products, jnp.zeros(block.lead, block.dtype))


def _mean(block: Block, samples: list[jax.Array]) -> list[jax.Array]:
    """Returns the mean over the finite samples, or NaN if no sample is finite."""
    finite = [jnp.isfinite(s).all(axis=tuple(range(1 + len(block.lead), s.ndim))) for s in samples]
    valid = functools.reduce(jnp.logical_and, finite)
    if block.settings.antithetic:
        valid = jnp.tile(valid.reshape(2, -1, *block.lead).all(axis=0), (2, *[1] * len(block.lead)))
    count = jnp.sum(valid, axis=0).astype(block.dtype)
    count = jnp.where(count > 0, count, jnp.nan)
    sums = [jnp.sum(jnp.where(expand(valid, s), s, 0), axis=0, dtype=block.dtype) for s in samples]
    return [(t / expand(count, t)).astype(s.dtype) for t, s in zip(sums, samples, strict=True)]


def _contract(block: Block, weights: jax.Array, noise: list[jax.Array]) -> list[jax.Array]:
    """Returns the weighted sum over directions, each leaf `[*lead, ...]`."""
    return weighted_sum(weights, noise) if block.size is None else jax.vmap(weighted_sum, 1)(weights, noise)


def _values(tree: Any) -> Any:
    """Returns the arrays of a tree of `CustomVJPPrimal`."""
    is_primal = lambda leaf: isinstance(leaf, CustomVJPPrimal)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=is_primal)
