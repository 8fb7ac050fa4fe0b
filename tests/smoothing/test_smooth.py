"""Tests `zoo.smooth` against analytic gradients of Gaussian-smoothed functions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import zoo
from zoo.smoothing import samplers
from zoo.smoothing.smooth import Smooth
from zoo.smoothing.subspace import orthonormal_basis

NORMAL = scipy.stats.norm
SAMPLERS = ["normal", "orthogonal", "sobol"]
VARIANCE_REDUCTIONS = [
    {"antithetic": True},
    {"antithetic": False},
    {"antithetic": False, "baseline": "value"},
    {"antithetic": False, "baseline": "none"},
]


def estimates(soft, x, *args, num=2000, seed=1, argnums=1):
    """Returns `num` independent gradients of the sum of the results, stacked."""
    gradient = jax.grad(lambda key, *a: jnp.sum(soft(key, *a)), argnums)
    axes = (0, *[None] * (1 + len(args)))
    samples = jax.jit(jax.vmap(gradient, axes))(jax.random.split(jax.random.key(seed), num), x, *args)
    return jax.tree.map(np.asarray, samples)


def assert_mean(samples, expected, k=5, atol=1e-6):
    """Checks that the mean of independent samples is within k standard errors of the expected value."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=0) / math.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - expected), k * error + atol)


def argmax_gradient(logits, sigma, label=0):
    """Returns the gradient of P(argmax(logits + sigma eps) = label), by quadrature."""
    logits = np.asarray(logits, np.float64)
    others = [j for j in range(len(logits)) if j != label]
    gradient = np.zeros(len(logits))
    for j in others:

        def density(t, j=j):
            z = (t - logits) / sigma
            rest = np.prod(scipy.special.ndtr(np.delete(z, (label, j))))
            return rest * math.exp(-(z[label] ** 2 + z[j] ** 2) / 2) / (2 * math.pi * sigma**2)

        middle = (logits[label] + logits[j]) / 2
        gradient[j] = -scipy.integrate.quad(density, middle - 9 * sigma, middle + 9 * sigma)[0]
    gradient[label] = -gradient.sum()
    return gradient


def step_gradient(a, b, x, sigma):
    """Returns the gradient of P(a . (x + sigma eps) > b)."""
    scale = sigma * np.linalg.norm(a)
    return NORMAL.pdf((np.dot(a, x) - b) / scale) / scale * np.asarray(a)


def correct(logits, label=0):
    return (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)


# Bias

A = np.array([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 2.0]], np.float32)
LINEAR = np.array([0.5, -1.0, 0.2], np.float32)
POINT = np.array([0.3, 0.5, -0.2], np.float32)


