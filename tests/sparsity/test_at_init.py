"""Tests pruning at initialisation against hand-written scores, brute force and conservation laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import initial_solution
from zoo.sparsity.at_init import _network_flow, _prune, _synflow_scores, prune_at_init
from zoo.testing.examples import Decay

CRITERIA = ("snip", "grasp", "synflow", "magnitude", "random")
INPUT, TARGET = np.array([1.0, -2.0]), 0.7
NETWORK = {
    "first": np.array([[0.9, -0.4, 0.1], [0.3, 0.8, -1.1]]),
    "second": np.array([[0.5], [-1.3], [0.2]]),
    "bias": np.array([0.6]),
}


def outputs(solution, x):
    return x @ solution["first"] @ solution["second"] + solution["bias"]


def squared_error(solution):
    return jnp.sum((outputs(solution, jnp.asarray(INPUT)) - TARGET) ** 2) / 2


def on_ones(solution):
    return outputs(solution, jnp.ones(2))


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def masks_of_all_sizes(problem, solution, criterion, **settings):
    """Returns the masks that keep 1, 2, ..., all prunable weights, flat and without biases."""
    size = sum(x.size for x in jax.tree.leaves(solution) if x.ndim > 1)
    for count in range(1, size + 1):
        ticket = prune_at_init(problem, count / size, criterion, solution=solution, **settings)
        yield flat([m for m, x in zip(*map(jax.tree.leaves, (ticket.mask, solution)), strict=True) if x.ndim > 1])


def numpy_scores(criterion):
    """Returns scores of the weights of `NETWORK` on one example, derived by hand with a = x W1, e = a W2 + b - y."""
    w1, w2, bias = NETWORK["first"], NETWORK["second"], NETWORK["bias"]
    a, back = INPUT @ w1, w2[:, 0]
    e = a @ back + bias[0] - TARGET
    g1, g2, g_bias = e * np.outer(INPUT, back), e * a, e
    if criterion == "snip":
        s1, s2 = np.abs(w1 * g1), np.abs(back * g2)
    elif criterion == "grasp":  # along g, a changes by x g1 and e by de
        da = INPUT @ g1
        de = da @ back + a @ g2 + g_bias
        s1, s2 = w1 * (de * np.outer(INPUT, back) + e * np.outer(INPUT, g2)), back * (de * a + e * da)
    elif criterion == "synflow":
        s1 = np.abs(w1) * np.abs(back)
        s2 = np.abs(back) * np.abs(w1).sum(axis=0)
    else:
        s1, s2 = np.abs(w1), np.abs(back)
    return np.concatenate([s1.ravel(), s2])


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "magnitude"])
def test_scores_of_a_linear_network_by_hand(criterion, x64):
    problem = zoo.from_function(squared_error, NETWORK)
    order = np.argsort(-numpy_scores(criterion))
    masks = masks_of_all_sizes(problem, NETWORK, criterion, num_iterations=1, flow=on_ones)
    for count, mask in enumerate(masks, start=1):
        assert set(np.flatnonzero(mask)) == set(order[:count])


def test_snip_is_the_change_of_the_fitness_where_that_is_linear_in_each_weight(x64):
    def fitness(solution):
        return 3.0 - outputs(solution, jnp.asarray(INPUT))[0]

    weights = [(name, i) for name in ("first", "second") for i in np.ndindex(NETWORK[name].shape)]

    def change(name, i):
        without = {**NETWORK, name: NETWORK[name].copy()}
        without[name][i] = 0
        return abs(float(fitness(without) - fitness(NETWORK)))

    order = np.argsort([-change(*weight) for weight in weights])
    for count, mask in enumerate(masks_of_all_sizes(zoo.from_function(fitness, NETWORK), NETWORK, "snip"), start=1):
        assert set(np.flatnonzero(mask)) == set(order[:count])


def test_snip_averages_the_gradient_and_not_its_size():
    """A small constant gradient scores higher than a large one with random sign."""

    def fitness(key, x):
        return jnp.sum(jnp.array([1.0, 4 * jax.random.rademacher(key, (), float)]) * x)

    problem = zoo.from_function(fitness, jnp.ones(2), takes_key=True)
    np.testing.assert_array_equal(prune_at_init(problem, 0.5, num_batches=1).mask, [False, True])
    np.testing.assert_array_equal(prune_at_init(problem, 0.5, num_batches=1000).mask, [True, False])


def test_grasp_keeps_the_gradient_as_large_as_any_mask_does(x64):
    """GraSP's mask keeps |g| largest among all masks of its size if the dropped weights shrink by 1e-6."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 8))
    solution = {"w": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}

    def fitness(solution):
        return jnp.sum(jnp.sin(rows @ jnp.concatenate([solution["w"].ravel(), solution["bias"]])))

    def slope(w):  # squared length of the gradient over all trained parameters
        angles = np.concatenate([w, solution["bias"]]) @ rows.T
        return np.sum((np.cos(angles) @ rows) ** 2)

    w = solution["w"].ravel()
    for count, mask in enumerate(masks_of_all_sizes(zoo.from_function(fitness, solution), solution, "grasp"), start=1):
        subsets = itertools.combinations(range(w.size), count)
        best = max(subsets, key=lambda kept: slope(np.where(np.isin(np.arange(w.size), kept), w, w * (1 - 1e-6))))
        assert tuple(np.flatnonzero(mask)) == best


