"""Lottery tickets: which weights are pruned when, by which score, and where training starts again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core.masks import keep_best, prunable_leaves
from zoo.core.population import materialize
from zoo.strategies.distribution.snes import SNES

GENERATIONS = 3
SOLUTION = {
    "bias": jnp.asarray([0.5, -0.5, 1.0]),
    "last": {"kernel": jnp.linspace(-2, 1, 12).reshape(4, 3)},
    "w": jnp.linspace(-1, 1, 20).reshape(5, 4),
}
NUM_PRUNABLE = 32


def quadratic(x):
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(x))


def make(base="snes", **settings):
    return zoo.make_strategy("lottery", base=base, **{"generations_per_round": GENERATIONS, **settings})


def counts(fraction, num_rounds, start=NUM_PRUNABLE):
    """Returns the number of weights left in each round, in the precision of the strategy."""
    left = [start]
    for _ in range(num_rounds - 1):
        left.append(max(left[-1] - int(np.round(np.float32(fraction) * np.float32(left[-1]))), 1))
    return left


@functools.partial(jax.jit, static_argnames="num_generations")
def train(strategy, key, num_generations, solution=SOLUTION):
    """Returns the final state, and the stacked results of `generation`."""

    def generation(state, key):
        population, asked = strategy.ask(key, state, jax.grad(quadratic))
        told = strategy.tell(asked, population, zoo.map_members(quadratic, population))
        return told, (materialize(population), asked.mask, asked.base, strategy.mean(told), strategy.std(told))

    return jax.lax.scan(generation, strategy.init(key, solution), jax.random.split(key, num_generations))


evaluate = jax.jit(functools.partial(zoo.map_members, quadratic))


def at(generation, tree):
    """Returns the values of one generation in NumPy, where a new shape is not compiled."""
    return jax.tree.map(lambda x: np.asarray(x)[generation], tree)


def equal(one, two):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def prunable(tree):
    return np.concatenate([np.ravel(tree["last"]["kernel"]), np.ravel(tree["w"])])


# A gradient, a full and a diagonal distribution, members, restarts, a surrogate. The wrapper `masked`, which lottery
# uses, is tested with every strategy.
@pytest.mark.parametrize("id", ["open_es", "cma_es", "snes", "de", "ipop", "hybrid"])
def test_what_is_pruned_is_zero_in_every_member(id, key):
    """Pruned weights are zero in every member under `scan`, the counts are exact, and biases are never pruned."""
    num_rounds = 4
    strategy = make(zoo.make_strategy(id), population_size=6, prune_fraction=0.3)
    state, (populations, masks, _, means, _) = train(strategy, key, num_rounds * GENERATIONS)
    for r, left in enumerate(counts(0.3, num_rounds)):
        for generation in range(GENERATIONS * r, GENERATIONS * (r + 1)):
            population, mask, mean = (at(generation, tree) for tree in (populations, masks, means))
            assert prunable(mask).sum() == left
            assert np.all(mask["bias"])
            for p, m, x in zip(*map(jax.tree.leaves, (population, mask, mean)), strict=True):
                assert not np.any(p[:, ~m])
                assert not np.any(x[~m])
                assert np.all(np.isfinite(p))
    assert state.round == num_rounds - 1


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_counts_of_twenty_rounds(fraction, key):
    """The counts are right down to the last weight, and each mask is inside the mask before."""
    strategy = make(population_size=4, generations_per_round=1, prune_fraction=fraction)
    _, (_, masks, *_) = train(strategy, key, 20)
    flat = np.stack([prunable(at(r, masks)) for r in range(20)])
    assert flat.sum(axis=1).tolist() == counts(fraction, 20)
    assert np.all(flat[1:] <= flat[:-1])


@pytest.mark.parametrize("base", ["open_es", "pgpe", "de"])  # the arithmetic of these does not depend on the dimension
def test_first_round_is_the_base(base, key):
    alone = zoo.make_strategy(base, population_size=8)
    runs = []
    for strategy in (make(alone), alone):
        state, means = jax.jit(strategy.init)(key, SOLUTION), []
        ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
        for k in jax.random.split(key, GENERATIONS):
            population, state = ask(k, state)
            state = tell(state, population, evaluate(population))
            means.append((population, strategy.mean(state), strategy.std(state)))
        runs.append(means)
    assert equal(*runs)


@pytest.mark.parametrize("base", ["snes", "sep_cma_es", "pgpe", "open_es"])
def test_rewind_is_exact(base, key):
    """A new round equals a fresh `masked` base in mean, spread, optimizer and paths.

    It keeps nothing of the round before.
    """
    strategy = make(base, population_size=8)
    _, (_, masks, asked, means, stds) = train(strategy, key, 2 * GENERATIONS)
    mask = at(GENERATIONS, masks)
    masked = zoo.make_strategy("masked", base=base, population_size=8, mask=mask)
    rewound = at(GENERATIONS, asked)
    fresh = jax.jit(masked.init)(key, SOLUTION)
    ask, tell = jax.jit(masked.ask), jax.jit(masked.tell)
    assert equal(masked.mean(rewound), jax.tree.map(lambda m, x: np.where(m, x, 0), mask, SOLUTION))
    assert equal(masked.std(rewound), masked.std(fresh))
    assert equal(ask(key, rewound)[0], ask(key, fresh)[0])
    population, state = ask(jax.random.split(key, 2 * GENERATIONS)[GENERATIONS], fresh)
    state = tell(state, population, evaluate(population))
    for got, expected in ((means, masked.mean(state)), (stds, masked.std(state))):
        for one, other in zip(jax.tree.leaves(at(GENERATIONS, got)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("score", ["snr", "magnitude"])
def test_score_by_hand(score, key):
    """Four of twelve weights are pruned over all leaves: the lowest |mean| / std, or the lowest |mean|."""
    mean = {"bias": np.zeros(2), "u": np.array([[0.9, -0.1, 0.5], [0.2, -0.3, 0.7]]), "v": np.full((2, 3), -0.4)}
    std = {"bias": np.full(2, 9.0), "u": np.array([[9.0, 0.1, 0.1], [0.1, 0.1, 9.0]]), "v": np.ones((2, 3))}
    std["v"][1] = 0.1
    #     u: snr 0.1, 1, 5 | 2, 3, 0.078   v: snr 0.4, 0.4, 0.4 | 4, 4, 4
    lowest = {"snr": {"u": [0, 5], "v": [0, 1]}, "magnitude": {"u": [1, 3, 4], "v": [0]}}[score]
    mean, std = (jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), x) for x in (mean, std))
    strategy = make(score=score, prune_fraction=1 / 3, population_size=4)
    state = jax.jit(strategy.init)(key, mean)
    state = state._replace(base=state.base._replace(base=state.base.base._replace(std=std)), generation=jnp.int32(3))
    _, state = jax.jit(strategy.ask)(key, state)
    assert {k: np.flatnonzero(~state.mask[k]).tolist() for k in ("u", "v")} == lowest
    assert np.all(state.mask["bias"])


@pytest.mark.parametrize("base", [{"id": "frozen", "frozen": "w"}, {"id": "hybrid", "es_leaves": "bias|last"}])
def test_what_the_base_does_not_sample_goes_last(base, key):
    """By SNR, frozen leaves and leaves trained by the gradient are pruned last."""
    state, _ = train(make({"base": "snes", **base}, population_size=6, prune_fraction=0.1), key, 9)
    assert np.all(state.mask["w"])
    assert state.mask["last"]["kernel"].sum() == max(counts(0.1, 3)[-1] - 20, 0) > 0


def test_a_ticket_of_a_state(key):
    """`Ticket.of` makes a ticket from the state of a user's own loop."""
    strategy = make(population_size=6)
    state, _ = train(strategy, key, 2 * GENERATIONS)
    ticket = zoo.Ticket.of(strategy, state)
    assert ticket.kept == counts(0.2, 2)[-1] / NUM_PRUNABLE
    assert equal((ticket.mask, ticket.solution, ticket.mean), (state.mask, SOLUTION, strategy.mean(state)))
    assert ticket.info == {"criterion": "snr", "round": 1}
    other = zoo.make_strategy("snes", population_size=6)
    with pytest.raises(TypeError, match="expects the strategy 'lottery' and its state, got SNES and SNESState"):
        zoo.Ticket.of(other, other.init(key, SOLUTION))