@pytest.mark.parametrize("reduction", VARIANCE_REDUCTIONS, ids=["pairs", "leave_one_out", "value", "none"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_estimates_are_unbiased(sampler, reduction):
    """Estimates for a quadratic, a step and the accuracy of an argmax are unbiased. They share one program."""
    sigma = 0.7

    def fn(x):
        return jnp.stack([x @ A @ x + LINEAR @ x, (LINEAR @ x > 0.1).astype(jnp.float32), correct(x)])

    soft = zoo.smooth(fn, sigma=sigma, num_samples=16, sampler=sampler, **reduction)

    @jax.jit
    @jax.vmap
    def jacobian(key):
        return jax.jacrev(soft, argnums=1)(key, POINT)

    samples = jacobian(jax.random.split(jax.random.key(2), 4000))
    expected = [2 * A @ POINT + LINEAR, step_gradient(LINEAR, 0.1, POINT, sigma), argmax_gradient(POINT, sigma)]
    assert_mean(samples, np.stack(expected))


def test_block_and_objective_smoothing_have_different_targets():
    """With a nonlinear loss of two steps, each estimate is unbiased for its own target."""
    x, sigma = np.array([0.3, -0.2], np.float32), 0.5

    def block(x):
        return (x > 0).astype(jnp.float32)

    def loss(y):
        return (jnp.sum(y) - 1.7) ** 2

    probability = NORMAL.cdf(x / sigma)
    slope = NORMAL.pdf(x / sigma) / sigma
    of_block = 2 * (1 - 1.7) * slope  # the block is (1, 0) at x
    of_objective = (1 + 2 * probability[::-1] - 2 * 1.7) * slope
    assert np.min(np.abs(of_block - of_objective)) > 0.1
    soft = zoo.smooth(block, sigma=sigma, num_samples=32)
    assert_mean(estimates(lambda key, x: loss(soft(key, x)), x), of_block)
    soft = zoo.smooth(lambda x: loss(block(x)), sigma=sigma, num_samples=32, antithetic=False)
    assert_mean(estimates(soft, x), of_objective)


def test_tiny_perturbations_in_double_precision_give_the_directional_derivatives(key, x64):
    """Antithetic pairs on a quadratic give the derivatives of its tangent, for every sigma."""
    x, a, linear = (jnp.array(values, jnp.float64) for values in (POINT, A, LINEAR))
    gradient = 2 * a @ x + linear
    quadratic = zoo.smooth(lambda x: x @ a @ x + linear @ x, sigma=1e-5, num_samples=8)
    tangent = zoo.smooth(lambda x: gradient @ x, sigma=1.0, num_samples=8)
    estimate, expected = jax.jit(lambda x: (jax.grad(quadratic, 1)(key, x), jax.grad(tangent, 1)(key, x)))(x)
    assert estimate.dtype == jnp.float64
    np.testing.assert_allclose(estimate, expected, rtol=1e-8)
    for sampler in ("orthogonal", "sobol"):
        samples = estimates(zoo.smooth(quadratic.fn, sigma=1e-5, num_samples=8, sampler=sampler), x, num=200)
        assert samples.dtype == jnp.float64
        assert_mean(samples, gradient)


# Forward pass


def test_the_forward_pass_is_the_function_itself_called_once(key):
    calls = []

    def count(x):
        calls.append(x.shape)
        return np.sin(x) * np.float32(1.1)

    soft = zoo.smooth(zoo.from_numpy(count), sigma=0.1, num_samples=6)
    x = np.linspace(0, 3, 7, dtype=np.float32)
    call = jax.jit(soft)
    jax.block_until_ready(call(key, x))  # traces fn once, for the shape of the result
    calls.clear()
    y = jax.block_until_ready(call(key, x))
    assert len(calls) == 1
    np.testing.assert_array_equal(y, np.sin(x) * np.float32(1.1))
    calls.clear()
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(soft(key, x))))(x)
    jax.block_until_ready(gradient)
    assert np.isfinite(value)
    assert len(calls) == 1 + 6


