"""Learning rates and step sizes that change with the generation."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from zoo.loop.identity import identify
from zoo.loop.provenance import describe_settings

SCHEDULE = optax.cosine_decay_schedule(0.2, 5)
PROBLEM = zoo.from_function(lambda x: jnp.sum((x["a"] - 1) ** 2) + x["b"] ** 2, {"a": jnp.zeros(3), "b": 2.0})


def by_schedule(rate):
    """Returns an optimizer that already has the schedule."""
    return optax.adam(lambda step: rate / 0.2 * SCHEDULE(step))


def means(id, **settings):
    strategy = zoo.make_strategy(id, population_size=6, **settings)
    result = zoo.run(strategy, PROBLEM, num_generations=4, num_scores=1)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(result.mean)])


@pytest.mark.parametrize(("id", "settings"), [("open_es", {}), ("hybrid", {"es_leaves": "b", "base": "snes"})])
def test_a_function_as_learning_rate_is_a_schedule(id, settings):
    """The steps equal optax with the same schedule, which counts steps itself."""
    scheduled = means(id, learning_rate=SCHEDULE, **settings)
    expected = means(id, learning_rate=0.2, optimizer=by_schedule, **settings)
    constant = means(id, learning_rate=0.2, **settings)
    np.testing.assert_allclose(scheduled, expected, rtol=1e-5)
    assert np.abs(constant - expected).max() > 0.01


def test_the_rate_and_its_schedule():
    """A function becomes the schedule of a rate of one, wherever it is given.

    The rate stays a leaf that can be swept.
    """
    for id in ("open_es", "ars", "nres", "pgpe", "bptt", "hybrid"):
        strategy = zoo.make_strategy(id, learning_rate=SCHEDULE)
        assert (strategy.learning_rate, strategy.learning_rate_schedule) == (1.0, SCHEDULE)
        assert strategy.replace(learning_rate=0.5).learning_rate_schedule is SCHEDULE
    wrapped = zoo.make_strategy({"id": "bounded", "base": {"id": "open_es", "learning_rate": SCHEDULE}})
    assert wrapped.base.learning_rate_schedule is SCHEDULE
    sigma = zoo.make_strategy("open_es", sigma=SCHEDULE)
    assert (sigma.sigma, sigma.sigma_schedule) == (1.0, SCHEDULE)
    state = sigma.init(jax.random.key(0), jnp.zeros(2))
    np.testing.assert_allclose(sigma.std(state), 0.2, rtol=1e-6)


def test_a_schedule_counts_in_what_identifies_a_run():
    def facts(schedule):
        strategy = zoo.make_strategy("open_es", learning_rate=schedule)
        json.dumps(describe_settings(strategy))
        return identify(strategy, PROBLEM).facts()["what"]

    assert facts(SCHEDULE) == facts(optax.cosine_decay_schedule(0.2, 5))
    assert facts(SCHEDULE) != facts(optax.cosine_decay_schedule(0.2, 6))


@pytest.mark.parametrize(
    ("id", "settings", "error", "words"),
    [
        ("open_es", {"learning_rate": SCHEDULE, "learning_rate_schedule": SCHEDULE}, ValueError, "Give one of them"),
        ("open_es", {"sigma": SCHEDULE, "sigma_schedule": SCHEDULE}, ValueError, "Give one of them"),
        ("open_es", {"sigma_schedule": 3}, TypeError, "OpenES.sigma_schedule must be a function, got 3"),
        ("cma_es", {"sigma": SCHEDULE}, TypeError, "It cannot be a function of the generation"),
        ("pgpe", {"std_learning_rate": SCHEDULE}, TypeError, "It cannot be a function of the generation"),
        ("evosax/Open_ES", {"learning_rate": SCHEDULE}, TypeError, "options={'optimizer': optax.adam(schedule)}"),
        ("open_es", {"optimizer": "adamm"}, ValueError, "Did you mean 'adam'"),
        ("open_es", {"optimizer": "global_norm"}, ValueError, "is not the name of an optax optimizer"),
        ("hybrid", {"optimizer": "lbfgs"}, ValueError, "has only a gradient, and this optimizer needs more"),
        ("open_es", {"optimizer": optax.polyak_sgd}, ValueError, "has only a gradient, and this optimizer needs more"),
        ("open_es", {"optimizer": optax.scale_by_adam}, TypeError, "a function from a learning rate"),
        ("open_es", {"optimizer": optax.adam(1e-3)}, TypeError, "give the rate as learning_rate=1e-3"),
    ],
)
def test_what_is_no_schedule_and_no_optimizer(id, settings, error, words):
    with pytest.raises(error, match=re.escape(words)) as raised:
        zoo.make_strategy(id, **settings)
    assert "\n" not in str(raised.value)
