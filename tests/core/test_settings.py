"""Settings: bounds, types, leaves and static fields."""

import dataclasses
import importlib
import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import leaf, number, static
from zoo.core.settings import PytreeDataclass


class Inner(PytreeDataclass):
    rate: float = number(1.0)


class Settings(PytreeDataclass):
    size: int | None = static(None, at_least=2)
    count: int = static(1, at_least=1)
    hidden: tuple[int, ...] = static((8,), at_least=1)
    flag: bool = static(False)
    choice: Literal["a", "b"] | None = static("a")
    call: Callable[[Any], Any] | None = static(None)
    either: str | Callable[..., Any] = static("x")
    anything: Any = static(None)
    pair: tuple[float, float] | None = leaf(None)
    inner: Inner | None = leaf(None)
    sigma: float = number(0.1, above=0)
    rate: float = number(0.5, at_least=-1)
    free: float = number(0.0)
    endless: float = number(1.0, above=0, finite=False)
    extra: float | None = number(None, at_least=0)
    data: Any = leaf(None)


class Child(Settings):
    sigma: float = number(2.0, above=1)
    required: int = static(at_least=0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sigma", 0.0, "greater than 0, got 0.0"),
        ("sigma", -0.1, "greater than 0, got -0.1"),
        ("sigma", 0, "greater than 0, got 0"),
        ("sigma", float("nan"), "finite, got nan"),
        ("sigma", float("inf"), "finite, got inf"),
        ("free", -np.inf, "finite, got -inf"),
        ("free", 10**400, "a number that a float can hold"),
        ("endless", np.nan, "a number, got nan"),
        ("sigma", np.array([0.1, -0.5]), "greater than 0, got -0.5 in an array"),
        ("sigma", jnp.array([0.1, jnp.nan]), "finite, got nan"),
        ("hidden", (8, 0), "at least 1, got 0"),
        ("sigma", np.float32(-1), "greater than 0"),
        ("rate", -1.01, "at least -1, got -1.01"),
        ("rate", float("nan"), "finite, got nan"),
        ("extra", -1, "at least 0, got -1"),
        ("size", 1, "at least 2, got 1"),
        ("size", -5, "at least 2, got -5"),
        ("size", np.int64(1), "at least 2"),
        ("count", 0, "at least 1, got 0"),
    ],
)
def test_out_of_bounds(name, value, expected):
    with pytest.raises(ValueError, match=rf"Settings\.{name} must be {expected}"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("sigma", 1e-30), ("rate", -1.0), ("rate", -1), ("extra", 0.0), ("extra", None), ("size", 2), ("size", None)],
)
def test_values_at_the_bounds_are_valid(name, value):
    assert getattr(Settings(**{name: value}), name) == value