@pytest.mark.parametrize(("criterion", "expected"), [("snip", [False, True]), ("grasp", [True, False])])
def test_unrolled_problems_are_differentiated_over_the_episode(criterion, expected):
    """With rate 0 the fitness is sum_i (d_i - 1)^2, so g = 2 (d - 1) and H = 2."""
    ticket = prune_at_init(Decay(rate=0.0), 0.5, criterion, solution={"drive": jnp.array([0.9, 0.3])})
    np.testing.assert_array_equal(ticket.mask["drive"], expected)


# SynFlow


def numpy_synflow(layers, num_kept, num_iterations=100):
    """Returns masks of a plain network without biases, from products of positive matrices.

    If a neuron has one weight into it and one out of it, both have equal scores, and rounding would decide. A test
    needs weights, and a number to keep, for which no threshold falls on such a pair.
    """
    size = sum(w.size for w in layers)
    masks = [np.ones(w.shape, bool) for w in layers]
    for i in range(1, num_iterations + 1):
        count = round(size * (num_kept / size) ** (i / num_iterations))
        positive = [np.abs(w).astype(float) * m for w, m in zip(layers, masks, strict=True)]
        forward, backward = [np.ones(layers[0].shape[0])], [np.ones(layers[-1].shape[1])]
        for w in positive[:-1]:
            forward.append(forward[-1] @ w)
        for w in positive[:0:-1]:
            backward.insert(0, w @ backward[0])
        scores = [np.outer(f, b) * w for f, w, b in zip(forward, positive, backward, strict=True)]
        dropped, threshold = np.sort(np.concatenate([[0.0], *(s.ravel() for s in scores)]))[size - count :][:2]
        assert dropped < (1 - 1e-9) * threshold, "equal scores"
        masks = [s >= threshold for s in scores]
    return masks


@pytest.mark.parametrize("network", ["relu", "tanh"])
def test_synflow_of_a_problems_network_against_numpy(network):
    """SynFlow equals NumPy, even for tanh. It leaves weights in every layer at 0.2 %, and other criteria do not."""
    if network == "relu":
        problem, kept = zoo.make_problem("supervised/digits", hidden=(40, 40, 4)), 0.1
    else:
        problem, kept = zoo.make_problem("rl/CartPole-v1", hidden=(64, 64)), 0.3
    start = initial_solution(problem, jax.random.key(0))
    ticket = jax.device_get(prune_at_init(problem, kept, "synflow", solution=start).mask)
    layers = [layer["kernel"] for layer in start["params"].values()]
    masks = [layer["kernel"] for layer in ticket["params"].values()]
    for mask, expected in zip(masks, numpy_synflow(layers, sum(m.sum() for m in masks)), strict=True):
        np.testing.assert_array_equal(mask, expected)
    if network == "relu":
        for criterion in ("magnitude", "snip", "synflow"):
            mask = prune_at_init(problem, 0.002, criterion, solution=start).mask["params"]
            assert all(np.any(layer["kernel"]) for layer in mask.values()) == (criterion == "synflow")


def test_synflow_is_conserved_from_layer_to_layer(x64):
    """The scores of each layer sum to R, with convolutions and pooling too."""
    problem = zoo.make_problem("supervised/digits", network="cnn", hidden=(3, 4))
    flow = _network_flow(problem)

    @jax.jit
    def scores_and_total(solution):
        total = jnp.sum(flow(jax.tree.map(lambda x: jnp.abs(x.astype(float)), solution)))
        return _synflow_scores(flow, solution), total

    scores, total = jax.device_get(scores_and_total(initial_solution(problem, jax.random.key(0))))
    for layer in scores["params"].values():
        np.testing.assert_allclose(layer["kernel"].sum(), total, rtol=1e-10)


