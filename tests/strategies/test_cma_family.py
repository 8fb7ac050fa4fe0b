"""sep_cma_es, ma_es, lm_ma_es and cr_fm_nes against NumPy transcriptions of their papers, and in limit cases."""

import warnings
from typing import Any

import cma
import jax
import numpy as np
import pytest

from tests.the_loop import ask, init, is_finite, tell
from zoo.strategies.distribution import cr_fm_nes, lm_ma_es, sep_cma_es
from zoo.strategies.distribution.base import default_parameters
from zoo.strategies.distribution.cma_es import CMAES
from zoo.strategies.distribution.cr_fm_nes import CRFMNES
from zoo.strategies.distribution.lm_ma_es import LMMAES
from zoo.strategies.distribution.ma_es import MAES
from zoo.strategies.distribution.sep_cma_es import SepCMAES

D = 6
SIZE = 9
START = np.linspace(-1, 1, D)


def generations(strategy, num_generations, *, d=D, **start):
    """Yields state, population, fitness and the state after `tell` for each generation on an ellipsoid."""
    key = jax.random.key(0)
    state = init(strategy, key, np.linspace(-1, 1, d))._replace(**start)
    for k in jax.random.split(key, num_generations):
        population, asked = ask(strategy, k, state)
        fitness = np.asarray(population) ** 2 @ 10.0 ** (5 * np.arange(d) / (d - 1))
        state = tell(strategy, asked, population, fitness)
        yield asked, np.asarray(population), fitness, state


