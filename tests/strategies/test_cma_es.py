"""CMA-ES against a NumPy transcription of the tutorial, and its invariances."""

import cma
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import zoo
from tests.the_loop import primitives_around
from zoo.strategies.distribution import cma_es
from zoo.strategies.distribution.base import default_parameters
from zoo.strategies.distribution.cma_es import CMAES
from zoo.strategies.distribution.eigen import decompose_if

D = 4


def train(strategy, fn, solution, key, num_generations):
    @jax.jit
    def go(state, keys):
        def body(state, k):
            population, state = strategy.ask(k, state)
            fitness = jax.vmap(fn)(population)
            return strategy.tell(state, population, fitness), jnp.min(fitness)

        return jax.lax.scan(body, state, keys)

    return go(strategy.init(key, solution), jax.random.split(key, num_generations))


def test_parameters_are_pycmas():
    """The default parameters equal pycma 4.5 (`cma.CMAEvolutionStrategy(10 * [0], 1).sp`) at d = 10, population 10."""
    p = default_parameters(10, 10)
    assert p.mu_eff == pytest.approx(3.1672992814107017, rel=1e-12)
    assert p.c_c == pytest.approx(0.29499038303562225, rel=1e-12)
    assert p.c_1 == pytest.approx(0.015283824524751714, rel=1e-12)
    assert p.c_mu == pytest.approx(0.02355177665041747, rel=1e-12)
    weights = [0.45627264690340597, 0.2707530970017852, 0.16223111715866978, 0.08523354710016448, 0.025509591835974777]
    weights += [-0.08001260758087224, -0.22176416099914653, -0.34455494178482093, -0.4528640863784219]
    weights += [-0.5497499176973853]
    np.testing.assert_allclose(p.weights, weights, rtol=1e-12)


def reference_generation(state, x, fitness, size):
    """One update in float64, written from the tutorial's figures rather than from the code under test."""
    m, sigma = np.asarray(state.mean, float), float(state.sigma)
    cov, p_sigma, p_c = (np.asarray(a, float) for a in (state.covariance, state.path_sigma, state.path_c))
    w_raw = np.log((size + 1) / 2) - np.log(np.arange(1, size + 1))
    mu = size // 2
    mu_eff = w_raw[:mu].sum() ** 2 / (w_raw[:mu] ** 2).sum()
    mu_eff_neg = w_raw[mu:].sum() ** 2 / (w_raw[mu:] ** 2).sum()
    c_sigma = (mu_eff + 2) / (D + mu_eff + 5)
    d_sigma = 1 + 2 * max(0, np.sqrt((mu_eff - 1) / (D + 1)) - 1) + c_sigma
    c_c = (4 + mu_eff / D) / (D + 4 + 2 * mu_eff / D)
    c_1 = 2 / ((D + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (1 / 4 + mu_eff + 1 / mu_eff - 2) / ((D + 2) ** 2 + 2 * mu_eff / 2))
    negative = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_neg / (mu_eff + 2), (1 - c_1 - c_mu) / (D * c_mu))
    w = np.where(w_raw >= 0, w_raw / w_raw[w_raw > 0].sum(), negative * w_raw / -w_raw[w_raw < 0].sum())
    values, vectors = np.linalg.eigh(cov)
    inverse_root = vectors @ np.diag(values**-0.5) @ vectors.T
    y = (np.asarray(x, float)[np.argsort(fitness)] - m) / sigma
    y_w = w[:mu] @ y[:mu]
    p_sigma = (1 - c_sigma) * p_sigma + np.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * inverse_root @ y_w
    chi = scipy.stats.chi(D).mean()
    norm = np.linalg.norm(p_sigma)
    generation = int(state.generation)
    h = float(norm / np.sqrt(1 - (1 - c_sigma) ** (2 * (generation + 1))) < (1.4 + 2 / (D + 1)) * chi)
    p_c = (1 - c_c) * p_c + h * np.sqrt(c_c * (2 - c_c) * mu_eff) * y_w
    w_circle = np.where(w >= 0, w, w * D / np.array([np.sum((inverse_root @ yi) ** 2) for yi in y]))
    new_cov = (1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * w.sum()) * cov + c_1 * np.outer(p_c, p_c)
    new_cov = new_cov + c_mu * sum(wi * np.outer(yi, yi) for wi, yi in zip(w_circle, y, strict=True))
    return m + sigma * y_w, sigma * np.exp(c_sigma / d_sigma * (norm / chi - 1)), p_sigma, p_c, new_cov