def test_the_mean_forward_is_that_of_the_samples_which_the_gradient_uses_again(key):
    x, sigma = jnp.array(0.2), 0.5

    def fn(x):
        return {"step": (x > 0).astype(jnp.float32), "count": jnp.asarray(x > 0, jnp.int32)}

    soft = zoo.smooth(fn, sigma=sigma, num_samples=32, forward="mean")
    exact = zoo.smooth(fn, sigma=sigma, num_samples=32)
    keys = jax.random.split(key, 500)

    def both(key):
        value, gradient = jax.value_and_grad(lambda x: soft(key, x)["step"])(x)
        return value, gradient, jax.grad(lambda x: exact(key, x)["step"])(x), soft(key, x)["count"]

    values, gradients, others, counts = jax.jit(jax.vmap(both))(keys)
    assert_mean(values, NORMAL.cdf(0.2 / sigma))
    assert_mean(gradients, NORMAL.pdf(0.2 / sigma) / sigma)
    np.testing.assert_allclose(gradients, others, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(counts, 1)  # integers are evaluated at x
    np.testing.assert_allclose(values * 32, np.round(values * 32), atol=1e-4)


# Batches


def test_under_vmap_every_example_has_its_own_noise(key):
    soft = zoo.smooth(correct, sigma=0.5, num_samples=8)
    gradient = jax.jit(jax.grad(soft, argnums=1))
    x = jax.random.normal(key, (5, 3))
    keys = jax.random.split(key, 5)
    together = jax.jit(jax.vmap(gradient))(keys, x)
    alone = np.stack([gradient(k, row) for k, row in zip(keys, np.asarray(x), strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "orthogonal", "antithetic": False},
        {"sampler": "sobol", "antithetic": False, "baseline": "value", "sigma": "auto"},
        {
            "sampler": "normal",
            "forward": "mean",
            "antithetic": False,
            "subspace": {"a": np.array([[1, 1, 1], [0, 1, 2]]), "b": np.array([0, 1])},
        },
    ],
    ids=["orthogonal", "sobol auto", "mean in a subspace"],
)
def test_a_batched_function_gets_what_vmap_would_give(key, settings):
    """A batched function gives the same noise and the same gradient per example, with one call per sample."""
    settings = {"sigma": 0.5, "num_samples": 8, **settings}

    def fn(x, scale):
        return correct(x["a"]) * x["b"] ** 2 * scale, x["a"] > 0

    x = {"a": jax.random.normal(key, (6, 3)), "b": jnp.arange(1.0, 7)}
    single = zoo.smooth(fn, **settings)
    batched = zoo.smooth(fn, batched=True, **settings)

    def both(soft, key, x):
        (y, _), pullback = jax.vjp(lambda x: soft(key, x, 2.0), x)
        return y, pullback((jnp.cos(y), np.zeros(_.shape, jax.dtypes.float0)))[0]

    one = jax.jit(jax.vmap(lambda key, x: both(single, key, x)))(jax.random.split(key, 6), x)
    other = jax.jit(lambda key, x: both(batched, key, x))(key, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), one, other)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(other[1]))


def test_a_joint_draw_costs_the_batch_size_in_variance():
    size, sigma = 16, 0.6
    x = jax.random.normal(jax.random.key(5), (size, 3))
    per_example = estimates(zoo.smooth(correct, sigma=sigma, num_samples=16, batched=True), x, num=500)
    joint = estimates(zoo.smooth(lambda x: jnp.sum(correct(x)), sigma=sigma, num_samples=16), x, num=500)
    expected = np.stack([argmax_gradient(row, sigma) for row in np.asarray(x)])
    assert_mean(per_example, expected)
    assert_mean(joint, expected)
    assert 0.5 * size < np.mean(np.var(joint, axis=0)) / np.mean(np.var(per_example, axis=0)) < 2 * size


def test_a_sigma_per_example(key):
    x = np.zeros((4, 2), np.float32)
    soft = zoo.smooth(lambda x: x[:, 0] ** 3, sigma=1.0, batched=True, num_samples=4)
    sigmas = np.array([0.1, 0.2, 0.4, 1.0], np.float32)
    gradient = jax.jit(lambda sigma: jax.grad(lambda x: jnp.sum(soft(key, x, sigma=sigma)))(x))
    per_example, of_one = np.asarray(gradient(sigmas)), np.asarray(gradient(sigmas[3]))
    for i, sigma in enumerate(sigmas):
        np.testing.assert_allclose(per_example[i], np.asarray(gradient(sigma))[i], rtol=1e-5)
        np.testing.assert_allclose(per_example[i], of_one[i] * sigma**2, rtol=1e-4)


# Transformations and structures


def test_training_in_a_scan(key):
    """Gradient ascent through layers around the block raises the probability that a classifier is right."""
    soft = zoo.smooth(correct, sigma=0.5, num_samples=32)
    inputs = np.abs(jax.random.normal(key, (20, 4)))
    inputs[:, 0] += 1
    weights = np.zeros((4, 3), np.float32)
    weights[0, 1] = 1

    @jax.jit
    def train(weights, key):
        def objective(weights, key):
            return jnp.mean(jax.vmap(soft)(jax.random.split(key, 20), inputs @ weights))

        def step(weights, key):
            value, gradient = jax.value_and_grad(objective)(weights, key)
            return weights + 0.5 * gradient, value

        return jax.lax.scan(step, weights, jax.random.split(key, 100))

    values = np.asarray(train(weights, key)[1])
    assert values[0] == 0
    assert values[-1] > 0.9


