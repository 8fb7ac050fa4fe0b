"""Helpers for tests of unrolled problems: ids, small instances, programs, and inner training step by step."""

import functools

import jax
import jax.numpy as jnp

import zoo

# Programs that run for less time than their optimisation takes.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

LORENZ, INFLUENCE, TOY = (f"unrolled/{name}" for name in ("lorenz", "influence_balancing", "toy_lr_schedule"))
MLP, LEARNED = "unrolled/mlp_lr_schedule", "unrolled/learned_optimizer"
SMALL = {
    INFLUENCE: {"num_dims": 4, "num_positive": 2, "window": 2, "num_score_steps": 5},
    LORENZ: {"horizon": 6, "window": 2},
    TOY: {"horizon": 6, "window": 2},
    MLP: {"hidden": (4,), "batch_size": 8, "horizon": 6, "window": 2, "num_score_episodes": 1},
    LEARNED: {"hidden": (4,), "optimizer_hidden": (4,), "batch_size": 8, "horizon": 6, "window": 2},
}


def make_small(id):
    return zoo.make_problem(id, **SMALL[id])


@jit
def fitness_of(problem, key, solution):
    """Returns the objective of one full episode. Another value of a numeric setting compiles no new program."""
    return problem.fitness(key, solution)


@jit
def score_of(problem, key, solution):
    return problem.score(key, solution)


@functools.partial(jit, static_argnames="num_windows")
def windows_of(problem, key, solutions, *, num_windows):
    """Evaluates a population of one group for several windows. Returns evaluations and states, stacked.

    Args:
        solutions: The population of each window, `[num_windows, population_size, ...]`.
    """
    first = jax.tree.map(lambda x: x[0, 0], solutions)
    size = jax.tree.leaves(solutions)[0].shape[1]
    state = problem.init(key, zoo.Groups.of(size), first)

    def window(state, arguments):
        evaluation, state = problem.evaluate(*arguments, state)
        return state, (evaluation, state)

    return jax.lax.scan(window, state, (jax.random.split(key, num_windows), solutions))[1]


# Inner training


class Notebook:
    """Records the keys that a problem's fitness is called with. It is a static setting, hashed by identity."""

    def __init__(self):
        self.keys = []


class Recorder(zoo.Problem):
    """Wraps a problem and records the keys of its fitness, so that its batches can be repeated."""

    task: zoo.Problem = zoo.leaf()
    notebook: Notebook = zoo.static()

    def initial_solution(self, key):
        return self.task.initial_solution(key)

    def fitness(self, key, solution):
        self.notebook.keys.append(key)
        return self.task.fitness(key, solution)


class Recorded:
    """Steps a problem of inner training by hand, and records the keys that its tasks were evaluated with."""

    def __init__(self, problem, key, solution, num_steps, time=0):
        notebooks = {"task": Notebook(), "outer_task": Notebook()}
        tasks = {name: getattr(problem, name) for name in notebooks if getattr(problem, name) is not None}
        recording = problem.replace(**{n: Recorder(task=task, notebook=notebooks[n]) for n, task in tasks.items()})

        @jit
        def step(inner):
            for notebook in notebooks.values():
                notebook.keys = []
            return *recording.step(key, solution, inner), [notebook.keys for notebook in notebooks.values()]

        inner = jit(recording.reset)(key)
        self.inners, self.losses = [inner._replace(time=inner.time + time)], []
        self.keys, self.outer_keys = [], []
        for _ in range(num_steps):
            inner, loss, terminated, (keys, outer_keys) = step(self.inners[-1])
            assert not terminated
            self.inners.append(inner)
            self.losses.append(loss)
            self.keys += keys
            self.outer_keys += outer_keys


def noisy(key, x):
    return jnp.sum(jnp.square(x - jax.random.normal(key, x.shape)))


def random_start(key):
    return jax.random.normal(key, (3,))


# A task with random start and batches, which compiles quickly.
NOISY = zoo.from_function(noisy, random_start, takes_key=True)
