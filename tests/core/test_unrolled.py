"""`UnrolledProblem`: windows, phases, pauses, resets, step counts.

Most tests unroll `Table`, whose losses are whole numbers, so that equality is exact where it should be.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import signature
from zoo.core.problem import group_keys

LOSSES = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], np.float32)


class Table(zoo.UnrolledProblem):
    """Step t of an episode costs scale * LOSSES[t]; the episode terminates after `life` steps."""

    horizon: int | None = zoo.static(6, at_least=1)
    is_noisy: bool = zoo.static(False)
    is_differentiable: bool = zoo.static(True)
    differentiable = property(lambda self: self.is_differentiable)

    def initial_solution(self, key):
        return solution(1.0)

    def reset(self, key):
        return {"t": jnp.zeros((), jnp.int32), "start": jax.random.uniform(key), "total": 0.0}

    def step(self, key, solution, inner):
        loss = solution["scale"] * jnp.asarray(LOSSES)[inner["t"] % 8]
        loss = loss + jax.random.uniform(key) if self.is_noisy else loss
        t = inner["t"] + 1
        return {**inner, "t": t, "total": inner["total"] + loss}, loss, t >= solution["life"]


class Costly(Table):
    """Step t spends t + 1 problem steps."""

    def step_cost(self, inner):
        return inner["t"] + 1


def linear_step(noise, limit, solution, inner):
    inner = 0.9 * inner + solution + noise
    return inner, jnp.sum(jnp.sin(inner) + inner**2), inner[0] > limit


class Linear(zoo.UnrolledProblem):
    """Noisy linear dynamics x <- a x + solution + noise; terminates where x[0] exceeds the limit."""

    horizon: int | None = zoo.static(7)
    window: int | None = zoo.static(3)
    limit: float = zoo.number(1e9)
    is_differentiable: bool = zoo.static(True)
    differentiable = property(lambda self: self.is_differentiable)

    def initial_solution(self, key):
        return jnp.full(2, 0.2)

    def reset(self, key):
        return jax.random.uniform(key, (2,), minval=-2.0, maxval=2.0)

    def step(self, key, solution, inner):
        return linear_step(0.1 * jax.random.uniform(key, (2,)), self.limit, solution, inner)


def solution(scale=1.0, life=100.0):
    return {"scale": jnp.float32(scale), "life": jnp.float32(life)}


def members(scale, life=100.0):
    scale = jnp.asarray(scale, jnp.float32)
    return {"scale": scale, "life": jnp.broadcast_to(jnp.asarray(life, jnp.float32), scale.shape)}


def evaluate_often(problem, state, population, num, key=None):
    """Returns lists of evaluations and states of `num` evaluations of one population, state 0 being the first."""
    evaluate = jax.jit(problem.evaluate)
    evaluations, states = [], [state]
    for k in jax.random.split(jax.random.key(7) if key is None else key, num):
        evaluation, state = evaluate(k, population, state)
        evaluations.append(evaluation)
        states.append(state)
    return evaluations, states


def phases_of_groups(state):
    return np.asarray(state.time)[state.members]


# Fitness


@pytest.mark.parametrize(
    ("horizon", "window", "objective"),
    [(6, 2, "mean"), (7, 3, "mean"), (7, 3, "sum"), (3, 1, "sum"), (5, None, "sum")],
)
def test_mean_fitness_over_the_phases_is_the_objective_of_the_episode(horizon, window, objective, key):
    """One group per phase: exact, in every generation, whether or not the window divides the horizon."""
    problem = Table(horizon=horizon, window=window, objective=objective)
    num_windows = -(-horizon // (window or horizon))
    total = LOSSES[:horizon].sum()
    expected = 2 * (total / horizon if objective == "mean" else total)
    state = problem.init(key, np.arange(num_windows), solution(1.0))
    assert sorted(phases_of_groups(state)) == [(window or horizon) * i for i in range(num_windows)]
    evaluations, _ = evaluate_often(problem, state, members([2.0] * num_windows), num_windows + 1)
    for evaluation in evaluations:
        np.testing.assert_allclose(np.mean(evaluation.fitness), expected, rtol=1e-6)
    np.testing.assert_allclose(problem.fitness(key, solution(2.0)), expected, rtol=1e-6)


@pytest.mark.parametrize(("objective", "scale"), [("mean", 3 / 6), ("sum", 3.0)])
def test_fitness_of_each_window(objective, scale, key):
    """Three windows: three times their losses, divided by the six steps of the episode for the mean."""
    problem = Table(window=2, objective=objective)
    state = problem.init(key, np.arange(3), solution())
    evaluations, _ = evaluate_often(problem, state, members([1.0, 1.0, 1.0]), 1)
    by_phase = np.argsort(state.time)
    np.testing.assert_array_equal(evaluations[0].fitness[by_phase], scale * np.array([3.0 + 1.0, 4.0 + 1.0, 5.0 + 9.0]))


def test_without_a_horizon_the_objective_is_that_of_a_window(key):
    for objective, scale in (("mean", 0.25), ("sum", 1.0)):
        problem = Table(horizon=None, window=4, objective=objective)
        state = problem.init(key, np.zeros(2, int), solution())
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
    state = problem.init(key, np.zeros(2, int), solution())
    evaluations, states = evaluate_often(problem, state, members([1.0, 1.0], [5.0, 100.0]), 4)
    assert [int(e.steps) for e in evaluations] == [8, 5, 4, 4]
    np.testing.assert_array_equal(states[-1].terminated, [True, False])
    np.testing.assert_array_equal(states[-1].inner["t"], [5, 16])
    assert evaluations[2].fitness[0] == 0


# Phases


@pytest.mark.parametrize("num_groups", [2, 7])
def test_phases_are_stratified(num_groups, key):
    """Each phase equally often, up to one; group partners share theirs."""
    problem = Table(window=2)
    state = problem.init(key, np.repeat(np.arange(num_groups), 2), solution())
    np.testing.assert_array_equal(state.time[0::2], state.time[1::2])
    counts = np.bincount(phases_of_groups(state), minlength=5)
    assert counts[[1, 3]].sum() == 0
    assert counts[[0, 2, 4]].max() - counts[[0, 2, 4]].min() <= 1


def test_phases_are_spread_over_the_episode_where_there_are_more_windows_than_groups():
    """Four groups on 40 windows are 10 apart, and each is in every phase equally often: a chi-squared test."""
    problem = Endless(horizon=40, window=1)

    def phases(key):
        return problem.init(key, np.arange(4), solution()).time

    drawn = np.asarray(jax.jit(jax.vmap(phases))(jax.random.split(jax.random.key(1), 4000)))
    assert np.array_equal(np.diff(np.sort(drawn, axis=1), axis=1), np.full((4000, 3), 10))
    counts = np.bincount(drawn[:, 0], minlength=40)
    statistic = np.sum((counts - 100) ** 2 / 100)
    assert abs(statistic - 39) < 5 * np.sqrt(2 * 39)


def test_a_single_group_starts_at_the_beginning(key):
    state = Table(window=2).init(key, np.zeros(3, int), solution())
    assert not state.time.any()
    assert state.pending_steps == 0


def test_phases_are_in_random_order():
    """Every group is in every phase equally often over the keys: a binomial count each, 5 sigma."""
    problem = Table(window=2)
    num_keys = 600
    init = jax.vmap(lambda key: problem.init(key, np.arange(3), solution()).time)
    times = np.asarray(init(jax.random.split(jax.random.key(0), num_keys)))
    counts = np.array([[np.sum(times[:, group] == phase) for phase in (0, 2, 4)] for group in range(3)])
    assert np.all(np.abs(counts - num_keys / 3) < 5 * np.sqrt(num_keys * (1 / 3) * (2 / 3)))
    np.testing.assert_array_equal(np.sort(times, axis=1), [[0, 2, 4]] * num_keys)


def test_a_group_at_a_phase_was_unrolled_to_it_with_the_initial_solution(key):
    problem = Table(window=2)
    state = problem.init(key, np.array([0, 0, 1, 1, 2, 2]), solution(3.0))
    for t, inner_t, total in zip(state.time, state.inner["t"], state.inner["total"], strict=True):
        assert inner_t == t
        assert total == 3 * LOSSES[:t].sum()
    assert not state.terminated.any()


def test_one_window_per_episode_needs_no_phases(key):
    state = Table().init(key, np.array([0, 0, 1, 2]), solution())
    np.testing.assert_array_equal(state.time, 0)
    np.testing.assert_array_equal(state.inner["t"], 0)
    assert state.pending_steps == 0


def test_init_is_on_schedule_if_the_warm_up_terminates(key):
    """A group whose warm-up terminated waits for its episode's end; only the steps it took are counted."""
    problem = Table(window=2)
    state = problem.init(key, np.arange(3), solution(1.0, life=3.0))
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
    state = problem.init(key, np.arange(3), solution())
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
    state = problem.init(key, np.zeros(2, int), solution())
    evaluations, _ = evaluate_often(problem, state, members([1.0, 1.0]), 3)
    assert [int(e.steps) for e in evaluations] == [6, 6, 2]
    np.testing.assert_array_equal([e.fitness[0] for e in evaluations], [3 * 8.0, 3 * 15.0, 3 * 2.0])