@pytest.mark.parametrize(("d", "injects"), [(3, False), (12, False), (12, True)])
def test_generations_are_pycmas(d, injects, x64):
    """With pycma's samples and the tutorial's step-size constants in pycma, the states stay equal in float64.

    At 12 dimensions and this population size, neither library decomposes C in every generation. With `injects`, one
    member comes from elsewhere: far away, and in turn the best and the worst of the population.
    """
    size = 7
    strategy = CMAES(population_size=size, sigma=0.7)
    state = strategy.init(jax.random.key(0), np.linspace(-1, 1, d))
    peer = cma.CMAEvolutionStrategy(np.linspace(-1, 1, d), 0.7, {"verbose": -9, "popsize": size, "seed": 3})
    p = default_parameters(d, size)
    peer.adapt_sigma.initialize(peer)
    peer.adapt_sigma.cs, peer.adapt_sigma.damps = p.c_sigma, p.d_sigma  # pycma 4 uses other constants
    state = state._replace(
        covariance=jnp.asarray(peer.sm.C), basis=jnp.asarray(peer.sm.B), scales=jnp.asarray(peer.sm.D)
    )
    tell = jax.jit(strategy.tell)
    for k in range(6):
        injected = np.full(d, 20.0 if k % 2 else 0.0)
        if injects:
            peer.inject([injected], force=True)
        population = np.array(peer.ask())
        is_injected = np.isclose(population, injected).all(axis=1)
        assert is_injected.sum() == injects
        fitness = np.array([np.sum(10 ** np.linspace(0, 2, d) * x**2) for x in population])
        peer.tell(list(population), list(fitness))
        evaluation = zoo.Evaluation.of(fitness, size)
        state = tell(state, population, evaluation._replace(repaired=is_injected if injects else None))
        peer.sm.update_now()  # pycma would do this only when it samples next
        np.testing.assert_allclose(state.mean, peer.mean, rtol=1e-9)
        np.testing.assert_allclose(state.sigma, peer.sigma, rtol=1e-9)
        np.testing.assert_allclose(state.path_c, peer.pc, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(state.covariance, peer.sm.C, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(state.scales, peer.sm.D, rtol=1e-8)


@pytest.mark.parametrize("size", [6, 9])
def test_generations_against_numpy(size, x64):
    key = jax.random.key(0)
    strategy = CMAES(population_size=size, sigma=0.7)
    state = strategy.init(key, np.linspace(-1, 1, D))
    for k in jax.random.split(key, 6):
        population, state = strategy.ask(k, state)
        fitness = np.asarray(jnp.sum(jnp.arange(1.0, D + 1)[None] * population**2, axis=1))
        mean, sigma, path_sigma, path_c, covariance = reference_generation(state, population, fitness, size)
        state = strategy.tell(state, population, fitness)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-9)
        np.testing.assert_allclose(state.sigma, sigma, rtol=1e-9)
        np.testing.assert_allclose(state.path_sigma, path_sigma, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(state.path_c, path_c, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(state.covariance, covariance, rtol=1e-8, atol=1e-10)
        # The factors belong to the current C, because it is decomposed in every generation at this size.
        np.testing.assert_allclose(
            (state.basis * state.scales[None] ** 2) @ state.basis.T, covariance, rtol=1e-7, atol=1e-10
        )


def test_samples_have_the_covariance_of_the_state(key):
    """Every entry of the covariance of 20 000 samples is within 6 standard errors."""
    strategy = CMAES(population_size=20_000, sigma=0.5)
    root = np.tril(np.arange(1.0, 10).reshape(3, 3)) / 5
    covariance = (root @ root.T).astype(np.float32)
    values, basis = np.linalg.eigh(covariance)
    state = strategy.init(key, np.zeros(3))._replace(
        covariance=jnp.asarray(covariance), basis=jnp.asarray(basis), scales=jnp.sqrt(values)
    )
    population, _ = strategy.ask(key, state)
    target = 0.25 * covariance
    error = np.sqrt((target**2 + np.outer(np.diag(target), np.diag(target))) / 20_000)
    assert np.all(np.abs(np.cov(population.T) - target) < 6 * error)
    np.testing.assert_allclose(strategy.std(state), np.sqrt(np.diag(target)), rtol=1e-5)


def test_reaches_high_precision_on_an_ill_conditioned_ellipsoid(key):
    """The best fitness reaches 1e-8 within 5 000 evaluations, in 10 dimensions, at condition 1e6, in float32."""
    curvature = 10 ** (6 * jnp.arange(10) / 9)
    strategy = CMAES(population_size=10, sigma=0.5)
    _, best = train(strategy, lambda x: jnp.sum(curvature * x**2), jax.random.normal(key, (10,)), key, 500)
    assert best.min() < 1e-8


def test_rotation_invariance(x64):
    """With rotated samples, a run on the rotated function is the rotated run, up to rounding."""
    key = jax.random.key(3)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    curvature = jnp.array([1.0, 10.0, 100.0, 1000.0])
    strategy = CMAES(population_size=8, sigma=0.5)

    def plain(x):
        return jnp.sum(curvature * x**2)

    state = strategy.init(key, np.ones(D))
    rotated = strategy.init(key, rotation @ np.ones(D))
    rotated = rotated._replace(basis=jnp.asarray(rotation))  # identity covariance, sampled along rotated axes
    for k in jax.random.split(key, 8):
        population, state = strategy.ask(k, state)
        turned = population @ rotation.T
        state = strategy.tell(state, population, jax.vmap(plain)(population))
        rotated = strategy.tell(rotated, turned, jax.vmap(lambda x: plain(rotation.T @ x))(turned))
        np.testing.assert_allclose(rotated.mean, rotation @ state.mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(rotated.sigma, state.sigma, rtol=1e-7)
        np.testing.assert_allclose(rotated.covariance, rotation @ state.covariance @ rotation.T, atol=1e-7)


def test_invariance_to_monotone_transforms_of_fitness(key):
    strategy = CMAES(population_size=8)
    state = strategy.init(key, np.ones(D))
    population, _ = strategy.ask(key, state)
    fitness = jnp.sum(population**2, axis=1)
    one, two = strategy.tell(state, population, fitness), strategy.tell(state, population, jnp.exp(fitness) - 7)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def test_decomposition_is_lazy_alone_and_in_a_batch(key):
    """At 100 dimensions, C is decomposed every few generations only, also in a batch of seeds."""
    strategy = CMAES(population_size=4)
    interval = cma_es._eigen_interval(100, default_parameters(100, 4))
    assert interval > 2

    def step(state, k):
        population, state = strategy.ask(k, state)
        return strategy.tell(state, population, jnp.sum(population**2, axis=1))

    single = jax.jit(step)
    batched = jax.jit(jax.vmap(step))
    keys = jax.random.split(key, (interval, 2))
    alone = [strategy.init(key, np.ones(100)) for _ in range(2)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for generation, k in enumerate(keys, 1):
        alone = [single(state, each) for state, each in zip(alone, k, strict=True)]
        together = batched(together, k)
        decomposed = not np.array_equal(alone[0].basis, np.eye(100))
        assert decomposed == (generation == interval)
        for i in range(2):
            np.testing.assert_allclose(together.scales[i], alone[i].scales, rtol=1e-5)
            np.testing.assert_allclose(together.sigma[i], alone[i].sigma, rtol=1e-5)
    # After batching, the decomposition is still inside a conditional and not computed on both sides of a select.
    jaxpr = jax.make_jaxpr(jax.vmap(jax.vmap(step)))(jax.tree.map(lambda x: x[None], together), keys[:1])
    enclosing = list(primitives_around("eigh", jaxpr.jaxpr))
    assert enclosing
    assert all("cond" in path for path in enclosing)


def test_degenerate_covariance_is_floored(key):
    covariance = jnp.diag(jnp.array([1.0, 1e-12, 0.0, -1e-9]))
    covariance, basis, scales = decompose_if(jnp.asarray(True), covariance, jnp.eye(4), jnp.ones(4))
    assert jnp.all(scales > 0)
    assert scales.max() / scales.min() < 3000  # the square root of 1 / the precision of float32
    # Basis and scales still multiply to C after the repair.
    rounding = 4 * np.finfo(np.float32).eps  # sums of four products, the largest product is one
    np.testing.assert_allclose((basis * scales[None] ** 2) @ basis.T, covariance, atol=rounding)
    np.testing.assert_array_equal(covariance, covariance.T)
