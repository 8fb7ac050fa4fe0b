"""A search that does not fit in memory is refused before anything is allocated."""

import jax
import numpy as np
import pytest

import zoo
from zoo.core import memory

MILLION = np.zeros(1_000_000, np.float32)


def init(strategy, solution=MILLION):
    return jax.eval_shape(lambda key: strategy.init(key, solution), jax.random.key(0))


@pytest.fixture(autouse=True)
def sixteen_gib(monkeypatch):
    monkeypatch.setattr("zoo.core.strategy.total_memory", lambda: 2**34)


@pytest.mark.parametrize("id", ["cma_es", "ma_es", "xnes", "lra_cma_es", "ipop", "bipop"])
def test_a_state_that_is_too_large(id):
    what = r"search in 1,000,000 dimensions takes [3-9]\.\d+ TiB, and there are 16 GiB .* such as sep_cma_es"
    with pytest.raises(ValueError, match=what):
        init(zoo.make_strategy(id))


@pytest.mark.parametrize("id", ["sep_cma_es", "lm_ma_es", "cr_fm_nes", "snes", "open_es", "bounded"])
def test_one_that_is_not(id):
    init(zoo.make_strategy(id))
    init(zoo.make_strategy("cma_es"), MILLION[:10_000])


def test_a_population_that_is_too_large(monkeypatch):
    with pytest.raises(ValueError, match=r"OpenES: population_size=2,000,000,000 takes 119 GiB or more.* smaller one"):
        init(zoo.make_strategy("open_es", population_size=2 * 10**9), np.zeros(2))
    with pytest.raises(ValueError, match=r"population_size=10,000 takes 37.3 GiB"):
        init(zoo.make_strategy("open_es", population_size=10_000))
    from zoo.strategies.perturbations import Seeded

    init(zoo.make_strategy("open_es", population_size=10_000, perturbation=Seeded()))  # seeded members are not stored
    monkeypatch.setattr("zoo.core.strategy.total_memory", lambda: 2**33)
    with pytest.raises(ValueError, match=r"in 2,000,000,000 dimensions takes .*Search in fewer"):
        zoo.run("snes", zoo.make_problem("blackbox/sphere", num_dims=2 * 10**9), num_generations=1)


def test_what_there_is(monkeypatch):
    assert memory.total_memory() > 2**28
    monkeypatch.delattr("os.sysconf")
    assert memory.total_memory() is None
    assert [memory.say_bytes(n) for n in (0, 1023, 1536, 2**34, 10**400)] == [
        *("0 B", "1.02e+03 B", "1.5 KiB", "16 GiB", "1.07e+09 PiB")
    ]
