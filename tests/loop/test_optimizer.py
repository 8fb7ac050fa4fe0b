"""`zoo.Optimizer` for loops on the host: it equals the loop, keeps precision, pickles, stops, and reports mistakes."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.loop.optimizer import _start, _tell

X0 = np.array([1.0, -2.0, 0.5])
TREE = {"a": np.array([1.0, 2.0], np.float32), "b": np.float32(3.0)}


def bowl(x):
    return float(np.sum((x - 3) ** 2))


def generations(optimizer, number, fn=bowl):
    for _ in range(number):
        members = optimizer.ask()
        optimizer.tell(members, [fn(x) for x in members])
    return optimizer


def test_it_is_the_loop_written_out(x64):
    optimizer = generations(zoo.Optimizer("cma_es", X0, sigma=0.5, population_size=6, seed=4), 5)
    strategy, key = zoo.make_strategy("cma_es", sigma=0.5, population_size=6), jax.random.key(4)

    @jax.jit
    def written_out():
        state = strategy.init(jax.random.fold_in(key, 2**32 - 1), jnp.asarray(X0))
        for i in range(5):
            population, state = strategy.ask(jax.random.fold_in(key, i), state)
            state = strategy.tell(state, population, jnp.sum((population - 3) ** 2, axis=1))
        return strategy.mean(state), strategy.std(state)

    mean, std = written_out()
    np.testing.assert_allclose(optimizer.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(optimizer.std, std, rtol=1e-9)
    assert (optimizer.generation, optimizer.num_evaluations) == (5, 30)


def test_transfers_may_be_guarded():
    with jax.transfer_guard("disallow"):
        optimizer = generations(zoo.Optimizer("cma_es", X0, sigma=0.5, population_size=6, seed=4), 10)
        assert optimizer.mean.shape == optimizer.std.shape == (3,)


def test_double_precision_is_that_of_the_solution():
    """A float64 solution is searched in double precision, also if JAX's default is single precision.

    The optimum is found to more digits than single precision has.
    """
    optimizer = zoo.Optimizer("cma_es", X0, sigma=0.5, population_size=6, target=1e-18, stop=None)
    while not optimizer.should_stop:
        generations(optimizer, 1)
    assert optimizer.best.dtype == optimizer.mean.dtype == np.float64
    assert optimizer.best_fitness == bowl(optimizer.best) <= 1e-18
    assert zoo.Optimizer("cma_es", X0.astype(np.float32)).ask().dtype == np.float32


@pytest.mark.parametrize("strategy", ["snes", "open_es"])
def test_solutions_of_any_structure(strategy):
    def fn(x):
        return bowl(x["a"]) + bowl(x["b"])

    optimizer = zoo.Optimizer(strategy, TREE, sigma=0.5, population_size=8)
    members = optimizer.ask()
    assert [jax.tree.structure(x) for x in members] == [jax.tree.structure(TREE)] * 8
    assert [x["a"].shape for x in members] == [(2,)] * 8
    first = [fn(x) for x in members]
    optimizer.tell(members, jnp.asarray(first))
    assert optimizer.best_fitness == np.float32(min(first))
    assert fn(optimizer.best) == min(first)
    generations(optimizer, 30, fn)
    assert fn(optimizer.mean) < fn(TREE)


def test_what_is_asked_waits_to_be_told_and_belongs_to_the_caller():
    optimizer = zoo.Optimizer("snes", X0, population_size=6)
    members = optimizer.ask()
    expected = members.copy()
    members[:] = np.nan
    np.testing.assert_array_equal(optimizer.ask(), expected)


@pytest.mark.parametrize("strategy", ["cma_es", "ma_es", {"id": "open_es", "perturbation": "seeded"}])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_goes_on_bit_for_bit(strategy, copied):
    settings = {"id": strategy} if isinstance(strategy, str) else strategy
    optimizer = zoo.Optimizer(**{"population_size": 6, "solution": X0, "strategy": settings["id"], **_others(settings)})
    members = generations(optimizer, 2).ask()
    other = copied(optimizer)
    np.testing.assert_array_equal(other.ask(), members)
    for each in (optimizer, other):
        generations(each, 3)
    np.testing.assert_array_equal(other.mean, optimizer.mean)
    assert other.mean.dtype == np.float64
    np.testing.assert_array_equal(other.best, optimizer.best)
    assert other.best_fitness == optimizer.best_fitness


def _others(settings):
    return {name: value for name, value in settings.items() if name != "id"}


def test_members_that_were_repaired_count_where_they_are_followed():
    one, other = (zoo.Optimizer("snes", X0, population_size=6) for _ in range(2))
    members = one.ask()
    one.tell(list(np.clip(members, -1, 1)), [bowl(x) for x in members])
    other.tell(other.ask(), [bowl(x) for x in members])
    assert not np.allclose(one.mean, other.mean)
    assert np.all(np.abs(one.best) <= 1)
    refuses = zoo.Optimizer("ma_es", X0, population_size=6)
    with pytest.raises(ValueError, match="MAES uses the noise that it drew, so it must be told the members"):
        refuses.tell(np.clip(refuses.ask(), -1, 1), np.zeros(6))


def test_more_or_fewer_members_are_told():
    optimizer = zoo.Optimizer("cma_es", X0, population_size=6)
    known = np.ones((2, 3))  # at the optimum
    members = optimizer.ask()
    optimizer.tell(np.concatenate([members[[4, 2, 0]], known]), [*map(bowl, members[[4, 2, 0]]), 0.0, 0.0])
    assert optimizer.num_evaluations == 5
    np.testing.assert_array_equal(optimizer.best, known[0])
    # Drawn members may come in any order. Other members are marked as injected.
    strategy, key = optimizer.strategy, jax.random.key(0)
    with jax.enable_x64(True):
        state = strategy.init(jax.random.fold_in(key, 2**32 - 1), X0)
        _, state = strategy.ask(jax.random.fold_in(key, 0), state)
        population = jnp.concatenate([members[jnp.array([4, 2, 0])], known])
        fitness = jnp.array([*map(bowl, members[[4, 2, 0]]), 0.0, 0.0])
        repaired = jnp.array([False, False, False, True, True])
        told = strategy.tell(state, population, zoo.Evaluation.of(fitness, 5)._replace(repaired=repaired))
        np.testing.assert_allclose(optimizer.mean, told.mean, rtol=1e-12)
    members = optimizer.ask()
    members[1, 0] = np.nan
    with pytest.raises(ValueError, match="got a member, number 1, with entries that are not finite"):
        optimizer.tell(members, np.zeros(6))
    for id, why in (("open_es", "compares the 2 members of each perturbation"), ("de", "its update is made for that")):
        refuses = zoo.Optimizer(id, X0, population_size=6)
        with pytest.raises(ValueError, match=f"expects the 6 members asked, got 4: .*{why}"):
            refuses.tell(refuses.ask()[:4], np.zeros(4))


def test_wrappers():
    optimizer = zoo.Optimizer("bounded", X0 / 4, base="cma_es", lower=-1.0, upper=1.0, population_size=6)
    generations(optimizer, 60)
    assert np.all(np.abs(optimizer.ask()) <= 1)
    np.testing.assert_allclose(optimizer.best, 1, atol=0.1)


def test_optimizers_share_programs():
    generations(zoo.Optimizer("cma_es", X0, sigma=0.5, population_size=6), 1)
    before = _start.num_programs, _tell.num_programs
    generations(zoo.Optimizer("cma_es", X0 + 1, sigma=0.7, population_size=6, seed=5, target=1.0), 1)
    assert (_start.num_programs, _tell.num_programs) == before


@pytest.mark.parametrize(
    ("reason", "settings", "fn", "number"),
    [
        ("target", {"target": 100.0}, bowl, 1),
        ("max_evaluations", {"max_evaluations": 11}, bowl, 2),
        ("tol_fun", {}, lambda x: 1.0, 25),  # 10 + 30 * 3 / 6 generations
        ("tol_x", {"stop": zoo.Converged(tol_x=1.0)}, bowl, 40),
        ("max_condition", {"stop": zoo.Converged(max_condition=1.5)}, bowl, 10),
    ],
)
def test_reasons_to_stop(reason, settings, fn, number):
    optimizer = zoo.Optimizer("cma_es", X0, sigma=0.5, population_size=6, **settings)
    for i in range(number):
        assert reason not in optimizer.stop_reasons, i
        generations(optimizer, 1, fn)
        if i == 0 and number > 1:
            assert not optimizer.should_stop
        if optimizer.should_stop:
            break
    assert list(optimizer.stop_reasons) == [reason]


def test_strategies_that_start_over_stop_by_budget_and_target_alone():
    base = {"id": "snes", "sigma": 0.5}
    optimizer = zoo.Optimizer("ipop", X0, base=base, max_doublings=0, population_size=6, max_evaluations=30 * 6)
    generations(optimizer, 29, lambda x: 1.0)
    assert not optimizer.should_stop
    generations(optimizer, 1, lambda x: 1.0)
    assert list(optimizer.stop_reasons) == ["max_evaluations"]


def test_nan_is_the_worst():
    optimizer = zoo.Optimizer("snes", X0, population_size=6)
    members = optimizer.ask()
    optimizer.tell(members, [np.nan, 5.0, np.nan, 4.0, np.inf, 6.0])
    np.testing.assert_array_equal(optimizer.best, members[3])
    assert np.isfinite(optimizer.mean).all()
    assert repr(optimizer) == "<Optimizer: SNES, 6 evaluations, best fitness 4>"


def test_mistakes():
    optimizer = zoo.Optimizer("snes", X0, population_size=6)
    with pytest.raises(ValueError, match="comes after ask"):
        optimizer.tell(np.zeros((6, 3)), np.zeros(6))
    members = optimizer.ask()
    with pytest.raises(ValueError, match=r"fitness of shape \(6,\), one number per member, got \(5,\)"):
        optimizer.tell(members, np.zeros(5))
    with pytest.raises(TypeError, match="expects fitness values that are real numbers, got array"):
        optimizer.tell(members, "good")
    with pytest.raises(ValueError, match=r"members of shapes \[\(6, 3\)\], got \[\(6, 2\)\]"):
        optimizer.tell(members[:, :2], np.zeros(6))
    with pytest.raises(TypeError, match="members as ask returns them, an array or a list of solutions, got dict"):
        optimizer.tell({"x": members}, np.zeros(6))
    with pytest.raises(ValueError, match="expects the 6 members asked, got 1: they are compared with each other"):
        optimizer.tell(list(members[:1]), np.zeros(1))
    with pytest.raises(ValueError, match="members of structure"):
        optimizer.tell([{"x": x} for x in members], np.zeros(6))
    optimizer.tell(members, np.zeros(6))  # none of the calls above told anything
    with pytest.raises(ValueError, match=r"max_evaluations=5 is less than one generation, population_size=6 members"):
        zoo.Optimizer("snes", X0, population_size=6, max_evaluations=5)
    with pytest.raises(TypeError, match="GuidedES needs a surrogate gradient, which only a problem can give"):
        zoo.Optimizer("guided_es", X0)
    with pytest.raises(TypeError, match=r"already made, and settings \['sigma'\]"):
        zoo.Optimizer(zoo.make_strategy("snes"), X0, sigma=0.1)
    with pytest.raises(
        TypeError, match=r"has no setting .max_evals.* Settings of the Optimizer itself: seed, max_eval"
    ):
        zoo.Optimizer("snes", X0, max_evals=3)
    with pytest.raises(TypeError, match="floating-point arrays"):
        zoo.Optimizer("snes", [1, 2])
