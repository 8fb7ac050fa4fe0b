"""`repr` shows a few lines, however large the arrays are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS
from zoo.core.short import short, short_call


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 70), np.float32), "float32[3,70]"),
        (jnp.zeros((100,), jnp.bfloat16), "bfloat16[100]"),
        (np.array([1.5, -2.0]), "[ 1.5,-2. ]"),
        (jax.random.key(0), "key<fry>[]"),
        ({"a": np.zeros(9), "b": 1}, "{'a': float64[9], 'b': 1}"),
        (functools.partial(short_call, name=3), "short_call(name=3)"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        (zoo.Groups.of(4), "Groups(ids=[0,0,0,0], parents=None, whole_episodes=False, sensitivity=None)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_on_one_line(value, text):
    assert short(value) == text


def test_traced_values_have_a_text():
    seen = []
    jax.eval_shape(lambda x: seen.append(short({"x": x})), jnp.zeros(2))
    assert seen == ["{'x': float32[2]}"]


PROBLEMS = [
    "blackbox/rastrigin",
    "rl/CartPole-v1",
    "supervised/digits",
    "unrolled/learned_optimizer",
    "unrolled/lorenz",
]


def test_settings_are_few_lines():
    for made in (*map(zoo.make_strategy, IDS), *map(zoo.make_problem, PROBLEMS)):
        lines = repr(made).splitlines()
        assert len(lines) <= 15
        assert lines[0].startswith(f"{type(made).__name__}(")
        assert max(map(len, lines)) <= 104
        assert "space=" not in repr(made)  # `space` is not a setting


def test_results_are_few_lines():
    problem = zoo.from_function(lambda x: jnp.sum(x["w"] ** 2), {"w": jnp.ones((40, 50))}, data=())
    result = zoo.run("random_search", problem, num_generations=1, num_scores=1)
    lines = repr(result).splitlines()
    assert lines[0] == "<RunResult: RandomSearch on FunctionProblem; ended by budget"
    assert lines[-1] == "  mean: {'w': float32[40,50]}>"
    assert len(lines) == 5
    ticket = zoo.Ticket(mask=result.mean, solution=result.mean, kept=0.25)
    assert repr(ticket) == "<Ticket: 25.0% of the weights kept; {}; not trained\n  solution: {'w': float32[40,50]}>"
    tickets = zoo.Tickets({"snr": []}, {}, {"num_seeds": 3})
    assert repr(tickets) == "<Tickets: 3 seeds\n  snr: 0 rounds>"
    assert repr(zoo.Results([], {"num_seeds": 2})).startswith("<Results: 0 pairs, 0 failed, 2 seeds")
