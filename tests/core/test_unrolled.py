"""`UnrolledProblem`: windows, phases, pauses, resets, step counts, gradients.

Most tests unroll `Table`, whose losses are whole numbers, so that equality is exact where it should be.
"""

import functools
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
    evaluate_often,
    members,
    noise_of_steps,
    solution,
    unroll_by_hand,
)
from tests.the_loop import signature
from zoo.core.grouping import group_keys


class Costly(Table):
    """Step t spends t + 1 problem steps."""

    def step_cost(self, inner):
        return inner["t"] + 1


def phases_of_groups(state):
    return np.asarray(state.time)[state.members]


# Fitness


@pytest.mark.parametrize(
    ("horizon", "window", "objective"),
    [(6, 2, "mean"), (7, 3, "mean"), (7, 3, "sum"), (3, 1, "sum"), (5, None, "sum")],
)
def test_mean_fitness_over_the_phases_is_the_objective_of_the_episode(horizon, window, objective, key):
    """With one group per phase, the mean is exact in every generation, for any window."""
    problem = Table(horizon=horizon, window=window, objective=objective)
    num_windows = -(-horizon // (window or horizon))
    total = LOSSES[:horizon].sum()
    expected = 2 * (total / horizon if objective == "mean" else total)
    state = problem.init(key, zoo.Groups(np.arange(num_windows)), solution(1.0))
    assert sorted(phases_of_groups(state)) == [(window or horizon) * i for i in range(num_windows)]
    evaluations, _ = evaluate_often(problem, state, members([2.0] * num_windows), num_windows + 1)
    for evaluation in evaluations:
        np.testing.assert_allclose(np.mean(evaluation.fitness), expected, rtol=1e-6)
    np.testing.assert_allclose(problem.fitness(key, solution(2.0)), expected, rtol=1e-6)


@pytest.mark.parametrize(("objective", "scale"), [("mean", 3 / 6), ("sum", 3.0)])
def test_fitness_of_each_window(objective, scale, key):
    """The fitness of a window is three times its losses (three windows), divided by six steps for the mean."""
    problem = Table(window=2, objective=objective)
    state = problem.init(key, zoo.Groups(np.arange(3)), solution())
    evaluations, _ = evaluate_often(problem, state, members([1.0, 1.0, 1.0]), 1)
    by_phase = np.argsort(state.time)
    np.testing.assert_array_equal(evaluations[0].fitness[by_phase], scale * np.array([3.0 + 1.0, 4.0 + 1.0, 5.0 + 9.0]))


def test_without_a_horizon_the_objective_is_that_of_a_window(key):
    for objective, scale in (("mean", 0.25), ("sum", 1.0)):
        problem = Table(horizon=None, window=4, objective=objective)
        state = problem.init(key, zoo.Groups.of(2), solution())
        np.testing.assert_array_equal(state.time, [0, 0])
        evaluations, states = evaluate_often(problem, state, members([1.0, 2.0]), 5)
        for i, evaluation in enumerate(evaluations):
            window = LOSSES[(4 * i) % 8 :][:4].sum()
            np.testing.assert_array_equal(evaluation.fitness, [scale * window, scale * 2 * window])
            assert not evaluation.done.any()
            assert evaluation.steps == 8
            np.testing.assert_array_equal(states[i + 1].time, [4 * (i + 1)] * 2)
            np.testing.assert_array_equal(states[i + 1].inner["start"], state.inner["start"])
        assert problem.fitness(key, solution()) == scale * LOSSES[:4].sum()


def test_without_a_horizon_a_terminated_member_pauses_for_good(key):
    problem = Table(horizon=None, window=4)
    state = problem.init(key, zoo.Groups.of(2), solution())
    evaluations, states = evaluate_often(problem, state, members([1.0, 1.0], [5.0, 100.0]), 4)
    assert [int(e.steps) for e in evaluations] == [8, 5, 4, 4]
    np.testing.assert_array_equal(states[-1].terminated, [True, False])
    np.testing.assert_array_equal(states[-1].inner["t"], [5, 16])
    assert evaluations[2].fitness[0] == 0


# Phases


@pytest.mark.parametrize("num_groups", [2, 7])
def test_phases_are_stratified(num_groups, key):
    """Phases occur equally often, up to one, and the members of a group share a phase."""
    problem = Table(window=2)
    state = problem.init(key, zoo.Groups(np.repeat(np.arange(num_groups), 2)), solution())
    np.testing.assert_array_equal(state.time[0::2], state.time[1::2])
    counts = np.bincount(phases_of_groups(state), minlength=5)
    assert counts[[1, 3]].sum() == 0
    assert counts[[0, 2, 4]].max() - counts[[0, 2, 4]].min() <= 1


def test_phases_are_spread_over_the_episode_where_there_are_more_windows_than_groups():
    """Four groups on 40 windows are 10 apart, and each is in every phase equally often (chi-squared test)."""
    problem = Endless(horizon=40, window=1)

    def phases(key):
        return problem.init(key, zoo.Groups(np.arange(4)), solution()).time

    drawn = np.asarray(jax.jit(jax.vmap(phases))(jax.random.split(jax.random.key(1), 4000)))
    assert np.array_equal(np.diff(np.sort(drawn, axis=1), axis=1), np.full((4000, 3), 10))
    counts = np.bincount(drawn[:, 0], minlength=40)
    statistic = np.sum((counts - 100) ** 2 / 100)
    assert abs(statistic - 39) < 5 * np.sqrt(2 * 39)


def test_a_single_group_starts_at_the_beginning(key):
    state = Table(window=2).init(key, zoo.Groups.of(3), solution())
    assert not state.time.any()
    assert state.pending_steps == 0


def test_phases_are_in_random_order():
    """Over the keys, every group is in every phase equally often (a binomial count each, 5 sigma)."""
    problem = Table(window=2)
    num_keys = 600
    init = jax.vmap(lambda key: problem.init(key, zoo.Groups(np.arange(3)), solution()).time)
    times = np.asarray(init(jax.random.split(jax.random.key(0), num_keys)))
    counts = np.array([[np.sum(times[:, group] == phase) for phase in (0, 2, 4)] for group in range(3)])
    assert np.all(np.abs(counts - num_keys / 3) < 5 * np.sqrt(num_keys * (1 / 3) * (2 / 3)))
    np.testing.assert_array_equal(np.sort(times, axis=1), [[0, 2, 4]] * num_keys)


def test_a_group_at_a_phase_was_unrolled_to_it_with_the_initial_solution(key):
    problem = Table(window=2)
    state = problem.init(key, zoo.Groups(np.array([0, 0, 1, 1, 2, 2])), solution(3.0))
    for t, inner_t, total in zip(state.time, state.inner["t"], state.inner["total"], strict=True):
        assert inner_t == t
        assert total == 3 * LOSSES[:t].sum()
    assert not state.terminated.any()


def test_one_window_per_episode_needs_no_phases(key):
    state = Table().init(key, zoo.Groups(np.array([0, 0, 1, 2])), solution())
    np.testing.assert_array_equal(state.time, 0)
    np.testing.assert_array_equal(state.inner["t"], 0)
    assert state.pending_steps == 0


def test_init_is_on_schedule_if_the_warm_up_terminates(key):
    """A group whose warm-up terminated waits for its episode's end, and only the steps it took are counted."""
    problem = Table(window=2)
    state = problem.init(key, zoo.Groups(np.arange(3)), solution(1.0, life=3.0))
    by_phase = np.argsort(state.time)
    np.testing.assert_array_equal(state.time[by_phase], [0, 2, 4])
    np.testing.assert_array_equal(state.inner["t"][by_phase], [0, 2, 3])
    np.testing.assert_array_equal(state.terminated[by_phase], [False, False, True])
    assert state.pending_steps == 2 + 3
    evaluations, states = evaluate_often(problem, state, members([1.0] * 3), 2)
    np.testing.assert_array_equal(evaluations[0].done[by_phase], [False, False, True])
    assert evaluations[0].fitness[by_phase[2]] == 0
    assert [int(e.steps) for e in evaluations] == [2 + 2 + 5, 6]
    assert not states[1].terminated.any()


# Done, resets, pauses


def test_done_and_reset_come_at_the_horizon(key):
    horizon, window = 7, 3
    problem = Table(horizon=horizon, window=window)
    state = problem.init(key, zoo.Groups(np.arange(3)), solution())
    evaluations, states = evaluate_often(problem, state, members([1.0] * 3), 7)
    phase = phases_of_groups(state) // window
    for i, evaluation in enumerate(evaluations):
        before, after = states[i], states[i + 1]
        done = (phase + i) % 3 == 2
        np.testing.assert_array_equal(evaluation.done, done)
        np.testing.assert_array_equal(after.time, np.where(done, 0, before.time + window))
        np.testing.assert_array_equal(after.inner["t"], after.time)  # back at the start
        np.testing.assert_array_equal(after.inner["total"] == 0, done)
        np.testing.assert_array_equal(after.inner["start"] != before.inner["start"], done)


def test_the_last_window_is_cut_at_the_horizon(key):
    problem = Table(horizon=7, window=3, objective="sum")
    state = problem.init(key, zoo.Groups.of(2), solution())
    evaluations, _ = evaluate_often(problem, state, members([1.0, 1.0]), 3)
    assert [int(e.steps) for e in evaluations] == [6, 6, 2]
    np.testing.assert_array_equal([e.fitness[0] for e in evaluations], [3 * 8.0, 3 * 15.0, 3 * 2.0])


def test_a_terminated_member_pauses_until_its_partners_end_too(key):
    problem = Table(window=2, objective="sum")
    state = problem.init(key, zoo.Groups.of(2), solution())
    population = members([1.0, 1.0], [3.0, 100.0])
    evaluations, states = evaluate_often(problem, state, population, 4)
    np.testing.assert_array_equal([e.steps for e in evaluations], [4, 3, 2, 4])
    np.testing.assert_array_equal([e.done for e in evaluations], [[False] * 2, [False] * 2, [True] * 2, [False] * 2])
    np.testing.assert_array_equal(  # fitness = 3 * losses, for three windows
        [e.fitness for e in evaluations], [[12.0, 12.0], [12.0, 15.0], [0.0, 42.0], [12.0, 12.0]]
    )
    np.testing.assert_array_equal([s.terminated[0] for s in states], [False, False, True, False, False])
    np.testing.assert_array_equal([s.time[0] for s in states], [0, 2, 4, 0, 2])
    np.testing.assert_array_equal([s.inner["t"][0] for s in states], [0, 2, 3, 0, 2])
    assert not any(s.terminated[1] for s in states)


def test_group_partners_share_starts_and_resets_and_groups_do_not(key):
    problem = Table(window=2)
    groups = np.array([0, 1, 0, 1, 2])
    state = problem.init(key, zoo.Groups(groups), solution())
    keys = jax.random.split(jax.random.key(3), 4)
    evaluate = jax.jit(problem.evaluate)
    seen = []
    for k in keys:
        start = np.asarray(state.inner["start"])
        np.testing.assert_array_equal(start, start[np.asarray(state.members)][groups])
        seen.append(start[np.asarray(state.members)])
        evaluation, state = evaluate(k, members(np.arange(5.0), [1.0, 100.0, 100.0, 4.0, 100.0]), state)
        done = np.asarray(evaluation.done)
        np.testing.assert_array_equal(done, done[np.asarray(state.members)][groups])
        # The fresh start is what `reset` returns for the group's key.
        fresh = [problem.reset(g)["start"] for g in group_keys(jax.random.fold_in(k, 1), 3)]
        np.testing.assert_array_equal(state.inner["start"][done], np.asarray(fresh)[groups][done])
    for i in range(4):
        assert len(set(seen[i])) == 3  # three groups, three starts
    assert len({float(s) for row in seen for s in row}) == 3 + 3  # plus three resets in three generations


def test_all_groups_start_afresh_where_a_window_is_an_episode(key):
    problem = Table()
    groups = np.array([0, 0, 1])
    state = problem.init(key, zoo.Groups(groups), solution())
    evaluations, states = evaluate_often(problem, state, members([1.0, 2.0, 3.0], [2.0, 100.0, 100.0]), 3)
    starts = np.array([s.inner["start"] for s in states])
    np.testing.assert_array_equal(starts[:, 0], starts[:, 1])
    assert len(np.unique(starts)) == 8
    for evaluation, after in zip(evaluations, states[1:], strict=True):
        assert evaluation.done.all()
        assert evaluation.steps == 2 + 6 + 6
        assert not after.terminated.any()
        np.testing.assert_array_equal(after.time, 0)
        np.testing.assert_array_equal(after.inner["t"], 0)


def test_group_partners_share_the_keys_of_their_steps(key):
    problem = Table(horizon=4, window=4, is_noisy=True, objective="sum")
    groups = np.array([1, 0, 1, 2])
    state = problem.init(key, zoo.Groups(groups), solution())
    evaluation, _ = jax.jit(problem.evaluate)(key, members([0.0] * 4), state)
    assert evaluation.fitness[0] == evaluation.fitness[2]
    assert len(np.unique(evaluation.fitness)) == 3
    # Step i of a group uses fold_in(group's key, i).
    keys = group_keys(jax.random.fold_in(key, 0), 3)
    noise = jax.vmap(lambda k: sum(jax.random.uniform(jax.random.fold_in(k, i)) for i in range(4)))(keys)
    np.testing.assert_allclose(evaluation.fitness, noise[groups], rtol=1e-5)


# Steps


def test_steps_count_active_steps_and_the_warm_up_once(key):
    problem = Costly(window=2)
    state = problem.init(key, zoo.Groups(np.array([0, 0, 1, 1, 2, 2])), solution())
    cost = np.arange(1, 7)
    warm_up = cost[:2].sum() + cost[:4].sum()  # counted per group, not per member
    assert state.pending_steps == warm_up
    life = np.array([100.0, 1.0, 100.0, 3.0, 100.0, 100.0])
    evaluations, states = evaluate_often(problem, state, members([1.0] * 6, life), 4)
    for i, evaluation in enumerate(evaluations):
        spent = 0
        for member in range(6):
            t = int(states[i].inner["t"][member])
            if not states[i].terminated[member]:
                spent += cost[t : min(t + 2, max(t + 1, int(life[member])))].sum()
        assert evaluation.steps == spent + (warm_up if i == 0 else 0)
        assert states[i + 1].pending_steps == 0


# Two ways to unroll


@pytest.mark.parametrize(
    ("horizon", "groups", "member_batch_size"),
    [(7, [0, 1, 1, 2, 0], 2), (None, [0, 0, 0, 0, 0], 3)],
)
def test_early_exit_and_member_batches_change_nothing(horizon, groups, member_batch_size, key):
    make = functools.partial(Linear, horizon=horizon, limit=1.5)
    plain, other = make(), make(is_differentiable=False, member_batch_size=member_batch_size)
    population = jnp.array([[0.1, 0.2], [0.4, 0.0], [0.05, -0.3], [0.9, 0.0], [0.3, 0.3]])
    x = plain.initial_solution(key)
    states = [p.init(key, zoo.Groups(np.array(groups)), x) for p in (plain, other)]
    terminated = []
    evaluates = [jax.jit(plain.evaluate), jax.jit(other.evaluate)]
    for k in jax.random.split(key, 4):
        results = [e(k, population, s) for e, s in zip(evaluates, states, strict=True)]
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        states = [state for _, state in results]
        terminated.append(np.asarray(states[0].terminated))
    assert np.any(terminated)
    assert not np.all(terminated)


def test_member_batch_size_bounds_how_many_are_unrolled_at_once(key):
    for member_batch_size, lengths in ((None, []), (2, [2])):
        problem = Table(is_differentiable=False, member_batch_size=member_batch_size)  # its own loop is not a scan
        state = problem.init(key, zoo.Groups.of(4), solution())
        jaxpr = jax.make_jaxpr(problem.evaluate)(key, members([1.0] * 4), state)
        assert [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"] == lengths


def test_early_exit_stops_with_the_last_active_step():
    steps = []

    class Counted(Table):
        def step(self, key, solution, inner):
            jax.debug.callback(lambda t: steps.append(int(t)), inner["t"])
            return super().step(key, solution, inner)

    for is_differentiable, expected in ((False, 2), (True, 50)):
        problem = Counted(horizon=50, is_differentiable=is_differentiable)
        end = problem.rollout(jax.random.key(0), solution(1.0, life=2.0))
        jax.effects_barrier()
        assert (end.steps, end.time, end.loss) == (2, 2, 4.0)
        assert end.terminated
        assert len(steps) == expected
        steps.clear()


# Gradients


def test_surrogate_gradient_is_that_of_an_unroll_by_hand():
    """Each group starts from its own inner state and phase with its own keys, and the gradient averages the groups.

    One group is paused.
    """
    problem = Linear(limit=1.2)
    groups = np.array([0, 1, 2, 3, 0, 1])
    key = jax.random.key(1)  # with this key no other group has terminated yet
    x = problem.initial_solution(key)
    state = problem.init(key, zoo.Groups(groups), x)
    state = jax.device_get(state._replace(terminated=state.terminated | (state.groups == 2)))
    assert set(phases_of_groups(state)) == {0, 3, 6}
    assert not state.terminated[[0, 1, 3]].any()
    k = jax.random.key(5)
    noise = noise_of_steps(group_keys(jax.random.fold_in(k, 0), 4), length=3)

    def objective(x):
        total = 0.0
        for group, member in enumerate(state.members):
            start = (state.inner[member], state.time[member], state.terminated[member])
            total += unroll_by_hand(problem, noise[group], x, *start)
        return 3 / 7 * total / 4

    value, expected = jax.jit(jax.value_and_grad(objective))(x)
    gradient = jax.jit(lambda state, x: problem.surrogate_gradient(k, state)(x))(state, x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    # It is also the gradient of what `evaluate` returns with the same key.
    fitness = problem.evaluate(k, jnp.broadcast_to(x, (6, 2)), state)[0].fitness
    np.testing.assert_allclose(np.mean(fitness[state.members]), value, rtol=1e-5)


def test_no_surrogate_gradient_where_autodiff_is_no_use(key):
    problem = Table(is_differentiable=False)
    assert problem.surrogate_gradient(key, problem.init(key, zoo.Groups.of(2), solution())) is None


def test_a_gradient_of_the_authors_own_is_the_surrogate(key):
    class Own(Table):
        differentiable = False

        def gradient(self, key, solution):
            return jax.tree.map(lambda x: jnp.full_like(x, 7.0), solution)

    problem = Own()
    solution = problem.initial_solution(key)
    surrogate = problem.surrogate_gradient(key, problem.init(key, zoo.Groups.of(2), solution))
    assert surrogate is not None
    assert all(np.all(np.asarray(leaf) == 7) for leaf in jax.tree.leaves(surrogate(solution)))


# Score


def test_score_is_the_mean_over_full_episodes(key):
    problem = Linear(limit=1.0, num_score_episodes=3)
    x = jnp.array([0.1, 0.3])
    state = problem.init(key, zoo.Groups.of(2), x)

    keys = jax.vmap(jax.random.split)(jax.random.split(key, 3))
    starts, noise = jax.vmap(problem.reset)(keys[:, 0]), noise_of_steps(keys[:, 1], length=7)

    @jax.jit
    def objective(x):
        return sum(unroll_by_hand(problem, noise[i], x, starts[i], 0, False) for i in range(3)) / 7 / 3

    score = problem.evaluate_score(key, x, state)
    assert set(score) == {"objective"}
    np.testing.assert_allclose(score["objective"], objective(x), rtol=1e-5)


# Statistics


def test_statistics_are_pooled_before_the_reset_and_used_after_it(key):
    """The statistics sum the steps taken, and the loss is the sum pooled so far."""

    class Pooling(Table):
        pooled: Any = zoo.leaf(None)

        def reset(self, key):
            return {"t": jnp.zeros((), jnp.int32), "fresh": jnp.zeros(()), "pooled_at_reset": self.pooled + 0.0}

        def step(self, key, solution, inner):
            return {**inner, "t": inner["t"] + 1, "fresh": inner["fresh"] + 1}, self.pooled + 0.0, jnp.asarray(False)

        def init_statistics(self):
            return jnp.zeros(())

        def with_statistics(self, statistics):
            return self.replace(pooled=statistics)

        def pool_statistics(self, statistics, inner):
            return statistics + jnp.sum(inner["fresh"]), {**inner, "fresh": jnp.zeros_like(inner["fresh"])}

    problem = Pooling(window=3)
    state = problem.init(key, zoo.Groups.of(2), solution())
    evaluations, states = evaluate_often(problem, state, members([1.0, 1.0]), 3)
    np.testing.assert_array_equal([s.statistics for s in states], [0.0, 6.0, 12.0, 18.0])
    np.testing.assert_array_equal([e.fitness[0] for e in evaluations], [0.0, 6.0, 12.0])
    np.testing.assert_array_equal([s.inner["pooled_at_reset"][0] for s in states], [0.0, 0.0, 12.0, 12.0])
    assert problem.evaluate_score(key, solution(), states[-1])["objective"] == 18.0
    assert jax.tree.leaves(problem.surrogate_gradient(key, states[-1])(solution()))[0] == 0


# Under transformations


@pytest.mark.parametrize(("horizon", "window"), [(6, 2), (6, None)])
def test_state_keeps_structure_and_dtypes_in_a_scan(horizon, window, key):
    problem = Table(horizon=horizon, window=window)  # `reset` returns a Python float
    state = problem.init(key, zoo.Groups(np.array([0, 0, 1, 2])), solution())
    population = members([1.0] * 4)

    @jax.jit
    def train(problem, state, keys):
        def body(state, k):
            evaluation, state = problem.evaluate(k, population, state)
            return state, evaluation

        return jax.lax.scan(body, state, keys)

    keys = jax.random.split(key, 4)
    end, scanned = train(problem, state, keys)
    assert signature(end) == signature(state)
    evaluate = jax.jit(problem.evaluate)
    for i, k in enumerate(keys):
        evaluation, state = evaluate(k, population, state)
        for a, b in zip(jax.tree.leaves(evaluation), jax.tree.leaves(scanned), strict=True):
            np.testing.assert_array_equal(a, b[i])


@pytest.mark.parametrize(("horizon", "window"), [(6, 2), (6, None), (None, 2)])
def test_state_keeps_its_dtypes_in_double_precision(horizon, window, x64):
    problem = Table(horizon=horizon, window=window)
    x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), solution())
    state, evaluation, new_state = jax.eval_shape(
        lambda key: (
            state := problem.init(key, zoo.Groups(np.array([0, 1, 2])), x),
            *problem.evaluate(key, jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), x), state),
        ),
        jax.random.key(0),
    )
    assert jax.tree.map(lambda s: (s.shape, s.dtype), new_state) == jax.tree.map(lambda s: (s.shape, s.dtype), state)
    assert evaluation.fitness.dtype == np.float64


def test_keys_may_be_part_of_the_inner_state(key):
    class Keyed(Linear):
        def reset(self, key):
            return key, jnp.zeros(2)

        def step(self, key, solution, inner):
            own, x = inner
            own, sub = jax.random.split(own)
            x, loss, terminated = super().step(sub, solution, x)
            return (own, x), loss, terminated

    problem = Keyed()
    x = jnp.zeros(2)
    state = jax.eval_shape(lambda k: problem.init(k, zoo.Groups(np.arange(3)), x), key)
    _, new_state = jax.eval_shape(problem.evaluate, key, jnp.zeros((3, 2)), state)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), new_state) == jax.tree.map(lambda s: (s.shape, s.dtype), state)