def test_structures_and_precisions_are_kept(key):
    x = {
        "half": np.ones((2, 2), jnp.bfloat16),
        "other": [np.ones(3, np.float16), np.ones((), np.float32)],
    }

    def fn(x):
        total = sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(x))
        return {"y": total.astype(jnp.bfloat16), "z": total}

    for sampler in SAMPLERS[:2]:
        soft = zoo.smooth(fn, sigma=0.5, num_samples=256, sampler=sampler)

        def loss(x, soft=soft):
            results = soft(key, x)
            return results["z"], results

        gradient, results = jax.jit(jax.grad(loss, has_aux=True))(x)
        assert (results["y"].dtype, results["z"].dtype) == (jnp.bfloat16, jnp.float32)
        assert jax.tree.structure(gradient) == jax.tree.structure(x)
        for g, leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(x), strict=True):
            assert (g.shape, g.dtype) == (leaf.shape, leaf.dtype)
            np.testing.assert_allclose(np.asarray(g, np.float32), 1.0, atol=1.2)


def test_arguments_and_closures_get_the_gradients_of_autodiff(key):
    x, w = np.array([1.0, -2.0], np.float32), np.array([0.5, 3.0], np.float32)
    labels = np.array([0, 1], np.int32)

    def fn(x, w, labels):
        return jnp.sum(w**2 * jnp.sign(x) * (labels + 1).astype(w.dtype)), labels

    exact = 2 * w * np.sign(x) * (labels + 1).astype(w.dtype)
    for settings in ({}, {"forward": "mean"}, {"antithetic": False, "baseline": "value"}):
        soft = zoo.smooth(fn, sigma=0.5, num_samples=4, **settings)
        of_arg = jax.jit(jax.grad(lambda w: soft(key, x, w, labels)[0]))(w)  # noqa: B023
        np.testing.assert_allclose(of_arg, exact, rtol=1e-6)

    def closing_over(w, x, labels):
        return zoo.smooth(lambda x: fn(x, w, labels)[0], sigma=0.5, num_samples=4)(key, x)

    soft = zoo.smooth(fn, sigma=0.5, num_samples=4)
    of_w, of_x = jax.jit(jax.grad(closing_over, argnums=(0, 1)))(w, x, labels)
    np.testing.assert_allclose(of_w, exact, rtol=1e-6)
    np.testing.assert_allclose(of_x, jax.jit(jax.grad(lambda x: soft(key, x, w, labels)[0]))(x), rtol=1e-5)
    stacked = jax.jit(jax.vmap(jax.grad(closing_over), (None, 0, 0)))(w, np.stack([x, -x]), np.stack([labels, labels]))
    np.testing.assert_allclose(stacked, np.stack([exact, -exact]), rtol=1e-6)


