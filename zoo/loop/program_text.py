"""A digest of what a problem or a strategy computes, made from its lowered program.

The text of the program (StableHLO) contains every function, global and closed-over array that is traced. It contains no
comments, names or addresses. The program is lowered for a CPU, whatever the device. `zoo.loop.host_code` follows
callbacks into Python.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.core.evaluation import Evaluation, Groups
from zoo.core.population import materialize
from zoo.core.problem import Problem
from zoo.core.sensitivity import Sensitivity
from zoo.core.solution import Solution
from zoo.core.strategy import Strategy
from zoo.core.surrogate import SurrogateGradient
from zoo.core.unrolled import UnrolledProblem
from zoo.loop.host_code import digest_of_host_code
from zoo.loop.once import once_per_object
from zoo.loop.programs import jaxprs_in

_MEMBERS = 4  # in two groups
_GROUPS = Groups(np.arange(_MEMBERS) % 2)
_OURS = (Problem.surrogate_gradient, UnrolledProblem.surrogate_gradient)
_RESULT_NAME = re.compile(r'jax\.result_info = "[^"]*"')
_DEFINITION = re.compile(r'func\.func (?:public |private )?@([\w.$-]+|"[^"]*")')
_SYMBOL = re.compile(r'@([\w.$-]+|"[^"]*")')


class ProgramText(NamedTuple):
    """A digest of a program (empty if it cannot be traced), and descriptions of the parts that cannot be compared."""

    digest: str
    unseen: tuple[str, ...] = ()


def text_of_problem(problem: Problem) -> ProgramText:
    """Returns the text of a problem's functions, lowered for a few members. Computed once per problem."""
    return once_per_object(problem, "program", lambda: _lower(_evaluate, problem, _example))


def text_of_gradient(problem: Problem) -> ProgramText:
    """Returns the text of a problem's surrogate gradient. Computed once per problem."""
    return once_per_object(problem, "gradient", lambda: _lower(_differentiate, problem, _example))


def text_of_strategy(strategy: Strategy, solution: Solution) -> ProgramText:
    """Returns the text of a strategy's functions, for solutions of the given shapes. Computed once per shapes."""
    key = repr(jax.tree.map(lambda x: (x.shape, x.dtype), solution))
    return once_per_object(strategy, key, lambda: _lower(_search, strategy, lambda _: (_keys(), solution)))


def _lower(function: Any, instance: Any, arguments: Callable[[Any], tuple[Any, ...]]) -> ProgramText:
    """Returns the text of a jitted function's program."""
    try:
        traced = function.trace(instance, *arguments(instance))
        try:
            lowered = traced.lower(lowering_platforms=("cpu",))
        except (NotImplementedError, ValueError):  # a program that only another device can run
            lowered = traced.lower()
    except Exception as error:
        message = str(error).partition("\n")[0]
        return ProgramText("", (f"the program of {type(instance).__name__} ({type(error).__name__}: {message})",))
    host, unseen = digest_of_host_code([*_callbacks(traced.jaxpr)])
    names = [sorted(lowered.out_info[-1]), sorted(lowered.out_info[2].aux)] if function is _evaluate else []
    parts = (_without_names(lowered.as_text()), host, names)
    return ProgramText(hashlib.sha256(repr(parts).encode()).hexdigest()[:16], tuple(unseen))


def _without_names(text: str) -> str:
    """Returns the text of a program with numbers for its functions, and without the names of its results."""
    numbers = {name: f"f{number}" for number, name in enumerate(dict.fromkeys(_DEFINITION.findall(text)))}
    text = _RESULT_NAME.sub("", text)
    return _SYMBOL.sub(lambda match: "@" + numbers.get(match[1], match[1]), text)


def _callbacks(jaxpr: Any) -> Iterator[Any]:
    """Yields the Python functions that a program calls, except those for debugging."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if "callback" in equation.params and not equation.primitive.name.startswith("debug"):
            yield equation.params["callback"]
        for inner in jaxprs_in(tuple(equation.params.values())):
            yield from _callbacks(inner)


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), 5)


def _example(problem: Problem) -> tuple[jax.Array, Any, Any]:
    """Returns keys, and the shapes of a population and of a solution."""
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    population = jax.tree.map(lambda x: jax.ShapeDtypeStruct((_MEMBERS, *x.shape), x.dtype), solution)
    return _keys(), population, solution


def _jit(function: Callable[..., Any]) -> Any:
    """Returns a jitted function that keeps unused arguments, because which arguments are used tells programs apart.

    The function lives as long as the process. So JAX caches its trace as it caches the trace of a run, and a later
    change, such as another value of a global, is seen by both or by neither.
    """
    return jax.jit(function, keep_unused=True)


@_jit
def _evaluate(problem: Problem, keys: jax.Array, population: Any, solution: Solution) -> Any:
    state = problem.init(keys[0], _GROUPS, solution)
    evaluation, after = problem.evaluate(keys[1], population, state)
    score = problem.evaluate_score(keys[2], solution, after)
    return problem.initial_solution(keys[3]), state, evaluation, after, score


@_jit
def _differentiate(problem: Problem, keys: jax.Array, population: Any, solution: Solution) -> Any:
    surrogate = problem.surrogate_gradient(keys[0], problem.init(keys[1], _GROUPS, solution))
    if surrogate is None:
        return None
    if not isinstance(surrogate, SurrogateGradient) or type(problem).surrogate_gradient in _OURS:
        return surrogate(solution)  # the gradient of members is the same function
    return surrogate(solution), surrogate.members(population)


@_jit
def _search(strategy: Strategy, keys: jax.Array, solution: Solution) -> Any:
    """Runs one generation with a made-up surrogate gradient and evaluation."""
    state = strategy.init(keys[0], solution)
    surrogate = SurrogateGradient(lambda x: x, materialize) if strategy.takes_surrogate(state) else None
    population, asked = strategy.ask(keys[1], state, surrogate)
    size, rule = len(strategy.groups.ids), strategy.groups.sensitivity
    fitness = jax.random.normal(keys[2], (size,))
    evaluation = Evaluation(fitness, jax.random.bernoulli(keys[3], 0.5, (size,)), jax.numpy.int32(size))
    followed = None
    if rule is not None:
        followed = _follow(rule, keys[4], solution)
        evaluation = evaluation._replace(gradient=materialize(population))
    told = strategy.tell(asked, population, evaluation)
    return state, population, asked, told, strategy.mean(told), strategy.std(told), strategy.groups, followed


def _follow(rule: Sensitivity, key: jax.Array, solution: Solution) -> Any:
    """Takes a step of a made-up episode, whose inner state has the structure of the solution."""

    def step(solution: Solution, inner: Solution) -> tuple[Solution, jax.Array, bool]:
        inner = jax.tree.map(lambda x, y: x * y, solution, inner)
        return inner, jax.tree.leaves(inner)[0].sum(), False

    carried = rule.start(key, solution, solution)
    return carried, rule.step(key, step, jax.numpy.int32(1), solution, solution, carried)
