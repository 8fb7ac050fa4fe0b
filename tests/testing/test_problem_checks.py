"""Each check of problems notices a problem that breaks its promise, and says how."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
import zoo.testing

CHECKS = {check.__name__: check for check in zoo.testing.PROBLEM_CHECKS}


class Toy(zoo.Problem):
    """A noisy quadratic."""

    scale: float = zoo.number(1.0)

    def initial_solution(self, key):
        return {"x": jax.random.normal(key, (2,))}

    def fitness(self, key, solution):
        return self.scale * jnp.sum((solution["x"] - 0.1 * jax.random.normal(key, (2,))) ** 2)


class Unrolled(zoo.UnrolledProblem):
    horizon: int | None = zoo.static(4)
    window: int | None = zoo.static(2)

    def initial_solution(self, key):
        return jnp.zeros(2)

    def reset(self, key):
        return jax.random.normal(key, (2,))

    def step(self, key, solution, inner):
        inner = 0.5 * inner + solution
        return inner, jnp.sum((inner - 1) ** 2), False


class StartsWithIntegers(Toy):
    def initial_solution(self, key):
        return {"x": jnp.arange(2)}


class StartsAnywhere(Toy):
    def initial_solution(self, key):
        return {"x": jax.pure_callback(lambda: np.float32(np.random.default_rng().normal(size=2)), jnp.zeros(2))}


class HasTwoFitnesses(Toy):
    def fitness(self, key, solution):
        return solution["x"] ** 2


class IsNanAtTheStart(Toy):
    def fitness(self, key, solution):
        return super().fitness(key, solution) + jnp.log(-jnp.ones(()))


class CountsTwice(Toy):
    def generation_steps(self, population_size):
        return 2 * population_size


class OneKeyEach(Toy):
    def evaluate(self, key, population, state):
        evaluation, state = super().evaluate(key, population, state)
        return evaluation._replace(fitness=evaluation.fitness + jax.random.normal(key, (4,))), state


class AddsOne(Toy):
    def evaluate(self, key, population, state):
        evaluation, state = super().evaluate(key, population, state)
        return evaluation._replace(fitness=evaluation.fitness + 1), state


class GoesByBatches(Toy):
    def fitness(self, key, solution):
        return super().fitness(key, solution) / (self.member_batch_size or 1)


class ScoresTwoNumbers(Toy):
    def score(self, key, solution):
        return {"fitness": solution["x"]}


class HasNoHeadline(Toy):
    def score(self, key, solution):
        return {"loss": jnp.sum(solution["x"])}


class CountsSigns(Toy):
    def fitness(self, key, solution):
        return jnp.sum(jnp.sign(solution["x"]))


class SuggestsNonsense(Toy):
    @property
    def suggestions(self):
        return {"sigma": -1.0}


class IsNewEachTime(Toy):
    fn: Callable[..., Any] = zoo.static(None)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "fn", lambda x: x)


class SyncsWithTheHost(Toy):
    def fitness(self, key, solution):
        return jax.pure_callback(lambda x: np.float32(np.sum(x**2)), jnp.zeros(()), solution["x"])


class NeverEnds(Unrolled):
    def evaluate(self, key, population, state):
        evaluation, state = super().evaluate(key, population, state)
        return evaluation._replace(done=jnp.zeros(4, bool)), state


class ClosesOverData(Toy):
    def fitness(self, key, solution):
        return super().fitness(key, solution) + jnp.sum(DATA)


class HoldsALock(Toy):
    lock: Any = zoo.static(None)

    def __post_init__(self):
        object.__setattr__(self, "lock", itertools.count().__next__)

    def __reduce__(self):
        raise TypeError("cannot pickle a lock")


class TakesAnySize(Toy):
    def evaluate(self, key, population, state):
        return zoo.Evaluation.of(jnp.zeros(len(population["x"])), len(population["x"])), state


DATA = jnp.ones(2**19)
KEPT = []


class Leaks(Toy):
    def fitness(self, key, solution):
        KEPT.append(solution["x"] + 1)
        return super().fitness(key, solution)


BROKEN = [
    (StartsWithIntegers, "has_initial_solutions", "The initial solution is int32 at ['x']"),
    (StartsAnywhere, "has_initial_solutions", "With the same key, the initial solution: ['x'] is"),
    (HasTwoFitnesses, "has_one_fitness", "The fitness of one solution has the shape (2,)"),
    (IsNanAtTheStart, "has_one_fitness", "The fitness of the initial solution is nan"),
    (CountsTwice, "evaluates_populations", "spends 4 steps, and generation_steps(4) is 8"),
    (OneKeyEach, "shares_randomness_in_groups", "The fitness of the second members of two groups"),
    (AddsOne, "evaluates_members_by_fitness", "evaluate says that member 0 has fitness"),
    (GoesByBatches, "evaluates_in_batches", "In batches of two the fitness is"),
    (ScoresTwoNumbers, "has_scores_by_name", "The score 'fitness' has the shape (2,)"),
    (HasNoHeadline, "has_scores_by_name", "must return its headline metric 'fitness'"),
    (CountsSigns, "has_useful_gradients", "The surrogate gradient is zero"),
    (SuggestsNonsense, "makes_useful_suggestions", "sigma must be greater than 0"),
    (IsNewEachTime, "runs_with_strategies", "A problem made again compiles the loop again"),
    (SyncsWithTheHost, "maps_over_seeds", "vmap"),
    (NeverEnds, "ends_its_episodes", "After window 2 of 2, done is [False False False False]"),
    (ClosesOverData, "has_no_large_constants", "closes over an array of shape (524288,) (2,097,152 bytes)"),
    (HoldsALock, "goes_to_other_processes", "cannot pickle a lock"),
    (TakesAnySize, "refuses_other_sizes", "A population of three for groups of four is accepted"),
    (Leaks, "leaks_no_tracers", "Leaked"),
]


@pytest.mark.parametrize(("factory", "name", "words"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_a_broken_promise_is_noticed(factory, name, words):
    case = zoo.testing.ProblemCase(factory)
    with pytest.raises(zoo.testing.BrokenPromiseError) as error:
        zoo.testing.run_check(CHECKS[name], case)
    assert words in str(error.value)


def test_all_checks_are_seen_to_fail():
    assert {name for _, name, _ in BROKEN} == CHECKS.keys()


PROBLEMS = {
    **zoo.testing.example_problems(),
    "toy": Toy(),
    "host": zoo.from_python(lambda x: float(np.sum(x**2)), np.ones(2)),
}


@pytest.mark.parametrize("family", ["toy", "host", "unrolled", "rl", "supervised"])
def test_problems_of_every_family_break_none(family):
    zoo.testing.check_problem(lambda: PROBLEMS[family])


def test_bad_calls():
    with pytest.raises(TypeError, match=r"factory must make a zoo\.Problem, got NoneType"):
        zoo.testing.check_problem(lambda: None)
    with pytest.raises(ValueError, match="Unknown problem 'toy'"):
        zoo.testing.check_problem("toy")
