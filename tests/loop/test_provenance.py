"""What a run was: its settings as JSON, and the fingerprint that distinguishes two runs."""

import functools
import json
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from zoo.core.settings import PytreeDataclass
from zoo.loop.provenance import _describe_environment, describe_settings, describe_value, fingerprint


class Settings(PytreeDataclass):
    size: int | None = zoo.static(None)
    sigma: float = zoo.number(0.1)
    function: Any = zoo.static(None)
    data: Any = zoo.leaf(None)


class Net(nn.Module):
    features: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features)(x)


def bowl(x):
    return jnp.sum(x**2)


def test_settings_by_name_with_the_class():
    described = describe_settings(Settings(size=4, sigma=2, data={"a": 1.5, "b": [None, True, "x"]}))
    assert described == {
        "class": f"{__name__}:Settings",
        "size": 4,
        "sigma": 2.0,
        "function": None,
        "data": {"a": 1.5, "b": [None, True, "x"]},
    }


@pytest.mark.parametrize("id", zoo.list_strategies())
def test_every_strategy_is_json_able(id):
    described = describe_settings(zoo.make_strategy(id, population_size=6))
    assert json.loads(json.dumps(described)) == described
    assert described["population_size"] == 6


@pytest.mark.parametrize("id", ["blackbox/sphere", "rl/CartPole-v1", "supervised/digits"])
def test_problems_are_json_able(id):
    described = describe_settings(zoo.make_problem(id))
    assert json.loads(json.dumps(described)) == described
    assert fingerprint(described) == fingerprint(describe_settings(zoo.make_problem(id)))


def test_arrays_are_described_by_shape_dtype_and_content():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    described = describe_value(array)
    assert described["shape"] == [2, 3]
    assert described["dtype"] == "float32"
    assert described == describe_value(jnp.asarray(array))
    changed = array.copy()
    changed[1, 2] += 1e-6
    others = [changed, array.astype(np.float16), array.reshape(3, 2), array.T.copy(), array.astype(np.int32)]
    assert all(describe_value(other) != described for other in others)
    # The content matters, not the order in memory.
    assert describe_value(np.asfortranarray(array)) == described


def test_scalars_become_python_numbers():
    for value, expected in (
        (np.float64(0.25), 0.25),
        (np.int32(3), 3),
        (jnp.asarray(0.5), 0.5),
        (np.bool_(True), True),
    ):
        described = describe_value(value)
        assert described == expected
        json.dumps(described)


def test_random_keys_are_described_by_their_data():
    one, two = jax.random.key(1), jax.random.key(2)
    assert describe_value(one) == describe_value(jax.random.key(1))
    assert describe_value(one) != describe_value(two)
    assert describe_value(jax.random.split(one)) != describe_value(jax.random.split(two))
    json.dumps(describe_value(one))


def test_callables_by_name():
    assert describe_value(bowl) == f"{__name__}:bowl"
    assert describe_value(Net) == f"{__name__}:Net"
    assert describe_settings(zoo.from_function(bowl, jnp.zeros(2)))["fn"] == f"{__name__}:bowl"
    adam = describe_settings(zoo.make_strategy("open_es", optimizer=optax.adam))
    sgd = describe_settings(zoo.make_strategy("open_es", optimizer=optax.sgd))
    assert adam["optimizer"].endswith(":adam")
    assert fingerprint(adam) != fingerprint(sgd)


def test_functions_without_a_telling_name_are_told_apart():
    def scaled(factor):
        return lambda x: factor * x

    one, two = scaled(1.0), scaled(2.0)
    assert describe_value(one) != describe_value(two)
    assert describe_value(one) == describe_value(scaled(1.0))
    assert describe_value(lambda x: x + 1) != describe_value(lambda x: x + 2)
    json.dumps(describe_value(one))


def test_a_local_function_may_call_itself():
    def power(x, n):
        return 1 if n == 0 else x * power(x, n - 1)

    assert describe_value(power) == describe_value(power)
    json.dumps(describe_value(power))


def test_partial_functions_are_described_without_their_address():
    one, two = functools.partial(optax.sgd, momentum=0.9), functools.partial(optax.sgd, momentum=0.5)
    assert " at 0x" not in str(describe_value(one))
    assert describe_value(one) == describe_value(functools.partial(optax.sgd, momentum=0.9))
    assert describe_value(one) != describe_value(two)


def test_objects_without_a_repr_are_described_without_their_address():
    class Plain:
        pass

    assert " at 0x" not in str(describe_value(Plain()))


def test_flax_modules():
    described = describe_value(Net(features=5))
    json.dumps(described)
    assert described == describe_value(Net(features=5))
    assert described != describe_value(Net(features=6))
    assert "parent" not in described
    assert describe_value(nn.Dense(3)) == describe_value(nn.Dense(3))
    assert describe_value(nn.Dense(3)) != describe_value(nn.Dense(4))
    # A module that was used inside another one, or initialised, is still the same module.
    module = Net(features=5)
    module.init(jax.random.key(0), jnp.zeros((1, 2)))
    assert describe_value(module) == described


def test_the_fingerprint_changes_with_any_setting():
    base = Settings(size=4, sigma=0.1, function=bowl, data=(jnp.arange(3.0),))
    changed = [
        base.replace(size=5),
        base.replace(sigma=0.2),
        base.replace(function=None),
        base.replace(data=(jnp.arange(3.0) + 1,)),
        base.replace(data=(jnp.arange(3.0), jnp.arange(3.0))),
        base.replace(data=None),
    ]
    prints = [fingerprint(describe_settings(settings)) for settings in [base, *changed]]
    assert len(set(prints)) == len(prints)
    assert fingerprint(describe_settings(base.replace(size=4))) == prints[0]


def test_the_fingerprint_is_stable():
    assert fingerprint({"a": 1, "b": [1.5, None, "x"]}) == fingerprint({"b": [1.5, None, "x"], "a": 1})
    assert fingerprint({"a": 1}) == "f9d86028c6e0d64e"  # SHA-256 of '{"a": 1}'
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "import zoo, optax\n"
        "from zoo.loop.provenance import describe_settings, fingerprint\n"
        "settings = [zoo.make_strategy('open_es', optimizer=optax.sgd), zoo.make_problem('supervised/digits')]\n"
        "print(*(fingerprint(describe_settings(s)) for s in settings))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    settings = [zoo.make_strategy("open_es", optimizer=optax.sgd), zoo.make_problem("supervised/digits")]
    assert there == [fingerprint(describe_settings(s)) for s in settings]


def test_environment():
    environment = _describe_environment()
    json.dumps(environment)
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["device"]["platform"] == jax.devices()[0].platform
    assert environment["device"]["count"] == jax.device_count()
    assert "git_commit" in environment


def test_without_git_there_is_no_commit(monkeypatch):
    def no_git(*_args, **_kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert _describe_environment()["git_commit"] is None