def test_no_samples_are_spent_where_x_needs_no_gradient(key):
    calls = []
    host = zoo.from_numpy(lambda x: (calls.append(0), np.sign(x))[1], result=jax.ShapeDtypeStruct((2,), jnp.float32))
    soft = zoo.smooth(lambda x, w: host(x) * w, sigma=0.5, num_samples=4)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(soft(key, jnp.ones(2), w))))(np.ones(2, np.float32))
    np.testing.assert_array_equal(gradient, [1.0, 1.0])
    assert len(calls) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_in_chunks_the_estimate_is_the_same(key, batch_size):
    x = np.array([0.1, 0.2, 0.3], np.float32)
    whole = zoo.smooth(lambda x: jnp.sin(x) * correct(x), sigma=0.5, num_samples=8, antithetic=False)
    parts = zoo.smooth(whole.fn, sigma=0.5, num_samples=8, antithetic=False, batch_size=batch_size)
    one, other = (jax.jit(jax.jacrev(soft, 1))(key, x) for soft in (whole, parts))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# Samplers


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_draw_is_standard_normal(sampler, key):
    num, dim = 12, 5
    space = [jax.ShapeDtypeStruct((2, 2), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)]
    draw = jax.jit(jax.vmap(lambda key: samplers.draw(key, sampler=sampler, space=space, num=num)))
    draws = draw(jax.random.split(key, 3000))
    flat = np.concatenate([np.asarray(z).reshape(3000, num, -1) for z in draws], axis=2)
    assert np.all(np.isfinite(flat))
    for i, j in itertools.product((0, 3, num - 1), range(dim)):
        assert scipy.stats.kstest(flat[:, i, j], NORMAL.cdf).pvalue > 1e-5
    for i in (0, num - 1):
        assert scipy.stats.kstest(np.sum(flat[:, i] ** 2, axis=1), scipy.stats.chi2(dim).cdf).pvalue > 1e-5
        np.testing.assert_allclose(np.corrcoef(flat[:, i].T), np.eye(dim), atol=5 / math.sqrt(3000))
    if sampler == "orthogonal":
        for block in (slice(0, 5), slice(5, 10), slice(10, 12)):
            rows = flat[:, block] / np.linalg.norm(flat[:, block], axis=2, keepdims=True)
            products = rows @ rows.swapaxes(1, 2)
            np.testing.assert_allclose(products, np.broadcast_to(np.eye(rows.shape[1]), products.shape), atol=1e-5)
        lengths = np.linalg.norm(flat, axis=2)
        np.testing.assert_allclose(np.corrcoef(lengths.T), np.eye(num), atol=5 / math.sqrt(3000))
    if sampler == "sobol":  # each of the first eight points is in its own eighth of every coordinate
        cells = np.floor(NORMAL.cdf(flat[:, :8]) * 8)
        np.testing.assert_array_equal(np.sort(cells, axis=1), np.broadcast_to(np.arange(8)[:, None], cells.shape))


def test_orthogonal_and_sobol_have_less_error_than_independent_draws():
    x, sigma = np.linspace(0, 0.9, 10).astype(np.float32), 0.5
    expected = argmax_gradient(x, sigma, label=7)
    errors = {}
    for sampler in SAMPLERS:
        soft = zoo.smooth(lambda x: correct(x, 7), sigma=sigma, num_samples=64, antithetic=False, sampler=sampler)
        errors[sampler] = np.mean((estimates(soft, x, num=1000) - expected) ** 2)
    assert errors["orthogonal"] < 0.95 * errors["normal"]
    assert errors["sobol"] < 0.8 * errors["normal"]


# A subspace


def test_in_a_subspace_the_estimate_is_of_the_projection():
    x = {"a": jnp.array([0.3, -0.2, 0.5]), "b": jnp.array([0.1, 0.4])}
    directions = {
        "a": jnp.array([[1.0, 1, 0], [0, 0, 0], [2, 2, 0], [1, 1, 0.1]]),
        "b": jnp.array([[0.0, 1], [1, 1], [0, 2], [1, 2]]),
    }  # the third is twice the first; the last is the sum of the first two, plus a tenth of a third dimension
    slope = np.array([1.0, -0.5, 0.7, 2.0, -1.0])

    def fn(x):
        return jnp.concatenate([x["a"], x["b"]]) @ slope

    rows = np.concatenate([directions["a"], directions["b"]], axis=1).astype(np.float64)
    basis = np.linalg.svd(rows, full_matrices=False)[2][:3]
    for sampler in SAMPLERS[1:]:
        soft = zoo.smooth(fn, sigma=0.5, num_samples=16, sampler=sampler, subspace=directions)
        samples = estimates(soft, x, num=500)
        flat = np.concatenate([samples["a"], samples["b"]], axis=1)
        np.testing.assert_allclose(flat @ basis.T @ basis, flat, atol=5e-3)
        assert_mean(flat, slope @ basis.T @ basis, atol=5e-3)
        scores = flat @ basis.T  # second moments of a three-dimensional estimate from eight directions
        assert np.all(np.var(scores, axis=0) < 2.5 * slope @ slope / 8)