def test_restarts_go_inside():
    with pytest.raises(TypeError, match=r"cannot restart Lottery: .* put the restarts inside"):
        zoo.make_strategy("ipop", base="lottery")


def test_random_scores_prune_every_weight_alike(key):
    """With random scores, each weight is kept for half of 2 000 keys, in one round at fraction 1/2 (5 sigma)."""
    strategy = make(score="random", prune_fraction=0.5, population_size=2)
    state = jax.jit(strategy.init)(key, SOLUTION)._replace(generation=jnp.int32(GENERATIONS))
    masks = jax.jit(jax.vmap(lambda k: strategy.ask(k, state)[1].mask))(jax.random.split(key, 2000))
    kept = np.concatenate([np.asarray(m).reshape(2000, -1) for m in (masks["last"]["kernel"], masks["w"])], axis=1)
    np.testing.assert_allclose(kept.mean(axis=0), 0.5, atol=5 * 0.5 / np.sqrt(2000))


def test_zero_weights_are_no_pruned_weights(key):
    """A weight that starts at zero does not count as pruned."""
    strategy = make(score="random", population_size=4)
    _, (_, masks, *_) = train(strategy, key, 9, jax.tree.map(np.zeros_like, SOLUTION))
    assert [prunable(at(g, masks)).sum() for g in (0, 3, 6)] == counts(0.2, 3)


def test_keys_decide_the_masks(key):
    strategy = make(population_size=6, score="snr")
    masks = [train(strategy, k, 9)[0].mask for k in (key, key, jax.random.key(1))]
    assert equal(*masks[:2])
    assert not equal(*masks[1:])