def test_a_terminated_member_pauses_until_its_partners_end_too(key):
    problem = Table(window=2, objective="sum")
    state = problem.init(key, np.zeros(2, int), solution())
    population = members([1.0, 1.0], [3.0, 100.0])
    evaluations, states = evaluate_often(problem, state, population, 4)
    np.testing.assert_array_equal([e.steps for e in evaluations], [4, 3, 2, 4])
    np.testing.assert_array_equal([e.done for e in evaluations], [[False] * 2, [False] * 2, [True] * 2, [False] * 2])
    np.testing.assert_array_equal(  # three windows: fitness = 3 * losses
        [e.fitness for e in evaluations], [[12.0, 12.0], [12.0, 15.0], [0.0, 42.0], [12.0, 12.0]]
    )
    np.testing.assert_array_equal([s.terminated[0] for s in states], [False, False, True, False, False])
    np.testing.assert_array_equal([s.time[0] for s in states], [0, 2, 4, 0, 2])
    np.testing.assert_array_equal([s.inner["t"][0] for s in states], [0, 2, 3, 0, 2])
    assert not any(s.terminated[1] for s in states)


def test_group_partners_share_starts_and_resets_and_groups_do_not(key):
    problem = Table(window=2)
    groups = np.array([0, 1, 0, 1, 2])
    state = problem.init(key, groups, solution())
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
        # The fresh start is the one `reset` gives for the group's key.
        fresh = [problem.reset(g)["start"] for g in group_keys(jax.random.fold_in(k, 1), 3)]
        np.testing.assert_array_equal(state.inner["start"][done], np.asarray(fresh)[groups][done])
    for i in range(4):
        assert len(set(seen[i])) == 3  # three groups, three starts
    assert len({float(s) for row in seen for s in row}) == 3 + 3  # in three generations, three resets