def test_synflow_holds_out_in_deep_networks():
    """SynFlow works with R of about 4e-113 and 3e+128. The scales are powers of two, so products scale exactly."""

    def flow(layers):
        return jax.lax.scan(lambda x, w: (x @ w, None), jnp.ones(4, layers.dtype), layers)[0]

    layers = np.random.default_rng(0).uniform(0.1, 1, (200, 4, 4)).astype(np.float32)
    problem = zoo.from_function(jnp.sum, layers)

    def prune(kept, scale):
        return prune_at_init(problem, kept, "synflow", solution=scale * layers, flow=flow).mask

    for scale in (0.125, 2.0):
        np.testing.assert_array_equal(prune(0.8, scale), np.stack(numpy_synflow(list(layers), 2560)))
    masks = [prune(0.3, scale) for scale in (0.125, 2.0)]
    np.testing.assert_array_equal(masks[1], masks[0])
    assert np.any(masks[0], axis=(1, 2)).all()


# All criteria


@pytest.mark.parametrize("criterion", CRITERIA)
def test_tickets(criterion):
    """Counts are exact, biases and excluded leaves are kept, the start is a run's start, and nothing recompiles."""
    problem = zoo.make_problem("supervised/digits", hidden=(5,), batch_size=16)
    settings = {"key": 3, "exclude": "Dense_1", "num_batches": 2}
    tickets = [prune_at_init(problem, 0.137, criterion, **settings)]
    before = _prune._cache_size()
    tickets += [prune_at_init(problem, kept, criterion, **settings) for kept in (1e-6, 1.0)]
    assert _prune._cache_size() == before
    for ticket, count in zip(tickets, (round(0.137 * 320), 1, 320), strict=True):
        mask = jax.device_get(ticket.mask)["params"]
        first, second = mask["Dense_0"], mask["Dense_1"]
        assert first["kernel"].sum() == count
        assert ticket.kept == count / 320
        assert first["bias"].all()
        assert flat(second).all()
        assert (ticket.mean, ticket.info) == (None, {"criterion": criterion})
    start = zoo.run(zoo.make_strategy("open_es", learning_rate=0.0), problem, 3, num_generations=1).mean
    np.testing.assert_allclose(flat(tickets[0].solution), flat(start), rtol=1e-6)


def test_keys_are_vectorised_and_random_masks_are_uniform():
    """Every weight is kept equally often: a binomial count of 4000, within 5 standard deviations."""
    problem = zoo.from_function(jnp.sum, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    keys = jax.random.split(jax.random.key(0), 4000)
    masks = jax.device_get(jax.jit(jax.vmap(lambda key: prune_at_init(problem, 0.25, "random", key=key).mask))(keys))
    counts = np.concatenate([masks["a"].sum(axis=0).ravel(), masks["b"].sum(axis=0).ravel()])
    np.testing.assert_array_less(np.abs(counts - 1000), 5 * np.sqrt(4000 * 0.25 * 0.75))
    for i in (0, 1):
        alone = prune_at_init(problem, 0.25, "random", key=keys[i]).mask
        np.testing.assert_array_equal(flat(alone), flat(jax.tree.map(lambda m, i=i: m[i], masks)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"kept": 0.0}, ValueError, r"kept must be a fraction in \(0, 1\]"),
        ({"kept": 1.5}, ValueError, "kept must be a fraction"),
        ({"kept": True}, TypeError, "kept must be a number"),
        ({"criterion": "snp"}, ValueError, "one of snip, grasp, synflow, magnitude, random, got 'snp'"),
        ({"num_batches": 0}, ValueError, "num_batches must be at least 1, got 0"),
        ({"num_iterations": 2.5}, TypeError, "num_iterations must be a whole number, got 2.5"),
        ({"exclude": "nowhere"}, ValueError, "exclude 'nowhere' is found in no leaf"),
        ({"criterion": "synflow"}, TypeError, "Pass flow="),
        ({"problem": "rl/CartPole-v1"}, TypeError, "snip needs the gradient .* Choose synflow, magnitude or random"),
        ({"solution": jnp.zeros((2, 2))}, ValueError, "score of zero at this solution"),
        ({"solution": jnp.full((2, 2), 1e30)}, ValueError, "not finite"),
    ],
)
def test_errors(settings, error, message):
    problem = zoo.from_function(lambda x: jnp.sum(x**4), jnp.ones((2, 2)))
    with pytest.raises(error, match=message):
        prune_at_init(**{"problem": problem, "kept": 0.5, **settings})


def test_a_gradient_of_the_problems_own_will_do():
    class Step(zoo.Problem):
        @property
        def differentiable(self):
            return False

        def initial_solution(self, key):
            return jnp.array([1.0, 2.0])

        def fitness(self, key, solution):
            return jnp.sum(jnp.round(solution))

        def gradient(self, key, solution):
            return jnp.array([5.0, 1.0])

    np.testing.assert_array_equal(prune_at_init(Step(), 0.5).mask, [True, False])
