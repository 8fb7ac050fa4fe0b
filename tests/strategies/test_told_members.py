"""Numbers and kinds of members that `tell` takes: more or fewer than were asked, and members from elsewhere."""

import jax
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS, ask, init, tell

START = np.linspace(-1, 1, 4).astype(np.float32)
SPREAD = np.array([0.5, 0.01, 20.0, 3.0], np.float32)
FREE = ["cma_es", "sep_cma_es", "lra_cma_es", "xnes", "snes", "random_search"]


def of_size(id, size, sigma=0.5):
    return zoo.make_strategy(id, population_size=size, sigma=sigma)


@pytest.mark.parametrize("id", IDS)
def test_which_strategies_take_other_numbers_of_members(id):
    """Only strategies in `FREE` take other numbers of members. `zoo.testing` checks that others give a reason."""
    strategy = zoo.make_strategy(id)
    wraps_one = id == "lottery" and strategy.base.needs_all_members is None
    assert (strategy.needs_all_members is None) == (id in FREE or wraps_one)


@pytest.mark.parametrize("id", FREE)
def test_the_update_is_that_of_the_members_told(id):
    """The update equals the update of a strategy whose population size is the number of members told."""
    key, large, small = jax.random.key(1), of_size(id, 9), of_size(id, 6)
    state = init(large, key, START)
    population, state = ask(large, key, state)
    members = np.asarray(population)[[8, 1, 4, 5, 0, 2]]
    fitness = np.sum(members**2, axis=1)
    of_large, of_small = (tell(each, state, members, fitness) for each in (large, small))
    for x, y in zip(jax.tree.leaves(of_large), jax.tree.leaves(of_small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("id", "sigma"), [*((id, 0.5) for id in FREE[:-1]), ("cma_es", SPREAD), ("xnes", SPREAD)])
def test_a_member_from_far_away_is_pulled_in(id, sigma):
    """A distant member enters as the point on its way whose Mahalanobis norm is sqrt(d) + 2 d / (d + 2)."""
    key, strategy = jax.random.key(2), of_size(id, 6, sigma)
    state = init(strategy, key, START)
    population, state = ask(strategy, key, state)
    members, d = np.asarray(population).copy(), len(START)
    way = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    longest = np.sqrt(d) + 2 * d / (d + 2)
    fitness = np.arange(6.0, dtype=np.float32)
    means = []
    for length, is_from_elsewhere in ((longest, False), (50.0, True), (50.0, False)):
        members[0] = START + sigma * length * way / np.linalg.norm(way)
        repaired = np.array([is_from_elsewhere, *[False] * 5])
        told = tell(strategy, state, members.copy(), zoo.Evaluation.of(fitness, 6)._replace(repaired=repaired))
        means.append(np.asarray(strategy.mean(told)) / sigma)
    np.testing.assert_allclose(means[0], means[1], rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(means[2] - means[1]) > 0.1