def test_all_groups_start_afresh_where_a_window_is_an_episode(key):
    problem = Table()
    groups = np.array([0, 0, 1])
    state = problem.init(key, groups, solution())
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
    state = problem.init(key, groups, solution())
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
    state = problem.init(key, np.array([0, 0, 1, 1, 2, 2]), solution())
    cost = np.arange(1, 7)
    warm_up = cost[:2].sum() + cost[:4].sum()  # of groups, not of members
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
    states = [p.init(key, np.array(groups), x) for p in (plain, other)]
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
        problem = Table(is_differentiable=False, member_batch_size=member_batch_size)  # its own loop is no scan
        state = problem.init(key, np.zeros(4, int), solution())
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


@functools.partial(jax.jit, static_argnames="length")
def noise_of_steps(keys, length):
    """Returns the noise of each step, `[len(keys), length, 2]`: step i of a key uses fold_in(key, i)."""
    fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))(keys, jnp.arange(length))
    return 0.1 * jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (2,))))(fold)


def unroll_by_hand(problem, noise, x, inner, time, terminated):
    """One window in plain Python; the losses of a member that is paused or past the horizon do not count."""
    loss = 0.0
    active = True
    for i in range(len(noise)):
        if terminated or time + i >= problem.horizon:
            break
        inner, step_loss, ended = linear_step(noise[i], problem.limit, x, inner)
        loss += jnp.where(active, step_loss, 0.0)
        active &= ~ended
    return loss


