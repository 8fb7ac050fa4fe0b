"""`Problem` and `from_function`: what the author of a plain fitness can rely on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core.grouping import group_keys


class Noisy(zoo.Problem):
    """Fitness is sum(x * a) + |x|^2 / 2, where the key draws a. Its gradient is a + x."""

    def initial_solution(self, key):
        return jnp.zeros(3)

    def fitness(self, key, solution):
        return jnp.sum(solution * jax.random.normal(key, (3,))) + jnp.sum(solution**2) / 2


class Quadratic(zoo.Problem):
    """The minimum that a subclass must define."""

    def initial_solution(self, key):
        return jnp.zeros(2)

    def fitness(self, key, solution):
        return jnp.sum(solution**2)


class Shifted(Quadratic):
    """Gets the shift of its fitness from its statistics. The problem itself has no shift."""

    shift: Any = zoo.leaf(None)

    def fitness(self, key, solution):
        return jnp.sum((solution - self.shift) ** 2)

    def init_statistics(self):
        return jnp.array([1.0, 2.0])

    def with_statistics(self, statistics):
        return self.replace(shift=statistics)


class Pair(NamedTuple):
    left: Any
    right: Any


POPULATION = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [-1.0, 0.5, 2.0], [1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]])


def noise(key, num_groups):
    return jax.vmap(lambda k: jax.random.normal(k, (3,)))(group_keys(key, num_groups))


# from_function


@pytest.mark.parametrize(
    "solution",
    [
        jnp.ones(3),
        {"a": jnp.ones(2), "b": (jnp.zeros(()), jnp.ones((2, 2)))},
        (jnp.ones(2), jnp.zeros(3)),
        [jnp.ones(2), jnp.zeros(3)],
        Pair(jnp.ones(2), {"x": [jnp.zeros(())]}),
    ],
    ids=["array", "dict", "tuple", "list", "namedtuple"],
)
def test_from_function_keeps_the_users_structure(solution, key):
    problem = zoo.from_function(lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x)), solution)
    initial = problem.initial_solution(key)
    assert jax.tree.structure(initial) == jax.tree.structure(solution)
    assert all(map(np.array_equal, jax.tree.leaves(initial), jax.tree.leaves(solution)))
    # The structure survives a jit boundary.
    inside = jax.jit(lambda problem: problem.initial_solution(jax.random.key(0)))(problem)
    assert jax.tree.structure(inside) == jax.tree.structure(solution)


def test_from_function_turns_numbers_into_arrays_of_fixed_dtype(key):
    initial = zoo.from_function(lambda x: x["a"], {"a": 2.0, "b": np.ones(2)}).initial_solution(key)
    assert {x.dtype for x in jax.tree.leaves(initial)} == {np.dtype(np.float32)}
    assert not initial["a"].weak_type


def test_from_function_with_a_random_initial_solution():
    problem = zoo.from_function(jnp.sum, lambda key: jax.random.normal(key, (4,)))
    for seed in (0, 1):
        key = jax.random.key(seed)
        np.testing.assert_array_equal(problem.initial_solution(key), jax.random.normal(key, (4,)))


def test_from_function_passes_data_as_arguments_that_do_not_recompile(key):
    traces = []

    def fn(x, inputs, targets):
        traces.append(1)
        return jnp.sum((inputs @ x - targets["y"]) ** 2)

    def make(value):
        return zoo.from_function(fn, jnp.ones(2), data=(jnp.full((3, 2), value), {"y": jnp.ones(3)}))

    evaluate = jax.jit(lambda problem, x: problem.fitness(key, x))
    assert evaluate(make(1.0), jnp.ones(2)) == 3.0
    assert evaluate(make(2.0), jnp.ones(2)) == 27.0
    assert len(traces) == 1  # data are leaves, so other data use the same program
    constants = jax.make_jaxpr(lambda problem, x: problem.fitness(key, x))(make(1.0), jnp.ones(2)).consts
    assert not any(np.shape(constant) == (3, 2) for constant in constants)


def test_from_function_takes_key_first(key):
    problem = zoo.from_function(lambda k, x, scale: jax.random.normal(k) * scale + x, 0.0, data=(10.0,), takes_key=True)
    np.testing.assert_allclose(problem.fitness(key, 1.0), 10 * jax.random.normal(key) + 1, rtol=1e-6)
    assert problem.fitness(key, 1.0) != problem.fitness(jax.random.key(1), 1.0)


def test_from_function_hands_the_member_batch_size_on():
    assert zoo.from_function(jnp.sum, jnp.ones(2), member_batch_size=3).member_batch_size == 3


@pytest.mark.parametrize("fn", [3, "sum", jnp.ones(2), None])
def test_from_function_refuses_what_is_not_a_function(fn):
    with pytest.raises(TypeError, match=f"expects a function of one solution, got {type(fn).__name__}"):
        zoo.from_function(fn, jnp.ones(2))


@pytest.mark.parametrize("leaf", [jnp.arange(3), np.arange(3), 3, True, "a", jnp.ones(2, bool)])
def test_from_function_names_the_leaf_that_is_not_of_floats(leaf):
    with pytest.raises(TypeError, match=r"\['b'\] is "):
        zoo.from_function(lambda x: 0.0, {"a": jnp.ones(2), "b": leaf})


@pytest.mark.parametrize("solution", [{}, (), jnp.zeros((0, 3))])
def test_from_function_refuses_an_empty_solution(solution):
    with pytest.raises(ValueError, match=r"nothing to optimise|no entries"):
        zoo.from_function(lambda x: 0.0, solution)


# Groups


def test_the_members_of_a_group_share_the_key(key):
    """Equal solutions have equal fitness within a group, and another fitness in another group, for any group ids."""
    problem = Noisy()
    state = problem.init(key, zoo.Groups(np.array([7, 3, 7, 3, 3])), jnp.zeros(3))
    np.testing.assert_array_equal(state.groups, [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(np.asarray(state.groups)[state.members], [0, 1])
    fitness = problem.evaluate(key, jnp.broadcast_to(POPULATION[0], (5, 3)), state)[0].fitness
    assert fitness[0] == fitness[2]
    assert fitness[1] == fitness[3] == fitness[4]
    assert fitness[0] != fitness[1]


def test_fitness_of_groups_is_that_of_their_keys(key):
    problem = Noisy()
    groups = np.array([1, 0, 1, 2, 2])
    state = problem.init(key, zoo.Groups(groups), jnp.zeros(3))
    evaluation, new_state = problem.evaluate(key, POPULATION, state)
    expected = jnp.sum(POPULATION * noise(key, 3)[groups], axis=1) + jnp.sum(POPULATION**2, axis=1) / 2
    np.testing.assert_allclose(evaluation.fitness, expected, rtol=1e-5)
    assert evaluation.done.dtype == bool
    assert evaluation.done.all()
    assert evaluation.done.shape == (5,)
    assert evaluation.steps == 5
    assert all(map(np.array_equal, jax.tree.leaves(new_state), jax.tree.leaves(state)))
    other = problem.evaluate(jax.random.key(1), POPULATION, state)[0].fitness
    assert not np.any(other == evaluation.fitness)


@pytest.mark.parametrize("member_batch_size", [None, 2])
def test_one_group_is_the_general_path_with_one_group(key, member_batch_size):
    """Another group does not change the fitness of the members of group 0."""
    problem = Noisy(member_batch_size=member_batch_size)
    one = problem.init(key, zoo.Groups.of(5), jnp.zeros(3))
    two = problem.init(key, zoo.Groups(np.array([0, 0, 0, 0, 1])), jnp.zeros(3))
    fitness_one = problem.evaluate(key, POPULATION, one)[0].fitness
    fitness_two = problem.evaluate(key, POPULATION, two)[0].fitness
    np.testing.assert_allclose(fitness_one[:4], fitness_two[:4], rtol=1e-6)
    assert abs(fitness_one[4] - fitness_two[4]) > 1e-3


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 1, 1]], ids=["one group", "two groups"])
def test_member_batch_size_bounds_how_many_are_evaluated_at_once(groups, key):
    for member_batch_size, lengths in ((None, []), (2, [2])):
        problem = Quadratic(member_batch_size=member_batch_size)
        state = problem.init(key, zoo.Groups(np.array(groups)), jnp.zeros(2))
        jaxpr = jax.make_jaxpr(problem.evaluate)(key, jnp.zeros((4, 2)), state)
        assert [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"] == lengths


def test_wrong_population_size(key):
    problem = Quadratic()
    state = problem.init(key, zoo.Groups.of(4), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Quadratic.evaluate got 3 members, but its state was made for groups of 4"):
        problem.evaluate(key, jnp.zeros((3, 2)), state)


def test_traced_groups(key):
    with pytest.raises(TypeError, match=r"concrete groups.*strategy\.groups"):
        jax.eval_shape(lambda groups: Quadratic().init(key, zoo.Groups(groups), jnp.zeros(2)), jnp.zeros(4, int))


@pytest.mark.parametrize("groups", [np.zeros(4), np.zeros((2, 2), int), np.int32(0), [0.0, 1.0]])
def test_groups_that_are_not_a_row_of_integers(groups, key):
    with pytest.raises(TypeError, match=r"shape \[population_size\] and integer type"):
        Quadratic().init(key, zoo.Groups(groups), jnp.zeros(2))


def test_groups_are_groups(key):
    with pytest.raises(TypeError, match=r"expects Groups, such as `strategy\.groups`.*got ndarray"):
        Quadratic().init(key, np.zeros(4, int), jnp.zeros(2))


# Fitness


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 1, 2]], ids=["one group", "three groups"])
@pytest.mark.parametrize(
    "fn", [lambda x: x, lambda x: x[None, :1], lambda x: {"f": jnp.sum(x)}], ids=["vector", "matrix", "dict"]
)
def test_fitness_that_is_not_a_scalar(fn, groups, key):
    class Wrong(Quadratic):
        def fitness(self, key, solution):
            return fn(solution)

    problem = Wrong()
    state = problem.init(key, zoo.Groups(np.array(groups)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Wrong.fitness must return a scalar"):
        problem.evaluate(key, jnp.ones((3, 2)), state)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_member_batch_size_must_be_a_positive_whole_number(size):
    with pytest.raises((ValueError, TypeError), match=r"Quadratic.member_batch_size must be"):
        Quadratic(member_batch_size=size)


# Surrogate gradient


def test_surrogate_gradient_is_the_mean_over_the_groups(key):
    """The gradient uses the same data as `evaluate` with the same key."""
    problem = Noisy()
    state = problem.init(key, zoo.Groups(np.array([0, 0, 0, 1, 2])), jnp.zeros(3))
    x = jnp.array([1.0, -2.0, 0.5])
    gradient = problem.surrogate_gradient(key, state)(x)
    np.testing.assert_allclose(gradient, jnp.mean(noise(key, 3), axis=0) + x, rtol=1e-5, atol=1e-6)


def test_surrogate_gradient_has_the_solutions_structure(key):
    problem = zoo.from_function(lambda x: 3 * x["a"] + jnp.sum(x["b"] ** 2), {"a": 1.0, "b": jnp.ones(2)})
    state = problem.init(key, zoo.Groups.of(4), problem.initial_solution(key))
    gradient = problem.surrogate_gradient(key, state)({"a": 0.0, "b": jnp.array([1.0, -2.0])})
    np.testing.assert_array_equal(gradient["a"], 3.0)
    np.testing.assert_array_equal(gradient["b"], [2.0, -4.0])


def test_no_surrogate_gradient_where_autodiff_is_no_use(key):
    class Flat(Quadratic):
        differentiable = False

    class Own(Flat):
        def gradient(self, key, solution):
            return jnp.full_like(solution, 7.0)

    state = Quadratic().init(key, zoo.Groups.of(2), jnp.zeros(2))
    assert Quadratic().surrogate_gradient(key, state) is not None
    assert Flat().surrogate_gradient(key, state) is None
    np.testing.assert_array_equal(Own().surrogate_gradient(key, state)(jnp.ones(2)), [7.0, 7.0])


# Score and statistics


def test_score_is_the_fitness_by_default(key):
    problem = Noisy()
    state = problem.init(key, zoo.Groups.of(2), jnp.zeros(3))
    score = problem.evaluate_score(key, POPULATION[0], state)
    assert set(score) == {"fitness"}
    assert score["fitness"] == problem.fitness(key, POPULATION[0])


def test_missing_headline(key):
    class Lost(Quadratic):
        headline = "accuracy"

        def score(self, key, solution):
            return {"loss": 0.0, "error": 1.0}

    problem = Lost()
    state = problem.init(key, zoo.Groups.of(2), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Lost.score must return its headline metric 'accuracy'.*\['error', 'loss'\]"):
        problem.evaluate_score(key, jnp.zeros(2), state)


@pytest.mark.parametrize("groups", [[0, 0], [0, 1]], ids=["one group", "two groups"])
def test_the_states_statistics_are_used_everywhere(groups, key):
    problem = Shifted()  # its own shift is `None`, so nothing works without the statistics
    state = problem.init(key, zoo.Groups(np.array(groups)), jnp.zeros(2))
    np.testing.assert_array_equal(state.statistics, [1.0, 2.0])
    population = jnp.array([[1.0, 2.0], [0.0, 0.0]])

    evaluation, new_state = problem.evaluate(key, population, state)
    np.testing.assert_array_equal(evaluation.fitness, [0.0, 5.0])
    np.testing.assert_array_equal(new_state.statistics, state.statistics)
    assert problem.evaluate_score(key, population[1], state)["fitness"] == 5.0
    np.testing.assert_array_equal(problem.surrogate_gradient(key, state)(population[1]), [-2.0, -4.0])

    later = state._replace(statistics=jnp.array([0.0, 3.0]))
    np.testing.assert_array_equal(problem.evaluate(key, population, later)[0].fitness, [2.0, 9.0])
    assert problem.evaluate_score(key, population[1], later)["fitness"] == 9.0
