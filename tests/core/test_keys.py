"""Random keys from users: every function checks them by one rule, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core.keys import as_key

START = jnp.zeros(2)
PROBLEM = zoo.from_function(lambda x: jnp.sum(x**2), START)
SNES = zoo.make_strategy("snes", population_size=4)
TICKET = zoo.Ticket(mask=np.ones(2, bool), solution=START, kept=1.0)

ENTRIES = {
    "run": lambda key: zoo.run("snes", PROBLEM, key, num_generations=1),
    "minimize": lambda key: zoo.minimize(PROBLEM.fn, START, key=key, num_generations=1),
    "benchmark": lambda key: zoo.benchmark(["snes"], [PROBLEM], key=key, num_steps=10, progress=False),
    "estimator_statistics": lambda key: zoo.estimator_statistics("open_es", PROBLEM, key=key, progress=False),
    "interpolate": lambda key: zoo.interpolate(PROBLEM, START, START, key),
    "flatness": lambda key: zoo.flatness(PROBLEM, START, key),
    "prune_at_init": lambda key: zoo.prune_at_init(PROBLEM, 0.5, key=key),
    "lottery_tickets": lambda key: zoo.lottery_tickets("snes", PROBLEM, key, num_seeds=1, num_rounds=1),
    "Ticket.train": lambda key: TICKET.train("snes", PROBLEM, key, num_generations=1),
    "Ticket.evaluate": lambda key: TICKET.evaluate(PROBLEM, key),
    "Ticket.permuted": TICKET.permuted,
    "Ticket.reinitialized": lambda key: TICKET.reinitialized(PROBLEM, key),
    "init": lambda key: SNES.init(key, START),
    "ask": lambda key: SNES.ask(key, SNES.init(jax.random.key(0), START)),
}

BAD = {
    "an array of keys": (jax.random.split(jax.random.key(0), 3), ValueError, r"one random key, .* shape \(3,\)"),
    "an array of one key": (jax.random.split(jax.random.key(0), 1), ValueError, r"one random key, .* shape \(1,\)"),
    "raw keys": (jax.random.split(jax.random.PRNGKey(0), 3), ValueError, r"have shape \(2,\), got \(3, 2\)"),
    "of rbg": (jax.random.PRNGKey(0, impl="rbg"), ValueError, r"got \(4,\).*impl='rbg'"),
    "a float": (1.0, TypeError, "got 1.0"),
    "text": ("0", TypeError, "got '0'"),
    "a boolean": (True, TypeError, "got True"),
    "an array of floats": (np.zeros(2, np.float32), TypeError, r"an array float32\[2\]"),
    "a list": ([1, 2], TypeError, r"got \[1, 2\]"),
}
SEEDS = {
    "negative": (-1, ValueError, r"from 0 to 2\*\*32 - 1, got -1"),
    "whose high bits JAX drops": (2**32, ValueError, r"from 0 to 2\*\*32 - 1, got 4294967296"),
    "beyond 64 bits": (2**63, ValueError, r"from 0 to 2\*\*32 - 1, got 9223372036854775808"),
    "of 400 digits": (10**400, ValueError, "more than 60 digits"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_key_is_refused(entry):
    bad = {**BAD, **({} if entry in ("init", "ask") else SEEDS)}
    for kind, (key, error, message) in bad.items():
        with pytest.raises(error, match=rf"^key must be .*{message}") as raised:
            ENTRIES[entry](key)
        assert "\n" not in str(raised.value), kind


@pytest.mark.parametrize("seed", [*SEEDS.values(), BAD["a float"], BAD["text"], (None, TypeError, "got None")])
def test_seeds_of_an_optimizer(seed):
    value, error, message = seed
    with pytest.raises(error, match=f"^seed must be a seed.*{message}"):
        zoo.Optimizer("snes", np.zeros(2, np.float32), seed=value)


def test_a_seed_is_given_again_and_again_to_ask():
    with pytest.raises(TypeError, match=r"^key must be a random key, jax.random.key\(seed\), got 0"):
        ENTRIES["ask"](0)


def test_what_is_a_key():
    expected = jax.random.key_data(jax.random.key(5))
    for key in (5, np.int16(5), np.uint64(5), jax.random.key(5), jax.random.PRNGKey(5), np.asarray([0, 5], np.uint32)):
        np.testing.assert_array_equal(jax.random.key_data(as_key(key)), expected)
    assert as_key(rbg := jax.random.key(5, impl="rbg")) is rbg
    np.testing.assert_array_equal(jax.vmap(lambda k: jax.random.key_data(as_key(k)))(as_key(5)[None])[0], expected)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.random.key_data(as_key(2**40 + 1)), [2**8, 1])
        with pytest.raises(ValueError, match=r"2\*\*63 - 1"):
            as_key(2**63)