def test_surrogate_gradient_is_that_of_an_unroll_by_hand():
    """From each group's own inner state and phase, with its keys, averaged over the groups; one group is paused."""
    problem = Linear(limit=1.2)
    groups = np.array([0, 1, 2, 3, 0, 1])
    key = jax.random.key(1)  # of those in which no other group has terminated yet
    x = problem.initial_solution(key)
    state = problem.init(key, groups, x)
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
    # And it is the gradient of what `evaluate` with the same key returns.
    fitness = problem.evaluate(k, jnp.broadcast_to(x, (6, 2)), state)[0].fitness
    np.testing.assert_allclose(np.mean(fitness[state.members]), value, rtol=1e-5)


def test_no_surrogate_gradient_where_autodiff_is_no_use(key):
    problem = Table(is_differentiable=False)
    assert problem.surrogate_gradient(key, problem.init(key, np.zeros(2, int), solution())) is None


# Score


def test_score_is_the_mean_over_full_episodes(key):
    problem = Linear(limit=1.0, num_score_episodes=3)
    x = jnp.array([0.1, 0.3])
    state = problem.init(key, np.zeros(2, int), x)

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
    """What is pooled is the number of steps taken; the loss is the number of steps pooled so far."""

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
    state = problem.init(key, np.zeros(2, int), solution())
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
    state = problem.init(key, np.array([0, 0, 1, 2]), solution())
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
            state := problem.init(key, np.array([0, 1, 2]), x),
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
    state = jax.eval_shape(lambda k: problem.init(k, np.arange(3), x), key)
    _, new_state = jax.eval_shape(problem.evaluate, key, jnp.zeros((3, 2)), state)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), new_state) == jax.tree.map(lambda s: (s.shape, s.dtype), state)


# Errors

LOSS, ALIVE = jnp.zeros(()), jnp.zeros((), bool)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda inner: (inner, LOSS), r"must return \(inner, loss, terminated\), got tuple"),
        (lambda inner: [inner, LOSS, ALIVE], r"must return \(inner, loss, terminated\), got list"),
        (lambda inner: inner["x"], r"must return \(inner, loss, terminated\), got ShapeDtypeStruct"),
        (lambda inner: ({"x": inner["x"].astype(jnp.float16)}, LOSS, ALIVE), r"dtypes.*float16"),
        (lambda inner: ({"x": inner["x"][:1]}, LOSS, ALIVE), r"shapes.*\(1,\)"),
        (lambda inner: ({"y": inner["x"]}, LOSS, ALIVE), r"structure.*'y'"),
        (lambda inner: (inner, inner["x"], ALIVE), r"scalar floating-point loss, got float32\[2\]"),
        (lambda inner: (inner, jnp.zeros((), jnp.int32), ALIVE), r"scalar floating-point loss, got int32"),
        (lambda inner: (inner, LOSS, jnp.zeros(())), r"scalar boolean `terminated`, got float32"),
        (lambda inner: (inner, LOSS, jnp.zeros(2, bool)), r"scalar boolean `terminated`, got bool\[2\]"),
    ],
)
def test_says_what_is_wrong_with_step(result, message, key):
    class Wrong(Table):
        def reset(self, key):
            return {"x": jnp.zeros(2)}

        def step(self, key, solution, inner):
            return result(inner)

    with pytest.raises(TypeError, match=r"(?s)Wrong.step must return.*" + message.removeprefix("must return")):
        Wrong().init(key, np.zeros(2, int), solution())