def test_duplicate_directions_are_masked():
    directions = np.array([[1.0, 2, 2], [-3, -6, -6], [0, 0, 0]], np.float32)
    (basis,) = map(np.asarray, jax.jit(lambda d: orthonormal_basis([d], jnp.float32))(directions))
    np.testing.assert_allclose(np.sum(basis**2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(basis.T @ basis, np.outer([1, 2, 2], [1, 2, 2]) / 9, atol=1e-6)


# Sigma


def test_automatic_sigma_is_where_outcomes_change(key):
    """Automatic sigma changes about 70 % of the results of an argmax, and has less error than a fixed sigma."""
    scale = 20.0
    x = np.float32(scale) * np.array([1.0, 0.9, 0.5, 0.2, 0.0, -0.2, -0.4, -0.6, -0.8, -1.0], np.float32)
    settings = {"num_samples": 64, "num_probes": 64}
    soft = zoo.smooth(correct, sigma="auto", **settings)

    @jax.jit
    @jax.vmap
    def found_and_gradients(key):
        sigma = soft.find_sigma(key, x)
        gradient = jax.grad(soft, argnums=1)
        return sigma, gradient(key, x), gradient(key, x, sigma=sigma)

    found, gradients, same = found_and_gradients(jax.random.split(key, 100))
    np.testing.assert_allclose(gradients, same, rtol=1e-5, atol=1e-7)
    many = zoo.smooth(correct, sigma="auto", num_probes=1000)
    rates = jax.jit(jax.vmap(lambda s: many.change_rate(jax.random.key(3), s, x)))(found)
    assert abs(np.mean(rates) - 0.7) < 0.05
    assert 0.1 * scale < np.median(found) < 3 * scale

    def direction_error(samples, sigma):
        exact, samples = argmax_gradient(x, sigma), np.asarray(samples)
        lengths = np.linalg.norm(samples, axis=1, keepdims=True)
        unit = samples / np.where(lengths > 0, lengths, 1)
        return np.mean(np.sum((unit - exact / np.linalg.norm(exact)) ** 2, axis=1))

    error = direction_error(gradients, float(np.median(found)))
    fixed = direction_error(estimates(zoo.smooth(correct, sigma=0.3, **settings), x, num=100), 0.3)
    assert error < fixed / 2
    assert error < 0.6


def test_the_search_ends_at_the_ends_of_its_range(key):
    x = np.array([1.0, 2.0], np.float32)
    settings = {"sigma": "auto", "sigma_range": (0.01, 10.0), "num_samples": 4}

    def found(fn, **settings):
        return jax.jit(zoo.smooth(fn, **settings).find_sigma)(key, x)

    np.testing.assert_allclose(found(jnp.sum, **settings), 0.01, rtol=0.05)
    np.testing.assert_allclose(found(lambda x: 0 * jnp.sum(x) + 3, **settings), 10.0, rtol=0.05)
    # A change below the tolerance does not count: 70 % of normals are above 0.385.
    tolerant = found(lambda x: x[0], **settings, tolerance=0.385, num_probes=2000)
    np.testing.assert_allclose(tolerant, 1.0, rtol=0.1)
    # Integers and booleans count as results.
    counting = found(lambda x: (0 * x[0], x[0] > 1.5), sigma="auto", target_rate=0.25, num_probes=2000)
    np.testing.assert_allclose(counting, 0.5 / NORMAL.isf(0.25), rtol=0.1)


def test_sigma_adapts_in_a_loop(key):
    x = np.array([[0.5, 0.0], [5.0, 0.0]], np.float32)
    soft = zoo.smooth(correct, sigma=1.0, batched=True, target_rate=0.25)
    exact = np.array([0.5, 5.0]) / math.sqrt(2) / NORMAL.isf(0.25)

    @jax.jit
    def adapt(sigma):
        def step(sigma, key):
            sigma = soft.adapt_sigma(key, sigma, x)
            return sigma, sigma

        return jax.lax.scan(step, sigma, jax.random.split(key, 400))[1]

    sigmas = np.asarray(adapt(np.ones(2, np.float32)))
    np.testing.assert_allclose(np.exp(np.mean(np.log(sigmas[100:]), axis=0)), exact, rtol=0.2)
    shared = np.asarray(adapt(np.float32(1)))[100:]
    assert shared.shape == (300,)
    assert exact[0] < np.median(shared) < exact[1]


def test_sigma_may_be_traced_and_has_no_gradient(key):
    soft = zoo.smooth(lambda x: x**3, sigma=1.0, num_samples=8)
    gradient = jax.jit(lambda sigma: jax.grad(soft, 1)(key, jnp.array(0.0), sigma=sigma))
    np.testing.assert_allclose(gradient(0.5), np.asarray(gradient(1.0)) / 4, rtol=1e-5)
    np.testing.assert_allclose(gradient(1.0), jax.jit(jax.grad(soft, 1))(key, 0.0), rtol=1e-5)
    assert jax.jit(jax.grad(lambda s: soft(key, jnp.array(1.0), sigma=s)))(0.5) == 0


# Values that are not finite


@pytest.mark.parametrize("reduction", VARIANCE_REDUCTIONS, ids=["pairs", "leave_one_out", "value", "none"])
def test_a_constant_has_a_zero_gradient(key, reduction):
    sigma = "auto" if "baseline" in reduction else 0.5
    soft = zoo.smooth(lambda x: jnp.zeros(2) * x, sigma=sigma, num_samples=8, **reduction)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: jnp.sum(soft(key, x))))(jnp.ones(2)), [0.0, 0.0])