def recombination(size, d):
    """Returns the positive weights (best first), their selection mass, and c_sigma, d_sigma, E||N(0, I)|| of CMA-ES."""
    w = np.log((size + 1) / 2) - np.log(np.arange(1, size // 2 + 1))
    w /= w.sum()
    mu_eff = 1 / (w**2).sum()
    c_sigma = (mu_eff + 2) / (d + mu_eff + 5)
    d_sigma = 1 + c_sigma + 2 * max(0, np.sqrt((mu_eff - 1) / (d + 1)) - 1)
    # The expected norm, by quadrature of the chi distribution.
    r = np.linspace(0, 40, 400_001)
    density = r ** (d - 1) * np.exp(-(r**2) / 2)
    return w, mu_eff, c_sigma, d_sigma, (r * density).sum() / density.sum()


def test_sep_cma_es_calls_nothing_deprecated():
    strategy, x = SepCMAES(population_size=4), np.zeros(2, np.float32)

    def generation(key):
        members, state = strategy.ask(key, strategy.init(key, x))
        return strategy.tell(state, members, members[:, 0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(generation, jax.random.key(0))


def test_sep_cma_es_is_the_papers(x64):
    """One update equals Ros, Hansen 2008, algorithm 1 without rotations: a diagonal C, rates times (d + 2) / 3."""
    w, mu_eff, c_sigma, d_sigma, chi = recombination(SIZE, D)
    mu = len(w)
    c_c = (4 + mu_eff / D) / (D + 4 + 2 * mu_eff / D)
    c_1 = (D + 2) / 3 * 2 / ((D + 1.3) ** 2 + mu_eff)
    c_mu = (D + 2) / 3 * 2 * (mu_eff + 1 / mu_eff - 1.75) / ((D + 2) ** 2 + mu_eff)
    m, sigma, c, p_sigma, p_c = START, 0.01, np.ones(D), np.zeros(D), np.zeros(D)
    stalled = 0
    for g, (_, x, fitness, told) in enumerate(generations(SepCMAES(population_size=SIZE, sigma=0.01), 25), 1):
        y = (x[np.argsort(fitness)][:mu] - m) / sigma
        m = m + sigma * w @ y
        p_sigma = (1 - c_sigma) * p_sigma + np.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * (w @ y) / np.sqrt(c)
        norm = np.linalg.norm(p_sigma)
        h = norm / np.sqrt(1 - (1 - c_sigma) ** (2 * g)) < (1.4 + 2 / (D + 1)) * chi
        stalled += not h
        p_c = (1 - c_c) * p_c + h * np.sqrt(c_c * (2 - c_c) * mu_eff) * (w @ y)
        missing = (1 - h) * c_c * (2 - c_c)
        c = (1 - c_1 - c_mu + c_1 * missing) * c + c_1 * p_c**2 + c_mu * w @ y**2
        sigma = sigma * np.exp(c_sigma / d_sigma * (norm / chi - 1))
        np.testing.assert_allclose(told.mean, m, rtol=1e-9)
        np.testing.assert_allclose(told.sigma, sigma, rtol=1e-9)
        np.testing.assert_allclose(told.variances, c, rtol=1e-9)
        np.testing.assert_allclose(SepCMAES().std(told), sigma * np.sqrt(c), rtol=1e-9)
    assert stalled > 0


@pytest.mark.parametrize(("d", "size"), [(5, 8), (20, 12), (200, 40)])
def test_sep_cma_es_learns_about_as_fast_as_pycmas_diagonal_option(d, size):
    """The sums of the rates agree with pycma within a factor of two.

    pycma uses other formulas (Akimoto, Hansen 2020).
    """
    ours = sep_cma_es._separable_parameters(d, size)
    theirs: Any = cma.CMAEvolutionStrategy(d * [0], 1, {"popsize": size, "CMA_diagonal": True, "verbose": -9}).sp
    assert ours.mu_eff == pytest.approx(theirs.weights.mueff)
    assert 0.5 < (ours.c_1 + ours.c_mu) / (theirs.c1_sep + theirs.cmu_sep) < 2


def test_sep_cma_es_on_leaves_is_that_on_the_vector():
    """A run on separate leaves equals the run on one vector with the same members."""
    strategy = SepCMAES(population_size=SIZE)
    tree = init(strategy, jax.random.key(0), {"a": START[:5].reshape(5, 1), "b": START[5]})
    for _, x, fitness, told in generations(strategy, 5):
        tree = tell(strategy, tree, {"a": x[:, :5, None], "b": x[:, 5]}, fitness)
        np.testing.assert_allclose(np.append(*tree.variances.values()), told.variances, rtol=1e-5)
        np.testing.assert_allclose(tree.sigma, told.sigma, rtol=1e-5)


def test_ma_es_is_the_papers(x64):
    """One update equals Beyer, Sendhoff 2017, figure 3, with the product of the matrices as in the paper."""
    w, mu_eff, c_sigma, d_sigma, chi = recombination(SIZE, D)
    mu = len(w)
    c_1 = 2 / ((D + 1.3) ** 2 + mu_eff)
    c_w = 2 * (mu_eff + 1 / mu_eff - 1.75) / ((D + 2) ** 2 + mu_eff)
    m, sigma, s, factor = START, 0.7, np.zeros(D), np.eye(D)
    for asked, x, fitness, told in generations(MAES(population_size=SIZE, sigma=0.7), 25):
        z = np.linalg.solve(sigma * factor, (x - m).T).T
        np.testing.assert_allclose(asked.noise, z, rtol=1e-6, atol=1e-9)
        z = z[np.argsort(fitness)][:mu]
        m = m + sigma * factor @ (w @ z)
        s = (1 - c_sigma) * s + np.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * (w @ z)
        second = sum(wi * np.outer(zi, zi) for wi, zi in zip(w, z, strict=True))
        factor = factor @ (np.eye(D) + c_1 / 2 * (np.outer(s, s) - np.eye(D)) + c_w / 2 * (second - np.eye(D)))
        sigma = sigma * np.exp(c_sigma / d_sigma * (np.linalg.norm(s) / chi - 1))
        np.testing.assert_allclose(told.mean, m, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(told.sigma * told.factor, sigma * factor, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(told.sigma, sigma * np.sqrt((factor**2).sum() / D), rtol=1e-8)


def test_ma_es_moves_as_cma_es_in_the_first_generation(x64):
    """From C = M = I, mean and step size agree exactly, and M M^T equals C to first order in the learning rates."""
    d = 60
    key = jax.random.key(1)
    ma, full = MAES(population_size=6), CMAES(population_size=6)
    state_ma, state = init(ma, key, np.ones(d)), init(full, key, np.ones(d))
    population, state_ma = ask(ma, key, state_ma)
    told = (tell(s, t, population, np.arange(6.0)) for s, t in ((ma, state_ma), (full, state)))
    state_ma, state = jax.device_get(tuple(told))
    np.testing.assert_allclose(state_ma.mean, state.mean, rtol=1e-12)
    factor = state_ma.sigma / state.sigma * state_ma.factor
    p = default_parameters(d, 6)
    w = np.maximum(p.weights, 0)
    y = (np.asarray(population) - 1) / 0.3
    path = np.sqrt(p.c_sigma * (2 - p.c_sigma) * p.mu_eff) * w @ y
    expected = (1 - p.c_1 - p.c_mu) * np.eye(d) + p.c_1 * np.outer(path, path) + p.c_mu * (y.T * w) @ y
    change = np.linalg.norm(expected - np.eye(d))
    assert change > 0.02
    assert np.linalg.norm(factor @ factor.T - expected) < change**2


def test_lm_ma_es_is_the_papers(x64):
    """One update equals Loshchilov et al. 2019, algorithm 1, computed one direction vector at a time."""
    d, size = 30, 14
    w, mu_eff, *_ = recombination(size, d)
    m = 4 + int(3 * np.log(d))
    c_d = np.array([1 / (1.5 ** (i - 1) * d) for i in range(1, m + 1)])
    c_c = np.array([size / (4.0 ** (i - 1) * d) for i in range(1, m + 1)])
    c_sigma = 2 * size / d
    mean, sigma, path, vectors = np.linspace(-1, 1, d), 0.7, np.zeros(d), np.zeros((m, d))
    strategy = LMMAES(population_size=size, sigma=0.7)
    transform, inverse = (jax.jit(f, static_argnums=2) for f in (lm_ma_es.transform, lm_ma_es._inverse_transform))
    std = jax.jit(strategy.std)
    for t, (asked, x, fitness, told) in enumerate(generations(strategy, m + 5, d=d)):
        basis = np.eye(d)  # the paper's loop turns these columns into the columns of P
        for j in range(min(t, m)):
            basis = (1 - c_d[j]) * basis + c_d[j] * np.outer(vectors[j], vectors[j] @ basis)
        np.testing.assert_allclose(transform(asked, np.eye(d), d), basis.T, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(std(asked), sigma * np.linalg.norm(basis, axis=1), rtol=1e-9)
        z = np.linalg.solve(sigma * basis, (x - mean).T).T
        np.testing.assert_allclose(inverse(asked, (x - mean) / sigma, d), z, rtol=1e-8, atol=1e-9)
        best = np.argsort(fitness)[: size // 2]
        mean = mean + sigma * basis @ (w @ z[best])
        path = (1 - c_sigma) * path + np.sqrt(mu_eff * c_sigma * (2 - c_sigma)) * (w @ z[best])
        for i in range(m):
            vectors[i] = (1 - c_c[i]) * vectors[i] + np.sqrt(mu_eff * c_c[i] * (2 - c_c[i])) * (w @ z[best])
        sigma = sigma * np.exp(c_sigma / 2 * (path @ path / d - 1))
        np.testing.assert_allclose(told.mean, mean, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(told.sigma, sigma, rtol=1e-8)
        np.testing.assert_allclose(told.directions, vectors, rtol=1e-7, atol=1e-9)


def reference_cr_fm_nes(state, x, fitness):
    """Computes one update in float64, member by member, with columns as in the authors' notation."""
    m, p_sigma, p_c, scales, v = (
        np.asarray(a, float) for a in (state.mean, state.path_sigma, state.path_c, state.scales, state.v)
    )
    sigma, (size, d) = float(state.sigma), x.shape
    norm = np.linalg.norm(v)
    u = v / norm
    root = np.eye(d) + (np.sqrt(1 + norm**2) - 1) * np.outer(u, u)
    z = np.linalg.solve(sigma * scales[:, None] * root, (x - m).T)
    near = np.linalg.norm(z, axis=0).reshape(2, -1)  # the same for both partners, except for rounding
    near = np.where(np.ptp(near, axis=0) < 1e-10 * near.max(axis=0), near.mean(axis=0), near).ravel()
    order = np.lexsort((np.where(np.isinf(fitness), near, 0), fitness))
    z, x = z[:, order], x[order].T
    y, feasible = root @ z, np.isfinite(fitness).sum()
    hat = np.maximum(np.log(size / 2 + 1) - np.log(np.arange(1, size + 1)), 0)
    by_rank = hat / hat.sum() - 1 / size
    mu_eff = 1 / ((by_rank + 1 / size) ** 2).sum()
    c_s, c_c = (mu_eff + 2) / (d + mu_eff + 5), (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)
    p_sigma = (1 - c_s) * p_sigma + np.sqrt(c_s * (2 - c_s) * mu_eff) * z @ by_rank
    length = np.linalg.norm(p_sigma) / recombination(size, d)[4]
    low, high = 0.0, 10.0
    for _ in range(100):  # bisection for h^-1
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + middle**2) * np.exp(middle**2 / 2) / 0.24 - 10 < d else (low, middle)
    alpha = low * min(1, np.sqrt(size / d)) * np.sqrt(feasible / size)
    by_distance = hat * np.exp(alpha * np.linalg.norm(z, axis=0))
    by_distance = by_distance / by_distance.sum() - 1 / size
    weights = by_distance if length >= 1 else by_rank
    eta = np.tanh((0.024 * feasible + 0.7 * d + 20) / (d + 12)) if length >= 0.1 else 0
    eta = eta or 2 * np.tanh((0.025 * feasible + 0.75 * d + 10) / (d + 4))
    eta = 1 if length >= 1 else eta
    move = (x - m[:, None]) @ weights
    p_c = (1 - c_c) * p_c + np.sqrt(c_c * (2 - c_c) * mu_eff) * move / sigma
    eta_b = np.tanh((min(0.02 * feasible, 3 * np.log(d)) + 5) / (0.23 * d + 25))
    c_1 = 2 / ((d + 1.3) ** 2 + mu_eff) * (d - 5) / 6 * feasible / size
    gamma = 1 + norm**2
    a = min(1, np.sqrt(norm**4 + (2 * gamma - np.sqrt(gamma)) / max(u**2)) / (2 + norm**2))
    b = -(1 - a**2) * norm**4 / gamma + 2 * a**2
    h = 2 - (b + 2 * a**2) * u**2
    new_v, new_scales = v.copy(), scales.copy()
    for yi, wi in zip([*y.T, p_c / scales], [*(eta_b * weights), c_1], strict=True):
        t = yi * (yi @ u) - u * ((yi @ u) ** 2 + gamma) / 2
        s = yi**2 - norm**2 / gamma * yi * u * (yi @ u) - 1
        s = s - a / gamma * ((2 + norm**2) * t * u - norm**2 * u**2 * (u @ t))
        s = s / h - b / (1 + b * (u**2 @ (u**2 / h))) * u**2 / h * ((u**2 / h) @ s)
        t = t - a * ((2 + norm**2) * s * u - u * (u**2 @ s))
        new_v, new_scales = new_v + wi * t / norm, new_scales + wi * s * scales
    log_det = np.log(new_scales).sum() + np.log(1 + new_v @ new_v) / 2
    sigma = sigma * np.exp(eta / 2 * np.sum((z**2 - 1) @ weights) / d)
    return length, [m + move, sigma, p_sigma, p_c, new_scales * np.exp(-log_det / d), new_v]


def test_cr_fm_nes_is_the_authors(x64):
    """Updates equal the NumPy reference, moving and stagnating.

    The third generation has infeasible members, and in the fourth all members are infeasible.
    """
    strategy = CRFMNES(population_size=10, sigma=0.1)
    lengths = []
    for g, (state, x, fitness, _) in enumerate(generations(strategy, 14, d=8), 1):
        fitness[: {3: 7, 4: 10}.get(g, 0)] = np.inf
        length, expected = reference_cr_fm_nes(state, x, fitness)
        lengths.append(length)
        for got, one in zip(tell(strategy, state, x, fitness), expected, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-8, atol=1e-10)
    assert min(lengths) < 1 < max(lengths)


@pytest.mark.parametrize("center", [0, 1, 1000])
def test_cr_fm_nes_ranks_infeasible_partners_by_their_index(center, key):
    """Infeasible partners are ranked by index, because the last bits of a member differ between processors."""
    strategy = CRFMNES(population_size=10, sigma=0.1)
    x, state = ask(strategy, key, init(strategy, key, center + np.linspace(-1, 1, 8, dtype=np.float32)))
    x, mean = jax.device_get((x, strategy.mean(state)))
    sign = np.where(x > mean, 1, -1).astype(np.float32)

    def moved(change):
        """Returns how far the mean moves if each member is moved by `change`."""
        told = tell(strategy, state, np.float32(x + change), np.full(10, np.inf, np.float32))
        return np.asarray(strategy.mean(told)) - mean

    first, second = np.repeat([[[1], [0]], [[0], [1]]], 5, axis=1)
    last_bits = 3 * np.spacing(np.abs(x)) * sign
    expected = moved(0 * x)
    assert np.linalg.norm(expected) > 0.01
    for change in (first * last_bits, second * last_bits):
        np.testing.assert_allclose(moved(change), expected, rtol=0.02, atol=20 * np.spacing(np.float32(center + 1)))
    # A larger change, such as a repair by bounds, counts: each of the second five is now nearer than its partner and
    # ranks before it.
    assert moved(-0.005 * second * sign) @ expected < 0


def test_cr_fm_nes_without_v_is_separable(x64):
    """v = 0 stays zero. D takes a step of separable NES with the path as one more member, and is then normalised."""
    strategy = CRFMNES(population_size=10, sigma=0.5)
    ((state, x, *_),) = generations(strategy, 1, v=np.zeros(D), scales=np.ones(D))
    z = (x - START) / 0.5
    fitness = z**2 @ np.arange(D) + 0.1 * z[:, 0]  # nearly flat at the mean: a short path, so weights by rank
    told, z = tell(strategy, state, x, fitness), z[np.argsort(fitness)]
    assert not np.any(told.v)
    hat = np.maximum(np.log(6) - np.log(np.arange(1, 11)), 0)
    utility = hat / hat.sum() - 0.1
    rate = np.tanh((0.02 * 10 + 5) / (0.23 * D + 25))
    mu_eff = 1 / ((hat / hat.sum()) ** 2).sum()
    c_c = (4 + mu_eff / D) / (D + 4 + 2 * mu_eff / D)
    path = np.sqrt(c_c * (2 - c_c) * mu_eff) * utility @ z
    rate_path = 2 / ((D + 1.3) ** 2 + mu_eff) / 6
    scales = 1 + rate * utility @ (z**2 - 1) / 2 + rate_path * (path**2 - 1) / 2
    np.testing.assert_allclose(told.scales, scales / np.prod(scales) ** (1 / D), rtol=1e-9)
    np.testing.assert_allclose(told.mean, START + 0.5 * utility @ z, rtol=1e-9)


def test_cr_fm_nes_samples_have_the_covariance_of_the_state(key):
    """Every entry of the covariance of 20 000 pairs is within 6 standard errors."""
    strategy = CRFMNES(population_size=40_000, sigma=0.5)
    v, scales = np.array([2.0, -1.0, 0.5], np.float32), np.array([1.0, 3.0, 0.2], np.float32)
    state = init(strategy, key, np.zeros(3))._replace(v=v, scales=scales)
    population, _ = ask(strategy, key, state)
    target = 0.25 * np.diag(scales) @ (np.eye(3) + np.outer(v, v)) @ np.diag(scales)
    error = np.sqrt((target**2 + np.outer(np.diag(target), np.diag(target))) / 20_000)
    assert np.all(np.abs(np.cov(population.T) - target) < 6 * error)
    np.testing.assert_allclose(strategy.std(state), np.sqrt(np.diag(target)), rtol=1e-5)


@pytest.mark.parametrize("d", [1, 40, 10**6])
def test_distance_gain_solves_its_equation(d):
    a = cr_fm_nes._distance_gain(d, 10 * d)
    assert (1 + a * a) * np.exp(a * a / 2) / 0.24 - 10 == pytest.approx(d)


def test_cr_fm_nes_needs_pairs():
    with pytest.raises(ValueError, match=r"must be even, got 7\. Use 8"):
        CRFMNES(population_size=7)


@pytest.mark.parametrize("strategy", [SepCMAES, MAES, LMMAES, CRFMNES])
def test_nothing_vanishes_or_overflows_on_a_plane(strategy, key):
    """The state stays finite in 600 generations down a slope in float32, where the spread grows in one direction."""
    strategy = strategy(population_size=20)

    def generation(state, k):
        population, state = strategy.ask(k, state)
        return strategy.tell(state, population, population[:, 0]), None

    @jax.jit
    def run(keys):
        state, _ = jax.lax.scan(generation, strategy.init(key, np.zeros(3)), keys)
        return state, strategy.std(state), strategy.mean(state)

    state, std, mean = jax.device_get(run(jax.random.split(key, 600)))
    assert is_finite(state)
    assert np.all(std > 0)
    assert mean[0] < -1e6


def test_cr_fm_nes_learns_nothing_from_rounding(key):
    """The two dimensions with mean 0 learn. The others have mean 1, where float32 rounds steps of 1e-8 to 0 or 6e-8."""
    strategy = CRFMNES(population_size=8, sigma=1e-8)
    start = np.array([0, 0, 1, 1, 1, 1, 1, 1], np.float32)
    population, state = ask(strategy, key, init(strategy, key, start))
    told = tell(strategy, state, population, np.arange(8, dtype=np.float32))
    assert np.array_equal(told.v[2:], state.v[2:])
    assert not np.any(told.v[:2] == state.v[:2])
    change = told.scales / state.scales
    np.testing.assert_allclose(change[2:], change[2], rtol=1e-6)  # the factor that keeps the volume
    assert np.all(abs(change[:2] / change[2] - 1) > 1e-3)


def test_cr_fm_nes_survives_a_member_that_is_far_and_bad(key):
    """The state stays finite if exp of a distant, bad member's distance overflows, because its gain is zero."""
    strategy = CRFMNES(population_size=8)
    population, state = ask(strategy, key, init(strategy, key, np.zeros(4)))
    state = state._replace(path_sigma=np.full(4, 10, np.float32))
    population = np.array(population)
    population[-1] *= 1e4
    told = tell(strategy, state, population, np.arange(8, dtype=np.float32))
    assert is_finite(told)
