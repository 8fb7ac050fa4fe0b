"""Groups of an unrolled problem: members that continue from parents, and whole episodes.

Most tests unroll `Walker`. Its losses are whole numbers, so equality is exact.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.core.unrolled_examples import (
    LOSSES,
    Endless,
    Linear,
    Table,
    Walker,
    evaluate_often,
    members,
    noise_of_steps,
    solution,
    unroll_by_hand,
)
from tests.the_loop import signature
from zoo.core.grouping import group_keys


class Counting(Linear):
    """A problem whose statistics count the steps of all members and add to the loss."""

    count: Any = zoo.leaf(None)

    def reset(self, key):
        return {"x": super().reset(key), "uncounted": jnp.zeros(())}

    def step(self, key, solution, inner):
        x, loss, terminated = super().step(key, solution, inner["x"])
        return {"x": x, "uncounted": inner["uncounted"] + 1}, loss + 0.01 * self.count, terminated

    def init_statistics(self):
        return jnp.zeros(())

    def with_statistics(self, statistics):
        return self.replace(count=statistics)

    def pool_statistics(self, statistics, inner):
        uncounted = inner["uncounted"]
        return statistics + jnp.sum(uncounted), {**inner, "uncounted": jnp.zeros_like(uncounted)}


# Parents


def walk_by_hand(problem, state, population, parents):
    """Runs one window of `Walker` in plain Python. Returns fitness, x, terminated and steps."""
    num_windows = -(-problem.horizon // problem.window)
    fitness, end, terminated, steps = [], [], [], 0
    for member, parent in enumerate(parents):
        x, time, ended = (np.asarray(a)[parent].item() for a in (state.inner, state.time, state.terminated))
        loss = 0.0
        for _ in range(problem.window):
            if ended or time >= problem.horizon:
                break
            x += float(population["scale"][member])
            time, loss, ended, steps = time + 1, loss + x, x >= population["life"][member], steps + 1
        fitness.append(num_windows * loss)
        end.append(x)
        terminated.append(bool(ended))
    return fitness, end, terminated, steps


def walks(population, parents, num, problem=None):
    """Returns fitness, x, terminated and steps of some windows of one group, each as a list."""
    problem = problem or Walker()
    groups = zoo.Groups(np.zeros(len(parents), int), parents=np.array(parents))
    state = problem.init(jax.random.key(0), groups, solution())
    evaluations, states = evaluate_often(problem, state, population, num)
    done = [bool(e.done.all()) for e in evaluations]
    assert done == [i % 3 == 2 for i in range(num)]
    np.testing.assert_array_equal([s.time for s in states], [[2 * (i % 3)] * len(parents) for i in range(num + 1)])
    return (
        [e.fitness.tolist() for e in evaluations],
        [s.inner.tolist() for s in states[1:]],
        [s.terminated.tolist() for s in states[1:]],
        [int(e.steps) for e in evaluations],
    )


@pytest.mark.parametrize("problem_class", [Walker, Endless])
def test_members_go_on_from_their_parent(problem_class):
    fitness, x, terminated, steps = walks(members([1.0, 3.0, 2.0]), [2, 2, 2], 4, problem_class())
    first = [3 * (1 + 2), 3 * (3 + 6), 3 * (2 + 4)]
    assert fitness[0] == first
    assert x[0] == [2, 6, 4]
    assert fitness[1] == [3 * (5 + 6), 3 * (7 + 10), 3 * (6 + 8)]
    assert x[1] == [6, 10, 8]
    assert fitness[2] == [3 * (9 + 10), 3 * (11 + 14), 3 * (10 + 12)]
    assert x[2] == [0, 0, 0]
    assert fitness[3] == first
    assert not np.any(terminated)
    assert steps == [6] * 4


def test_the_members_of_a_terminated_parent_pause_until_its_episode_ends():
    fitness, x, terminated, steps = walks(members([1.0, 3.0, 2.0], [100.0, 100.0, 4.0]), [2, 2, 2], 4)
    assert fitness == [[9, 27, 18], [0, 0, 0], [0, 0, 0], [9, 27, 18]]
    assert x == [[2, 6, 4], [4, 4, 4], [0, 0, 0], [2, 6, 4]]
    assert terminated == [[False, False, True], [True] * 3, [False] * 3, [False, False, True]]
    assert steps == [6, 0, 0, 6]


def test_a_terminated_member_goes_on_with_its_parent():
    """The second member terminates in the first step of each window, and continues from its parent."""
    fitness, x, terminated, steps = walks(members([1.0, 3.0, 2.0], [100.0, 3.0, 100.0]), [2, 2, 2], 3)
    assert fitness == [[9, 3 * 3, 18], [33, 3 * 7, 42], [57, 3 * 11, 66]]
    assert x == [[2, 3, 4], [6, 7, 8], [0, 0, 0]]
    assert terminated == [[False, True, False], [False, True, False], [False] * 3]
    assert steps == [5, 5, 5]


def test_members_may_have_different_parents():
    """The first two members exchange their states, and the third continues from the first."""
    fitness, x, _, _ = walks(members([1.0, 10.0, 20.0]), [1, 0, 0], 2)
    assert x == [[2, 20, 40], [22, 22, 42]]
    assert fitness[1] == [3 * (21 + 22), 3 * (12 + 22), 3 * (22 + 42)]


def test_members_start_at_the_time_of_their_parent(key):
    """If the parent is one step before the horizon, its members have one step left."""
    problem = Walker()
    state = problem.init(key, zoo.Groups(np.zeros(3, int), parents=np.array([2, 2, 2])), solution())
    state = state._replace(time=jnp.array([0, 2, 5], jnp.int32), inner=jnp.array([1.0, 2.0, 10.0]))
    evaluation, _ = problem.evaluate(key, members([1.0, 3.0, 2.0]), state)
    np.testing.assert_array_equal(evaluation.fitness, [3 * 11, 3 * 13, 3 * 12])
    assert evaluation.steps == 3


@pytest.mark.parametrize("member_batch_size", [None, 4])
def test_parents_in_several_groups(member_batch_size, key):
    """Results equal plain Python for several groups with different phases, some of them terminating.

    One parent comes after a member, one comes first, and in the third group each member is its own parent.
    """
    problem = Walker(horizon=7, window=3, is_random=True, member_batch_size=member_batch_size)
    groups = np.array([5, 2, 5, 2, 9, 9, 5])
    parents = np.array([2, 1, 2, 1, 4, 5, 2])
    state = problem.init(key, zoo.Groups(groups, parents=parents), solution())
    np.testing.assert_array_equal(state.parents, parents)
    np.testing.assert_array_equal(np.sort(state.members), [1, 2, 4])
    population = members([1.0, 2.0, 3.0, 1.0, 4.0, 5.0, 0.0], [12.0, 11.0, 99.0, 99.0, 14.0, 99.0, 99.0])
    assert state.pending_steps > 0
    evaluations, states = evaluate_often(problem, state, population, 7)
    ended = []
    for i, evaluation in enumerate(evaluations):
        before, after = states[i], states[i + 1]
        fitness, x, terminated, steps = walk_by_hand(problem, before, population, parents)
        np.testing.assert_array_equal(evaluation.fitness, fitness)
        assert evaluation.steps == steps + before.pending_steps
        done = np.asarray(evaluation.done)
        np.testing.assert_array_equal(done, np.asarray(before.time) == 6)
        np.testing.assert_array_equal(after.time, np.where(done, 0, before.time + 3))
        np.testing.assert_array_equal(after.inner[~done], np.array(x)[~done])
        np.testing.assert_array_equal(after.terminated, np.array(terminated) & ~done)
        for group in np.unique(groups[done]):
            assert len(np.unique(after.inner[groups == group])) == 1
        ended.append(after.terminated)
    assert np.any(ended)
    assert not np.all(ended)


def test_oneself_as_parent_is_no_parent(key):
    problem = Walker(is_random=True)
    ids = np.array([0, 1, 1, 0])
    population = members([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 15.0, 99.0])
    results = []
    for groups in (zoo.Groups(ids), zoo.Groups(ids, parents=np.arange(4))):
        state = problem.init(key, groups, solution())
        evaluations, states = evaluate_often(problem, state, population, 3)
        results.append(jax.tree.leaves((evaluations, [s._replace(parents=None) for s in states])))
    for one, *others in zip(*results, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_statistics_count_what_the_members_of_a_parent_did_once(key):
    problem = Counting(limit=1.5)
    groups = zoo.Groups(np.array([0, 1, 0, 1, 0, 1]), parents=np.array([4, 5, 4, 5, 4, 5]))
    x = problem.initial_solution(key)
    state = problem.init(key, groups, x)
    assert int(state.statistics) == int(state.pending_steps)
    population = jnp.array([[0.1, 0.2], [0.5, 0.0], [0.05, -0.3], [0.9, 0.0], [0.3, 0.3], [0.2, 0.1]])
    evaluations, states = evaluate_often(problem, state, population, 6)
    steps = [int(e.steps) for e in evaluations]
    assert min(steps[1:]) < 6 * 3
    np.testing.assert_array_equal([s.statistics for s in states[1:]], np.cumsum(steps))


def test_surrogate_gradient_is_taken_from_the_parents_state(key):
    """The gradient is the one computed by hand. One group is paused, because its parent is."""
    problem = Linear(limit=1.2)
    ids, parents = np.array([0, 1, 2, 0, 1, 2, 0]), np.array([3, 4, 5, 3, 4, 5, 3])
    x = problem.initial_solution(key)
    state = problem.init(key, zoo.Groups(ids, parents=parents), x)
    state = state._replace(
        inner=jax.random.uniform(key, (7, 2), minval=-1.0),
        terminated=jnp.array([True, False, False, False, False, True, True]),
    )
    k = jax.random.key(5)
    noise = noise_of_steps(group_keys(jax.random.fold_in(k, 0), 3), length=3)

    def objective(x, state):
        starts = [(state.inner[m], int(time[m]), bool(terminated[m])) for m in (3, 4, 5)]
        return 3 / 7 * sum(unroll_by_hand(problem, noise[group], x, *start) for group, start in enumerate(starts)) / 3

    time, terminated = np.asarray(state.time), np.asarray(state.terminated)
    value, expected = jax.jit(jax.value_and_grad(objective))(x, state)
    gradient = jax.jit(lambda state, x: problem.surrogate_gradient(k, state)(x))(state, x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    assert np.all(np.abs(expected) > 1e-3)
    # It is also the gradient of what `evaluate` returns with the same key, for every member of a group.
    fitness = np.asarray(jax.jit(problem.evaluate)(k, jnp.broadcast_to(x, (7, 2)), state)[0].fitness)
    np.testing.assert_array_equal(fitness, fitness[parents])
    np.testing.assert_allclose(fitness[[3, 4, 5]].mean(), value, rtol=1e-5)


@pytest.mark.parametrize(
    "parents",
    [[0, 0, 2], [0, 0, 2, 2, 2], [[0, 0, 2, 2]], 0, [0, 4, 2, 2], [0, 0, 2, -1], [0, 2, 2, 2], [3, 2, 1, 0]],
    ids=["too few", "too many", "a matrix", "a number", "out of range", "negative", "of another group", "reversed"],
)
def test_parents_that_are_not_one_of_the_group_each(parents, key):
    groups = zoo.Groups(np.array([0, 0, 1, 1]), parents=np.array(parents))
    for problem in (Walker(), zoo.from_function(lambda x: x, 0.0)):
        x = problem.initial_solution(key)
        with pytest.raises(ValueError, match=r"Groups\.parents must name, for each of the 4 members, one of its own"):
            problem.init(key, groups, x)


# Whole episodes


@pytest.mark.parametrize(("horizon", "window", "objective"), [(7, 3, "mean"), (6, 1, "sum"), (5, None, "mean")])
def test_a_whole_episode_is_evaluated_whatever_the_window(horizon, window, objective, key):
    """In every generation, the fitness of each member is the fitness of its full episode."""
    problem = Table(horizon=horizon, window=window, objective=objective)
    state = problem.init(key, zoo.Groups(np.array([0, 1, 0, 2]), whole_episodes=True), solution())
    assert state.window.length == horizon
    assert state.pending_steps == 0
    scale, life = [1.0, 2.0, 3.0, 4.0], [100.0, 3.0, 1.0, 100.0]
    population = members(scale, life)
    one_by_one = [problem.fitness(key, solution(*member)) for member in zip(scale, life, strict=True)]
    divisor = horizon if objective == "mean" else 1
    by_hand = [s * LOSSES[: int(min(n, horizon))].sum() / divisor for s, n in zip(scale, life, strict=True)]
    evaluations, states = evaluate_often(problem, state, population, 3)
    for evaluation, before, after in zip(evaluations, states, states[1:], strict=False):
        np.testing.assert_allclose(evaluation.fitness, one_by_one, rtol=1e-6)
        np.testing.assert_allclose(evaluation.fitness, by_hand, rtol=1e-6)
        assert evaluation.done.all()
        assert evaluation.steps == horizon + 3 + 1 + horizon
        np.testing.assert_array_equal(after.time, 0)
        np.testing.assert_array_equal(after.inner["t"], 0)
        assert not after.terminated.any()
        assert after.window == state.window
        assert signature(after) == signature(state)
        assert not np.any(after.inner["start"] == before.inner["start"])
        assert after.inner["start"][0] == after.inner["start"][2]


def test_whole_episodes_are_those_of_the_problem_without_a_window(key):
    """Whole episodes equal a problem without a window.

    Parents change nothing, because every evaluation ends in a reset.
    """
    ids = np.array([0, 1, 1, 0])
    whole, windowed = Walker(window=None, is_random=True), Walker(is_random=True)
    population = members([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 15.0, 99.0])
    results = []
    for problem, groups in (
        (whole, zoo.Groups(ids)),
        (windowed, zoo.Groups(ids, whole_episodes=True)),
        (windowed, zoo.Groups(ids, parents=np.array([3, 2, 2, 3]), whole_episodes=True)),
    ):
        evaluations, states = evaluate_often(problem, problem.init(key, groups, solution()), population, 2)
        results.append(jax.tree.leaves((evaluations, [s._replace(parents=None, members=None) for s in states])))
    for one, *others in zip(*results, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_the_window_is_that_of_the_state(key):
    """One problem can serve strategies that ask for whole episodes and strategies that do not."""
    problem = Table(window=2)
    for groups, length in ((zoo.Groups.of(2), 2), (zoo.Groups.of(2)._replace(whole_episodes=True), 6)):
        state = problem.init(key, groups, solution())
        assert state.window.length == length
        assert problem.evaluate(key, members([1.0, 1.0]), state)[0].steps == 2 * length


def test_surrogate_gradient_of_a_whole_episode(key):
    """The gradient equals the one computed by hand, and belongs to the fitness of `evaluate` with the same key."""
    problem = Linear(limit=1.2)
    ids = np.array([0, 1, 2, 0])
    x = problem.initial_solution(key)
    state = problem.init(key, zoo.Groups(ids, whole_episodes=True), x)
    k = jax.random.key(5)
    noise = noise_of_steps(group_keys(jax.random.fold_in(k, 0), 3), length=7)

    @jax.jit
    @jax.value_and_grad
    def objective(x, starts):
        return sum(unroll_by_hand(problem, noise[i], x, starts[i], 0, False) for i in range(3)) / 7 / 3

    value, expected = objective(x, state.inner[:3])
    gradient = jax.jit(lambda state, x: problem.surrogate_gradient(k, state)(x))(state, x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    fitness = jax.jit(problem.evaluate)(k, jnp.broadcast_to(x, (4, 2)), state)[0].fitness
    np.testing.assert_allclose(np.mean(fitness[:3]), value, rtol=1e-5)


def test_whole_episodes_need_a_horizon(key):
    problem = Table(horizon=None, window=2)
    groups = zoo.Groups(np.zeros(2, int), whole_episodes=True)
    with pytest.raises(ValueError, match=r"whole episodes, and Table has no horizon.*online strategy.*a horizon"):
        problem.init(key, groups, solution())
    with pytest.raises(ValueError, match=r"whole episodes, and Table has no horizon"):
        zoo.run("full_es", problem, num_generations=1)


def test_a_run_of_whole_episodes_resumes_bit_identically(tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(progress):
        if progress.generation >= 4:
            raise InterruptionError

    strategy = zoo.make_strategy("full_es", population_size=4)
    problem = Counting(limit=1.5, num_score_episodes=2)
    budget = {"num_generations": 8, "num_scores": 4}
    expected = zoo.run(strategy, problem, 3, **budget)
    with pytest.raises(InterruptionError):
        zoo.run(strategy, problem, 3, checkpoint=tmp_path, callback=interrupt, **budget)
    seen = []
    resumed = zoo.run(strategy, problem, 3, checkpoint=tmp_path, callback=seen.append, **budget)
    assert [p.generation for p in seen] == [4, 6, 8]
    results = [(r.state, r.problem_state, r.mean, r.best_solution, r.history, r.metrics) for r in (resumed, expected)]
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.problem_state.window.length == 7
    assert 0 < resumed.num_steps < 8 * 4 * 7
    assert resumed.problem_state.statistics == resumed.num_steps


# Both


@pytest.mark.parametrize("whole_episodes", [False, True])
def test_a_problem_without_inner_episodes_does_not_mind_parents_or_whole_episodes(whole_episodes, key):
    problem = zoo.from_function(
        lambda key, x, scale: scale * jnp.sum(x * jax.random.normal(key, (2,))),
        jnp.zeros(2),
        data=(jnp.array(3.0),),
        takes_key=True,
    )
    ids = np.array([0, 1, 0, 1])
    groups = zoo.Groups(ids, parents=np.array([2, 1, 2, 1]), whole_episodes=whole_episodes)
    population = jnp.array([[1.0, 2.0], [1.0, 2.0], [3.0, 0.5], [1.0, -1.0]])
    plain, asked = (problem.init(key, g, jnp.zeros(2)) for g in (zoo.Groups(ids), groups))
    assert signature(plain) == signature(asked)
    evaluations = [problem.evaluate(key, population, state)[0] for state in (plain, asked)]
    for a, b in zip(*map(jax.tree.leaves, evaluations), strict=True):
        np.testing.assert_array_equal(a, b)
    gradients = [problem.surrogate_gradient(key, state)(population[0]) for state in (plain, asked)]
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize(
    "groups",
    [
        zoo.Groups(np.array([0, 0, 1, 1]), whole_episodes=True),
        zoo.Groups(np.array([0, 0, 1, 1]), parents=np.array([1, 1, 2, 2])),
    ],
    ids=["whole episodes", "parents"],
)
def test_groups_under_jit_scan_and_vmap(groups, key):
    problem = Walker(is_random=True)
    population = members([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 15.0, 99.0])

    def train(problem, key):
        def body(state, k):
            evaluation, new_state = problem.evaluate(k, population, state)
            assert signature(new_state) == signature(state)
            return new_state, evaluation

        key_init, *keys = jax.random.split(key, 4)
        return jax.lax.scan(body, problem.init(key_init, groups, solution()), jnp.stack(keys))

    keys = jax.random.split(key, 2)
    batched = jax.jit(jax.vmap(train, in_axes=(None, 0)))(problem, keys)
    evaluate = jax.jit(problem.evaluate)
    for i, run_key in enumerate(keys):
        key_init, *generation_keys = jax.random.split(run_key, 4)
        state = problem.init(key_init, groups, solution())
        evaluations = []
        for k in generation_keys:
            evaluation, state = evaluate(k, population, state)
            evaluations.append(evaluation)
        expected = (state, jax.tree.map(lambda *e: jnp.stack(e), *evaluations))
        assert jax.tree.structure(expected) == jax.tree.structure(batched)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(batched), strict=True):
            np.testing.assert_array_equal(a, b[i])