@pytest.mark.parametrize(
    ("forward", "reduction"),
    [("mean", VARIANCE_REDUCTIONS[0]), ("exact", VARIANCE_REDUCTIONS[1]), ("mean", VARIANCE_REDUCTIONS[2])],
    ids=["mean pairs", "leave_one_out", "mean value"],
)
def test_samples_that_are_not_finite_are_left_out(reduction, forward):
    """Samples outside a symmetric band, in which the function is linear, are NaN or infinite and are left out."""

    def fn(x):
        return jnp.where(x[0] > 1, jnp.nan, jnp.where(x[0] < -1, jnp.inf, x[0] + 2 * x[1]))

    soft = zoo.smooth(fn, sigma=1.0, num_samples=16, forward=forward, **reduction)
    samples = estimates(soft, jnp.zeros(2), num=2000)
    # E[eps^2 | inside] in the banded direction
    inside = 1 - 2 * NORMAL.pdf(1) / (NORMAL.cdf(1) - NORMAL.cdf(-1))
    assert_mean(samples, [inside, 2.0], atol=2e-3)
    if forward == "mean":
        values = jax.jit(jax.vmap(soft, (0, None)))(jax.random.split(jax.random.key(1), 500), jnp.zeros(2))
        assert_mean(values, 0.0)


def test_where_no_sample_is_finite_the_gradient_is_zero_but_a_bad_cotangent_shows(key):
    soft = zoo.smooth(lambda x: jnp.where(x == 0.5, 1.0, jnp.nan), sigma=1.0, num_samples=4, batched=True)
    x = np.array([0.5, 0.5], np.float32)
    weights = np.array([1.0, np.nan], np.float32)
    gradient, y = jax.jit(jax.grad(lambda x: (weights @ soft(key, x), soft(key, x)), has_aux=True))(x)
    np.testing.assert_array_equal(y, [1.0, 1.0])
    np.testing.assert_array_equal(gradient, [0.0, jnp.nan])
    mean = zoo.smooth(soft.fn, sigma=1.0, num_samples=4, batched=True, forward="mean")
    assert np.all(np.isnan(jax.jit(mean)(key, x)))