def test_seeds_in_a_batch_are_those_alone(key):
    strategy = make(population_size=6)
    keys = jax.random.split(key, 3)
    batch = jax.jit(jax.vmap(lambda k: train(strategy, k, 8)[0]))(keys)
    alone = train(strategy, keys[1], 8)[0]
    assert equal(jax.tree.map(lambda x: x[1], batch.mask), alone.mask)
    for one, other in zip(jax.tree.leaves(batch.base), jax.tree.leaves(alone.base), strict=True):
        np.testing.assert_allclose(one[1], other, rtol=1e-4, atol=1e-6)


def test_seeds_out_of_step_prune_when_each_is_due(key):
    strategy = make(population_size=6)
    state, _ = train(strategy, key, 2)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    states = states._replace(generation=jnp.asarray([2, 3]))
    _, asked = jax.jit(jax.vmap(strategy.ask))(jax.random.split(key), states)
    assert [prunable(at(i, asked.mask)).sum() for i in (0, 1)] == counts(0.2, 2)
    assert asked.generation.tolist() == [2, 0]
    assert equal(strategy.mean(at(0, asked)), strategy.mean(state))


def test_excluded_leaves_stay(key):
    strategy = make(population_size=6, exclude="last", prune_fraction=0.5)
    state, _ = train(strategy, key, 9)
    assert np.all(state.mask["last"]["kernel"])
    assert state.mask["w"].sum() == counts(0.5, 3, 20)[-1]
    with pytest.raises(ValueError, match=r"exclude 'first' is found in no leaf .* bias, last/kernel, w.*leave it out"):
        make(exclude="first").init(key, SOLUTION)
    with pytest.raises(ValueError, match=r"Lottery.exclude .* matches every prunable leaf"):
        make(exclude=("last", "w")).init(key, SOLUTION)


def test_what_is_prunable():
    of = lambda *shapes: prunable_leaves([np.zeros(s) for s in shapes])  # noqa: E731
    assert of((3, 2), (2,), (), (1, 1, 2, 2)) == [True, False, False, True]
    assert of((3,), ()) == [True, True]  # a vector has no biases
    heads = {"query": {"bias": np.zeros((2, 4)), "kernel": np.zeros((3, 2, 4))}, "norm": {"scale": np.ones((2, 3))}}
    assert prunable_leaves(heads) == {"query": {"bias": False, "kernel": True}, "norm": {"scale": False}}


def test_weight_decay(key):
    """The mean shrinks by the decay after each generation, and the base does not see it."""
    plain, decayed = (make(SNES(population_size=6), weight_decay=w) for w in (0.0, 0.1))
    population, state = jax.jit(lambda k: plain.ask(k, plain.init(k, SOLUTION)))(key)
    fitness = np.arange(6, dtype=np.float32)
    told, decayed_told = (jax.jit(s.tell)(state, population, fitness) for s in (plain, decayed))
    for one, other in zip(jax.tree.leaves(plain.mean(told)), jax.tree.leaves(decayed.mean(decayed_told)), strict=True):
        np.testing.assert_allclose(0.9 * one, other, rtol=1e-6)
    assert equal(plain.std(told), decayed.std(decayed_told))


def test_keep_best_with_ties_infinities_and_nan():
    scores = jnp.asarray([np.nan, np.inf, 1.0, 1.0, 1.0, np.inf, -np.inf, 2.0])
    mask = jnp.asarray([True, True, True, True, True, False, True, True])
    keep = jax.jit(lambda n: keep_best([scores], [mask], n, [True])[0])
    best_first = [7, 1]  # infinity is the highest score; a pruned weight never comes back
    assert np.flatnonzero(keep(2)).tolist() == sorted(best_first)
    assert np.flatnonzero(keep(4)).tolist() == [1, 3, 4, 7]  # of equal scores, the first is pruned first
    assert [int(keep(n).sum()) for n in range(8)] == list(range(8))


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"Lottery.score must be one of 'snr', 'magnitude', 'random', got 'size'"):
        make(score="size")
    with pytest.raises(ValueError, match=r"Lottery.exclude must be regular expressions"):
        make(exclude="(")
    with pytest.raises(ValueError, match=r"generations_per_round must be at least 1"):
        make(generations_per_round=0)
    with pytest.raises(ValueError, match=r"prune_fraction must be at most 1"):
        make(prune_fraction=1.5)


def test_run_resumes_exactly_within_a_round(tmp_path):
    """A run given by id on a problem, interrupted in the second round, resumes exactly."""
    problem = zoo.make_problem("supervised/digits", hidden=(4,), batch_size=16)
    make_one = lambda: zoo.make_strategy("lottery", problem=problem, population_size=6, generations_per_round=4)  # noqa: E731
    assert make_one().base.sigma == 0.05  # the problem suggests it
    expected = zoo.run(make_one(), problem, 0, num_generations=12, num_scores=4)
    stop = lambda progress: progress.generation >= 6  # noqa: E731
    folder = tmp_path / "run"
    first = zoo.run(make_one(), problem, 0, num_generations=12, num_scores=4, callback=stop, checkpoint=folder)
    assert first.num_generations == 6
    second = zoo.run(make_one(), problem, 0, num_generations=12, num_scores=4, checkpoint=folder)
    assert equal(second.state, expected.state)
    assert second.state.round == 2