def test_step_may_return_python_numbers(key):
    class Plain(Table):
        def step(self, key, solution, inner):
            return inner, 2.0, False

    problem = Plain(objective="sum")
    evaluation, _ = problem.evaluate(key, members([1.0]), problem.init(key, np.zeros(1, int), solution()))
    assert evaluation.fitness == 12.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": None}, r"Table has no horizon, so it needs a window"),
        ({"horizon": 3, "window": 4}, r"Table.window must be at most its horizon 3, got 4"),
        ({"horizon": 0}, r"Table.horizon must be at least 1, got 0"),
        ({"window": 0}, r"Table.window must be at least 1, got 0"),
        ({"window": 1.5}, r"Table.window must be a whole number, got 1.5"),
        ({"horizon": "6"}, r"Table.horizon must be a whole number, got '6'"),
        ({"objective": "median"}, r"Table.objective must be 'mean' or 'sum', got 'median'"),
        ({"num_score_episodes": 0}, r"Table.num_score_episodes must be at least 1, got 0"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Table(**settings)


def test_the_horizon_is_required():
    class Bare(zoo.UnrolledProblem):
        initial_solution = reset = step = lambda *_: None

    with pytest.raises(TypeError, match="horizon"):
        Bare()


def test_wrong_population_size(key):
    problem = Table(window=2)
    state = problem.init(key, np.zeros(4, int), solution())
    with pytest.raises(ValueError, match=r"Table.evaluate got 3 members, but its state was made for groups of 4"):
        problem.evaluate(key, members([1.0] * 3), state)


def test_traced_groups(key):
    with pytest.raises(TypeError, match=r"concrete groups.*strategy\.groups"):
        jax.eval_shape(lambda groups: Table().init(key, groups, solution()), jnp.zeros(4, int))


def test_a_gradient_of_the_authors_own_is_the_surrogate(key):
    class Own(Table):
        differentiable = False

        def gradient(self, key, solution):
            return jax.tree.map(lambda x: jnp.full_like(x, 7.0), solution)

    problem = Own()
    solution = problem.initial_solution(key)
    surrogate = problem.surrogate_gradient(key, problem.init(key, np.zeros(2, int), solution))
    assert surrogate is not None
    assert all(np.all(np.asarray(leaf) == 7) for leaf in jax.tree.leaves(surrogate(solution)))


def test_a_redeclared_horizon_is_checked_all_the_same():
    class Short(Table):
        horizon: int | None = zoo.static(6)

    with pytest.raises(ValueError, match=r"Short\.horizon must be at least 1, got 0"):
        Short(horizon=0)


# Groups: parents


class Walker(zoo.UnrolledProblem):
    """x <- x + scale, at a loss of x; terminates where x reaches `life`. Three windows, so three times their losses."""

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    objective: str = zoo.static("sum")
    is_random: bool = zoo.static(False)

    def initial_solution(self, key):
        return solution()

    def reset(self, key):
        return jnp.floor(8 * jax.random.uniform(key)) if self.is_random else jnp.zeros(())

    def step(self, key, solution, inner):
        inner = inner + solution["scale"]
        return inner, inner, inner >= solution["life"]


class Endless(Walker):
    """Says so with a plain `False`."""

    def step(self, key, solution, inner):
        return *super().step(key, solution, inner)[:2], False


class Counting(Linear):
    """Its statistics count the steps of all members, and add to the loss."""

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


def walk_by_hand(problem, state, population, parents):
    """One window of `Walker` in plain Python: fitness, x, terminated, steps."""
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
    """Returns fitness, x, terminated and steps of some windows of one group, each a list."""
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
    """The second reaches 3 in the first step of each window."""
    fitness, x, terminated, steps = walks(members([1.0, 3.0, 2.0], [100.0, 3.0, 100.0]), [2, 2, 2], 3)
    assert fitness == [[9, 3 * 3, 18], [33, 3 * 7, 42], [57, 3 * 11, 66]]
    assert x == [[2, 3, 4], [6, 7, 8], [0, 0, 0]]
    assert terminated == [[False, True, False], [False, True, False], [False] * 3]
    assert steps == [5, 5, 5]


def test_members_may_have_different_parents():
    """The first two exchange their states, the third goes on from the first."""
    fitness, x, _, _ = walks(members([1.0, 10.0, 20.0]), [1, 0, 0], 2)
    assert x == [[2, 20, 40], [22, 22, 42]]
    assert fitness[1] == [3 * (21 + 22), 3 * (12 + 22), 3 * (22 + 42)]


def test_members_start_at_the_time_of_their_parent(key):
    """A parent one step before the horizon leaves one step to its members."""
    problem = Walker()
    state = problem.init(key, zoo.Groups(np.zeros(3, int), parents=np.array([2, 2, 2])), solution())
    state = state._replace(time=jnp.array([0, 2, 5], jnp.int32), inner=jnp.array([1.0, 2.0, 10.0]))
    evaluation, _ = problem.evaluate(key, members([1.0, 3.0, 2.0]), state)
    np.testing.assert_array_equal(evaluation.fitness, [3 * 11, 3 * 13, 3 * 12])
    assert evaluation.steps == 3


@pytest.mark.parametrize("member_batch_size", [None, 4])
def test_parents_in_several_groups(member_batch_size, key):
    """Against plain Python: a parent in front, one behind, and none but oneself; some terminate, the phases differ."""
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
    for groups in (ids, zoo.Groups(ids), zoo.Groups(ids, parents=np.arange(4))):
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
    assert state.statistics == state.pending_steps
    population = jnp.array([[0.1, 0.2], [0.5, 0.0], [0.05, -0.3], [0.9, 0.0], [0.3, 0.3], [0.2, 0.1]])
    evaluations, states = evaluate_often(problem, state, population, 6)
    steps = [int(e.steps) for e in evaluations]
    assert min(steps[1:]) < 6 * 3
    np.testing.assert_array_equal([s.statistics for s in states[1:]], np.cumsum(steps))


def test_surrogate_gradient_is_taken_from_the_parents_state(key):
    """By hand; one group is paused, by its parent alone."""
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
    # And it is the gradient of what `evaluate` with the same key returns: of every member of a group the same.
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
        with pytest.raises(ValueError, match=r"Groups\.parents must name for each of the 4 members one of its own"):
            problem.init(key, groups, x)


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
    plain, asked = (problem.init(key, g, jnp.zeros(2)) for g in (ids, groups))
    assert signature(plain) == signature(asked)
    evaluations = [problem.evaluate(key, population, state)[0] for state in (plain, asked)]
    for a, b in zip(*map(jax.tree.leaves, evaluations), strict=True):
        np.testing.assert_array_equal(a, b)
    gradients = [problem.surrogate_gradient(key, state)(population[0]) for state in (plain, asked)]
    np.testing.assert_array_equal(*gradients)


# Groups: whole episodes


@pytest.mark.parametrize(("horizon", "window", "objective"), [(7, 3, "mean"), (6, 1, "sum"), (5, None, "mean")])
def test_a_whole_episode_is_evaluated_whatever_the_window(horizon, window, objective, key):
    """The fitness of each member is that of its full episode, in every generation."""
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
    """Also with parents, who are of no use where every evaluation ends with a reset."""
    ids = np.array([0, 1, 1, 0])
    whole, windowed = Walker(window=None, is_random=True), Walker(is_random=True)
    population = members([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 15.0, 99.0])
    results = []
    for problem, groups in (
        (whole, ids),
        (windowed, zoo.Groups(ids, whole_episodes=True)),
        (windowed, zoo.Groups(ids, parents=np.array([3, 2, 2, 3]), whole_episodes=True)),
    ):
        evaluations, states = evaluate_often(problem, problem.init(key, groups, solution()), population, 2)
        results.append(jax.tree.leaves((evaluations, [s._replace(parents=None, members=None) for s in states])))
    for one, *others in zip(*results, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_the_window_is_that_of_the_state(key):
    """So one problem may serve strategies that ask for whole episodes and ones that do not."""
    problem = Table(window=2)
    for groups, length in ((np.zeros(2, int), 2), (zoo.Groups(np.zeros(2, int), whole_episodes=True), 6)):
        state = problem.init(key, groups, solution())
        assert state.window.length == length
        assert problem.evaluate(key, members([1.0, 1.0]), state)[0].steps == 2 * length


def test_surrogate_gradient_of_a_whole_episode(key):
    """By hand, and against the fitness that `evaluate` with the same key returns."""
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