# Error messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "halton"}, "sampler must be one of"),
        ({"forward": "sampled"}, "forward must be one of"),
        ({"antithetic": False, "baseline": "mean"}, "baseline must be one of"),
        ({"num_samples": 7}, "even with antithetic=True"),
        ({"num_samples": 0, "antithetic": False}, "num_samples must be positive"),
        ({"baseline": "value"}, "it cancels in each pair"),
        ({"num_samples": 1, "antithetic": False}, "num_samples must be at least 2"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"target_rate": 1.0}, "0 < target_rate < 1"),
        ({"num_probes": 0}, "num_probes >= 1"),
        ({"tolerance": math.nan}, "tolerance must be a number, got nan"),
        ({"sigma_range": (1.0, 0.1)}, "sigma_range must be 0 < low < high"),
        ({"sigma": 0.0}, "sigma must be a positive number"),
        ({"sigma": "adaptive"}, "positive number or 'auto', got 'adaptive'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        zoo.smooth(jnp.sum, **{"sigma": 1.0, **settings})


def test_what_is_called_is_checked(key):
    with pytest.raises(TypeError, match="expects a function"):
        zoo.smooth(3, sigma=1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"x\['n'\] is int32.*Pass what is not perturbed in args"):
        zoo.smooth(lambda x: x["a"], sigma=1.0)(key, {"a": jnp.ones(2), "n": jnp.ones(2, jnp.int32)})
    with pytest.raises(ValueError, match="x must have at least one entry"):
        zoo.smooth(lambda x: 1.0, sigma=1.0)(key, [])
    with pytest.raises(TypeError, match=r"Cast it .* wrap block and loss together"):
        zoo.smooth(jnp.argmax, sigma=1.0)(key, jnp.ones(3))
    with pytest.raises(ValueError, match="sigma must be a positive number"):
        zoo.smooth(jnp.sum, sigma=1.0)(key, jnp.ones(3), sigma=-1.0)
    with pytest.raises(ValueError, match=r"of shape \(\), got shape \(3,\). For one sigma per example"):
        zoo.smooth(jnp.sum, sigma=1.0)(key, jnp.ones(3), sigma=jnp.ones(3))
    with pytest.raises(ValueError, match="at most 21201 dimensions"):
        jax.grad(zoo.smooth(jnp.sum, sigma=1.0, sampler="sobol"), 1)(key, jnp.ones(30_000))


def test_batches_are_checked(key):
    with pytest.raises(ValueError, match="or use batched=False for a scalar loss"):
        zoo.smooth(jnp.sum, sigma=1.0, batched=True)(key, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="same leading axis"):
        zoo.smooth(lambda x: x[0], sigma=1.0, batched=True)(key, (jnp.ones(4), jnp.ones(3)))
    with pytest.raises(ValueError, match=r"\(\) or \(4,\), got shape \(2,\)"):
        zoo.smooth(lambda x: x[:, 0], sigma=jnp.ones(2), batched=True)(key, jnp.ones((4, 2)))


@pytest.mark.parametrize(
    ("subspace", "message"),
    [
        (np.ones((2, 4)), r"leading axis of directions: expected shape \(2, 3\), got \(2, 4\)"),
        (np.ones(3), r"expected shape \(3, 3\), got \(3,\)"),
        ({"a": np.ones((2, 3))}, r"expected shape \(2, 3\), got a dict"),
        (np.ones((0, 3)), "has no directions"),
    ],
    ids=["shape", "flat", "tree", "k"],
)
def test_subspaces_are_checked(key, subspace, message):
    with pytest.raises(ValueError, match=message):
        zoo.smooth(jnp.sum, sigma=1.0, subspace=subspace)(key, jnp.ones(3))


def test_it_is_exported():
    assert isinstance(zoo.smooth(jnp.sum, sigma=1.0), Smooth)