def test_annotations_may_be_text(tmp_path, monkeypatch):
    code = """
from __future__ import annotations

import zoo
from zoo.core.settings import PytreeDataclass

class Text(PytreeDataclass):
    size: int | None = zoo.static(default=None, at_least=1)
    count: int = zoo.static(default=1, at_least=1)
    extra: float | None = zoo.number(default=None, at_least=0)
"""
    (tmp_path / "with_text_annotations.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    text = importlib.import_module("with_text_annotations").Text
    settings = text()
    assert (settings.size, settings.count, settings.extra) == (None, 1, None)
    assert text(size=4).replace(size=None).size is None
    with pytest.raises(ValueError, match=r"Text\.size must be at least 1"):
        text(size=0)


def test_free_numbers_have_no_bounds_of_their_own():
    assert Settings(free=-1e9).free == -1e9
    assert Settings(endless=float("inf")).endless == float("inf")


@pytest.mark.parametrize(
    ("name", "value", "error", "expected"),
    [
        ("flag", 1, TypeError, "True or False, got 1"),
        ("flag", "yes", TypeError, "True or False"),
        ("choice", "c", ValueError, "'a' or 'b', got 'c'"),
        ("choice", 3, TypeError, "'a' or 'b', got 3"),
        ("call", 3, TypeError, "a function, got 3"),
        ("call", "cos", TypeError, "a function, got"),
        ("either", 3, TypeError, "text or a function, got 3"),
        ("hidden", 8.5, TypeError, r"whole numbers such as \(32, 32\), got 8.5"),
        ("count", 2**31, ValueError, "at most 2147483647"),
        ("pair", (1.0,), TypeError, "2 numbers, got"),
        ("pair", (1.0, jnp.nan), TypeError, "2 numbers"),
        ("inner", 3, TypeError, "a Inner, got 3"),
        ("hidden", (8.5,), TypeError, "whole numbers"),
    ],
)
def test_a_static_setting_is_what_its_annotation_says(name, value, error, expected):
    with pytest.raises(error, match=rf"Settings\.{name} must be {expected}"):
        Settings(**{name: value})


def test_static_settings_take_what_they_may_be():
    settings = Settings(
        flag=np.bool_(True), choice=None, call=len, either=len, hidden=[3, np.int64(4)], anything={1: 2}
    )
    assert settings.flag is True
    assert settings.hidden == (3, 4)
    assert Settings(hidden=3).hidden == (3,)
    assert Settings(pair=[1, jnp.ones(())], inner=Inner()).inner == Inner()
    assert [type(x) for x in settings.hidden] == [int, int]
    with pytest.raises(TypeError, match=r"Settings\.anything is part of the compiled program and cannot be an array"):
        Settings(anything=np.ones(3))


@pytest.mark.parametrize(
    "value",
    [
        "0.1",
        b"0.1",
        True,
        False,
        None,
        (0.1,),
        {"a": 0.1},
        1j,
        np.complex64(1),
        np.ones(2, complex),
        np.array(["a"]),
        len,
    ],
)
def test_a_number_of_the_wrong_type(value):
    with pytest.raises(TypeError, match=r"Settings\.sigma must be a number, got"):
        Settings(sigma=value)


def test_a_list_is_not_a_number():
    with pytest.raises(TypeError, match=r"Settings\.sigma must be a number, got"):
        Settings(sigma=[0.1, 0.2])


@pytest.mark.parametrize("value", ["3", True, 3.0, 2.5, np.float32(3), (3,)])
def test_a_whole_number_of_the_wrong_type(value):
    with pytest.raises(TypeError, match=r"Settings\.count must be a whole number, got"):
        Settings(count=value)


def test_a_list_is_not_a_whole_number():
    with pytest.raises(TypeError, match=r"Settings\.count must be a whole number, got"):
        Settings(count=[3])


@pytest.mark.parametrize("value", [np.int64(7), np.int32(7), np.uint8(7), 7])
def test_numpy_whole_numbers_become_python_ones(value):
    settings = Settings(size=value, count=value)
    assert type(settings.size) is int
    assert type(settings.count) is int
    assert settings == Settings(size=7, count=7)
    assert jax.tree.structure(settings) == jax.tree.structure(Settings(size=7, count=7))


def test_whole_numbers_for_leaves_become_floats():
    settings = Settings(sigma=3, rate=-1, extra=2)
    for name, expected in (("sigma", 3.0), ("rate", -1.0), ("extra", 2.0)):
        assert type(getattr(settings, name)) is float
        assert getattr(settings, name) == expected


@pytest.mark.parametrize("value", [np.int64(3), np.int32(3)])
def test_numpy_whole_numbers_for_leaves_become_floats(value):
    settings = Settings(sigma=value)
    assert settings.sigma == 3.0
    assert jnp.issubdtype(jnp.result_type(settings.sigma), jnp.floating)


def _count_traces(instances):
    traces = 0

    @jax.jit
    def use(settings):
        nonlocal traces
        traces += 1
        return settings.sigma * settings.rate

    results = [float(use(settings)) for settings in instances]
    return traces, results


def test_changing_a_number_does_not_recompile():
    traces, results = _count_traces([Settings(sigma=0.5), Settings(sigma=4), Settings(sigma=8, rate=1)])
    assert results == [0.25, 2.0, 8.0]
    assert traces == 1


def test_sweeping_a_number_with_numpy_does_not_recompile():
    values = [0.5, *np.linspace(1, 2, 3), np.float32(0.5), np.int64(4)]
    traces, results = _count_traces([Settings(sigma=value) for value in values])
    assert results == [0.25, 0.5, 0.75, 1.0, 0.25, 2.0]
    assert traces == 1


def test_changing_a_static_setting_recompiles():
    traces, _ = _count_traces([Settings(), Settings(size=4), Settings(hidden=(4,)), Settings(flag=True), Settings()])
    assert traces == 4


def test_lists_of_static_settings_become_tuples():
    settings = Settings(hidden=[4, 5])
    assert settings.hidden == (4, 5)
    assert jax.tree.structure(settings) == jax.tree.structure(Settings(hidden=(4, 5)))
    hash(jax.tree.structure(settings))


def test_a_leaf_keeps_its_structure():
    data = [jnp.zeros(2), {"a": [jnp.ones(1)]}]
    assert jax.tree.structure(Settings(data=data).data) == jax.tree.structure(data)


def test_frozen():
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.sigma = 0.2
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.size = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        del settings.sigma
    assert settings == Settings()


def test_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Settings(3)


def test_unknown_and_missing_settings():
    with pytest.raises(TypeError, match="sigam"):
        Settings(sigam=0.1)
    with pytest.raises(TypeError, match="required"):
        Child()


def test_replace():
    settings = Settings(size=4, sigma=0.2)
    changed = settings.replace(sigma=3, hidden=[1, 2])
    assert type(changed) is Settings
    assert (changed.size, changed.sigma, changed.hidden) == (4, 3.0, (1, 2))
    assert type(changed.sigma) is float
    assert (settings.sigma, settings.hidden) == (0.2, (8,))
    with pytest.raises(ValueError, match=r"Settings\.sigma must be greater than 0"):
        settings.replace(sigma=-1.0)
    with pytest.raises(TypeError, match=r"Settings\.count must be a whole number"):
        settings.replace(count=1.5)
    with pytest.raises(TypeError, match="sigam"):
        settings.replace(sigam=1.0)


def test_a_subclass_inherits_and_overrides_settings():
    child = Child(required=0, size=3)
    assert (child.size, child.sigma, child.rate) == (3, 2.0, 0.5)
    with pytest.raises(ValueError, match=r"Child\.sigma must be greater than 1, got 0.5"):
        Child(required=0, sigma=0.5)
    with pytest.raises(ValueError, match=r"Child\.size must be at least 2"):
        Child(required=0, size=1)
    with pytest.raises(ValueError, match=r"Child\.required must be at least 0"):
        Child(required=-1)
    assert Settings(sigma=0.5).sigma == 0.5


def test_numbers_are_leaves_and_the_rest_is_static():
    settings = Settings(size=4, sigma=0.2, rate=0.3, free=0.4, extra=0.5, data={"x": 0.6})
    assert jax.tree.leaves(settings) == [0.2, 0.3, 0.4, 1.0, 0.5, 0.6]
    assert jax.tree.structure(settings) != jax.tree.structure(settings.replace(size=5))
    assert jax.tree.structure(settings) != jax.tree.structure(settings.replace(flag=True))
    assert jax.tree.structure(settings) == jax.tree.structure(settings.replace(sigma=0.9))
    doubled = jax.tree.map(lambda x: 2 * x, settings)
    assert doubled == settings.replace(sigma=0.4, rate=0.6, free=0.8, endless=2.0, extra=1.0, data={"x": 1.2})


@pytest.mark.parametrize("placeholder", [object(), jax.ShapeDtypeStruct((), jnp.float32), jnp.zeros(3), -jnp.ones(())])
def test_placeholders_and_arrays_pass_the_checks(placeholder):
    settings = jax.tree.map(lambda _: placeholder, Settings(data=1.0))
    assert settings.sigma is placeholder
    assert settings.data is placeholder
    assert settings.count == 1


def test_tracers_pass_the_checks():
    def use(settings):
        return settings.replace(sigma=settings.sigma - 1.0).sigma * settings.rate  # sigma becomes negative

    settings = Settings(sigma=0.5, rate=2.0)
    assert float(jax.jit(use)(settings)) == -1.0
    assert float(jax.grad(use)(settings).sigma) == 2.0
    sigmas = jnp.array([1.0, 2.0, 3.0])
    assert jax.vmap(lambda sigma: use(settings.replace(sigma=sigma)))(sigmas).tolist() == [0.0, 2.0, 4.0]
    swept = Settings(sigma=sigmas, rate=jnp.array([1.0, 1.0, 2.0]), free=jnp.zeros(3), endless=sigmas)
    assert jax.vmap(use)(swept).tolist() == [0.0, 1.0, 4.0]
    assert jax.eval_shape(use, settings).shape == ()


def test_classes_of_equal_fields_have_structures_of_their_own():
    """Classes with equal fields differ in structure. Otherwise `jit` could run the program of the other class."""

    class One(PytreeDataclass):
        rate: float = number(1.0)
        size: int = static(3)

    class Other(PytreeDataclass):
        rate: float = number(1.0)
        size: int = static(3)

    one, same, other = (jax.tree.structure(made) for made in (One(), One(rate=2.0), Other()))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != jax.tree.structure(One(size=4))


def test_no_two_strategies_have_equal_structures():
    problem = zoo.from_function(jnp.sum, jnp.zeros(4))
    ids = [id for id in zoo.list_strategies() if "/" not in id and id not in ("pycma", "masked")]
    structures = [jax.tree.structure(zoo.make_strategy(id, problem=problem)) for id in ids]
    equal = [pair for pair in itertools.combinations(range(len(ids)), 2) if structures[pair[0]] == structures[pair[1]]]
    assert equal == []


def test_what_is_set_by_code_around_is_not_shown():
    strategy = zoo.make_strategy("snes")
    assert "space" in {field.name for field in dataclasses.fields(strategy)}
    assert "space" not in repr(strategy)
