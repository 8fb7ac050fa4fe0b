"""Every setting of every strategy, and of problems of each kind, refuses wrong values in one line that names it."""

import dataclasses
from typing import Literal, get_args, get_origin

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.registry import valid_settings

PROBLEMS = [
    "blackbox/sphere",
    "rl/CartPole-v1",
    "rl/gymnasium/CartPole-v1",
    "supervised/accuracy_pipeline",
    "supervised/digits",
    *(id for id in zoo.list_problems() if id.startswith("unrolled/")),
]
STRATEGIES = [id for id in zoo.list_strategies() if "/" not in id or id in ("evosax/CMA_ES", "evosax/Open_ES")]
NO_NUMBERS = (True, np.nan, 1j, "x", b"x", np.array([1.0, np.nan]), np.array(["a"]), {1: 2}.keys(), object(), 10**400)
"""The first is a value of a boolean setting."""
ANYTHING = (*NO_NUMBERS, np.inf, -1, 2.5, "", -np.ones(3), object, len, {}, [], (), {"a": 1}, [None], None)


def complaint(make, id, name, value):
    """Returns the message that refuses a value, or `None` if the value is taken."""
    try:
        make(id, **{name: value})
    except (TypeError, ValueError) as error:
        message = str(error)
        assert "\n" not in message, (id, name, value)
        return message
    return None


@pytest.mark.parametrize(
    ("make", "kind", "ids"), [(zoo.make_strategy, "strategy", STRATEGIES), (zoo.make_problem, "problem", PROBLEMS)]
)
def test_what_a_setting_cannot_be(make, kind, ids):
    """Every value is taken, or refused in one line with a TypeError or ValueError."""
    for id in ids:
        fields = {field.name: field for field in dataclasses.fields(make(id))}
        for name in valid_settings(id, kind):
            field, refused = fields.get(name), {}
            for number, value in enumerate(ANYTHING):
                refused[number] = complaint(make, id, name, value)
            if field is None:  # a setting of the function that makes it
                continue
            bounds = field.metadata.get("zoo_bounds", {})
            always = NO_NUMBERS if bounds.get("number") or "at_least" in bounds else ()
            for number, value in enumerate(always):
                message = refused[number]
                assert message is not None, (id, name, value)
                assert f".{name}" in message, (id, name, value, message)
            if field.type is bool or get_origin(field.type) is Literal:
                assert {number for number in refused if refused[number] is None} <= {0}, (id, name)
            if get_origin(field.type) is Literal:
                assert refused[0] is not None, (id, name)
                make(id, **{name: get_args(field.type)[0]})


def test_infinite_numbers_and_negative_arrays():
    for settings in ({"sigma": np.inf}, {"sigma": -jnp.ones(3)}, {"sigma": {"w": 1.0, "b": -1.0}}):
        with pytest.raises(ValueError, match=r"CMAES\.sigma(\['b'\])? must be (finite|greater than 0), got (inf|-1)"):
            zoo.make_strategy("cma_es", **settings)
