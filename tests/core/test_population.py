"""`zoo.core.population`, the one module that knows how a population is stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.core.population import map_members, population_size, repeat_solution, take_member

# Whole numbers, so that sums are exact in any order.
POPULATION = {"w": jnp.arange(15.0).reshape(5, 3), "b": jnp.array([4.0, -1.0, 0.0, 2.0, 9.0])}


def two_results(solution):
    return {"square": jnp.sum(solution["w"] ** 2) + solution["b"], "w": 2 * solution["w"]}


def assert_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5, 7])
def test_map_members_equals_vmap(batch_size):
    assert_equal(map_members(two_results, POPULATION, batch_size=batch_size), jax.vmap(two_results)(POPULATION))


@pytest.mark.parametrize(("batch_size", "lengths"), [(None, []), (5, []), (7, []), (2, [2]), (3, [1]), (1, [5])])
def test_map_members_evaluates_at_most_a_batch_at_a_time(batch_size, lengths):
    """Full batches run in a loop, and the remaining members run in one smaller batch."""
    jaxpr = jax.make_jaxpr(lambda population: map_members(two_results, population, batch_size=batch_size))(POPULATION)
    assert [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"] == lengths


@pytest.mark.parametrize("batch_size", [None, 2])
def test_map_members_maps_further_arguments_along(batch_size):
    shift = (jnp.arange(5.0), {"scale": jnp.arange(10.0).reshape(5, 2)})

    def fn(solution, shift):
        return solution["b"] * shift[0] + shift[1]["scale"]

    got = map_members(fn, POPULATION, shift, batch_size=batch_size)
    np.testing.assert_array_equal(got, POPULATION["b"][:, None] * shift[0][:, None] + shift[1]["scale"])


@pytest.mark.parametrize("batch_size", [None, 2])
def test_map_members_refuses_arguments_of_another_length(batch_size):
    with pytest.raises(ValueError, match="inconsistent sizes"):
        map_members(lambda x, y: x["b"] + y, POPULATION, jnp.arange(4.0), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_map_members_refuses_a_batch_size_that_is_not_positive(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        map_members(two_results, POPULATION, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize(
    "population",
    [{"a": jnp.zeros((3, 2)), "b": jnp.zeros(4)}, {"a": jnp.zeros((3, 2)), "b": jnp.zeros(())}, jnp.zeros(()), {}, ()],
    ids=["two sizes", "one scalar", "only a scalar", "empty dict", "empty tuple"],
)
def test_refuses_what_is_not_a_population(population, batch_size):
    shapes = [x.shape for x in jax.tree.leaves(population)]
    for call in (population_size, lambda p: map_members(lambda x: x, p, batch_size=batch_size)):
        with pytest.raises(ValueError, match="share their leading axis") as error:
            call(population)
        assert str(shapes) in str(error.value)


def test_population_size():
    assert population_size(POPULATION) == 5
    assert population_size(np.zeros((3, 2))) == 3
    assert jax.jit(lambda p: jnp.zeros(population_size(p)))(POPULATION).shape == (5,)  # a Python number under jit


@pytest.mark.parametrize("index", [0, 3, 4])
def test_take_member(index):
    expected = {"w": POPULATION["w"][index], "b": POPULATION["b"][index]}
    assert_equal(take_member(POPULATION, index), expected)
    assert_equal(jax.jit(take_member)(POPULATION, index), expected)


def test_repeat_solution_gives_every_member_the_same():
    solution = {"w": jnp.arange(3.0), "b": jnp.float32(2.0)}
    population = repeat_solution(solution, 4)
    assert population_size(population) == 4
    for index in range(4):
        assert_equal(take_member(population, index), solution)
