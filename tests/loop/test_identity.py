"""The identity of a program: code by what it computes, numbers, and versions."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import IDS
from zoo.loop import identity
from zoo.loop.host_code import digest_of_host_code
from zoo.loop.identity import Identity, identify

SNES = zoo.make_strategy("snes", population_size=4)
BOWL = zoo.from_function(lambda x: jnp.sum(x**2), jnp.zeros(3))

PRELUDE = """
import functools
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import zoo
from zoo.strategies.distribution.snes import SNES
"""


def execute(source, name="user_code"):
    """Runs a source text as a module of its own, and returns the module."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(PRELUDE + textwrap.dedent(source), f"{name}.py", "exec"), vars(module))
    return module


def identity_of(source):
    """Returns the identity of what a source text defines: a problem, a strategy, or a host function."""
    module = execute(source)
    problem = getattr(module, "problem", BOWL)
    if hasattr(module, "fn"):
        problem = zoo.from_python(module.fn, np.zeros(3))
    elif hasattr(module, "loss"):
        problem = zoo.from_function(module.loss, jnp.zeros(3))
    return identify(getattr(module, "strategy", SNES), problem)


def edited(source, old, new):
    assert old in source
    return source.replace(old, new)


def differ(one, other):
    return one.differences(json.loads(json.dumps(other.facts())))


# Source text, the text to replace, and its replacement. `loss` is a traced function, `fn` a host function.
TRACED = {
    "body": ("def loss(x): return jnp.sum(x - 3.0)", "3.0", "4.0"),
    "method of a problem": (
        """
        class Mine(zoo.Problem):
            def initial_solution(self, key): return jnp.zeros(3)
            def fitness(self, key, x): return jnp.sum(x ** 2)
            def score(self, key, x): return {"fitness": jnp.sum(x ** 2)}
        problem = Mine()
        """,
        "{'fitness': jnp.sum(x ** 2)}".replace("'", '"'),
        '{"fitness": jnp.sum(x ** 4)}',
    ),
    "initial solution of a problem": (
        "problem = zoo.from_function(lambda x: jnp.sum(x**2), lambda key: jnp.full(3, 1.0))",
        "1.0",
        "2.0",
    ),
    "step of an unrolled problem": (
        """
        class Mine(zoo.UnrolledProblem):
            horizon: int | None = zoo.static(4)
            def initial_solution(self, key): return jnp.zeros(3)
            def reset(self, key): return jnp.zeros(3)
            def step(self, key, x, inner): return inner + x, jnp.sum((inner - 1.0) ** 2), False
        problem = Mine()
        """,
        "inner - 1.0",
        "inner - 2.0",
    ),
    "method of a strategy": (
        """
        class Mine(SNES):
            def _tell(self, state, population, evaluation):
                state = super()._tell(state, population, evaluation)
                return state._replace(mean=0.5 * state.mean)
        strategy = Mine(population_size=4)
        """,
        "0.5",
        "0.25",
    ),
    "network": (
        """
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x): return nn.Dense(1)(jnp.tanh(x))
        net = Net()
        def loss(x): return net.apply({"params": {"Dense_0": {"kernel": x[:, None], "bias": x[:1]}}}, x)[0]
        """,
        "jnp.tanh",
        "jnp.sin",
    ),
    "bound method of another object": (
        """
        class Task:
            def __init__(self, center): self.center = center
            def loss(self, x): return jnp.sum((x - self.center) ** 2)
        loss = Task(1.0).loss
        """,
        "Task(1.0)",
        "Task(2.0)",
    ),
    "inner function of a partial": (
        """
        def shifted(x, by): return jnp.sum((x - by) ** 2)
        loss = functools.partial(shifted, by=1.0)
        """,
        "** 2",
        "** 4",
    ),
    "inner function of a jit": (
        """
        @jax.jit
        def loss(x): return jnp.sum(x ** 2)
        """,
        "** 2",
        "** 4",
    ),
    "tuple": ("def loss(x): return jnp.sum((x - jnp.array((1.0, 2.0, 3.0))) ** 2)", "3.0", "4.0"),
    "nested lambda": ("def loss(x): return jnp.sum((lambda y: y - 1.0)(x) ** 2)", "1.0", "2.0"),
    "comprehension": ("def loss(x): return sum(x[i] ** 2 for i in range(3) if i < 2)", "i < 2", "i < 3"),
    "closure over a function": (
        """
        def make():
            def inner(x): return x - 1.0
            def outer(x): return jnp.sum(inner(x) ** 2)
            return outer
        loss = make()
        """,
        "1.0",
        "2.0",
    ),
    "global": ("center = 1.0\ndef loss(x): return jnp.sum((x - center) ** 2)", "center = 1.0", "center = 2.0"),
    "middle of a big array": (
        "data = np.zeros(5000, np.float32); data[2500] = 1.0\ndef loss(x): return jnp.sum(data) * jnp.sum(x ** 2)",
        "= 1.0",
        "= 2.0",
    ),
    "optimizer": (
        """
        strategy = zoo.make_strategy(
            "open_es", population_size=4, optimizer=lambda rate: optax.chain(optax.clip(0.1), optax.sgd(rate))
        )
        """,
        "0.1",
        "0.2",
    ),
    "which of two arguments is used": (
        "problem = zoo.from_function(lambda x, a, b: jnp.sum(x) + a, jnp.zeros(3), data=(1.0, 1.0))",
        "+ a",
        "+ b",
    ),
    "dtype of a number": (
        "problem = zoo.from_function(lambda x: jnp.sum(x), np.float16(0.5))",
        "float16",
        "float32",
    ),
    "gradient": (
        """
        class Mine(zoo.Problem):
            def initial_solution(self, key): return jnp.zeros(3)
            def fitness(self, key, x): return jnp.sum(x ** 2)
            def gradient(self, key, x): return 2.0 * x
        problem, strategy = Mine(), zoo.make_strategy("guided_es", population_size=4)
        """,
        "2.0 * x",
        "3.0 * x",
    ),
    "backward pass": (
        """
        @jax.custom_vjp
        def loss(x): return jnp.sum(x)
        loss.defvjp(lambda x: (loss(x), x), lambda x, g: (2.0 * g * x,))
        problem, strategy = zoo.from_function(loss, jnp.zeros(3)), zoo.make_strategy("bptt", population_size=4)
        """,
        "2.0",
        "3.0",
    ),
    "callback in a loop": (
        """
        host = zoo.from_numpy(lambda x: 2.0 * x, result=jax.ShapeDtypeStruct((), jnp.float32))
        def loss(x): return jax.lax.fori_loop(0, 3, lambda i, y: y + host(y), x[0])
        """,
        "2.0",
        "3.0",
    ),
    "groups of a strategy": (
        """
        class Mine(SNES):
            @property
            def groups(self): return zoo.Groups.of(4, 2)
        strategy = Mine(population_size=4)
        """,
        "4, 2",
        "4, 1",
    ),
    "rule by which a strategy follows derivatives": (
        """
        from zoo.strategies.gradient.rtrl import RTRL, Jacobian
        class Rule(Jacobian):
            def step(self, *args):
                out, carried, gradient = super().step(*args)
                return out, carried, jax.tree.map(lambda g: 1.0 * g, gradient)
        class Mine(RTRL):
            @property
            def sensitivity(self): return Rule()
        strategy = Mine(population_size=2)
        """,
        "1.0 * g",
        "2.0 * g",
    ),
    "name of what is said of members": (
        """
        def loss(x): return jnp.sum(x), {"violation": x[0]}
        problem = zoo.from_function(loss, jnp.zeros(3), has_aux=True)
        del loss
        """,
        "violation",
        "excess",
    ),
    "name of a metric": (
        """
        class Mine(zoo.Problem):
            def initial_solution(self, key): return jnp.zeros(3)
            def fitness(self, key, x): return jnp.sum(x ** 2)
            def score(self, key, x): return {"fitness": jnp.sum(x), "other": jnp.sum(x)}
        problem = Mine()
        """,
        '"other"',
        '"another"',
    ),
}
HOST = {
    "body": ("def fn(x): return np.sum(x - 3.0)", "3.0", "4.0"),
    "operation": ("def fn(x): return np.sum(x + 3.0)", "+", "-"),
    "attribute": ("def fn(x): return np.sum(x)", "np.sum", "np.max"),
    "tuple": ("def fn(x): return np.sum(x - (1.0, 2.0, 3.0))", "3.0", "4.0"),
    "nested lambda": ("def fn(x): return (lambda y: np.sum(y) - 1.0)(x)", "1.0", "2.0"),
    "comprehension": ("def fn(x): return sum(y ** 2 for y in x if y < 2)", "y < 2", "y < 3"),
    "set": ("def fn(x): return np.sum(x) if len(x) in {3, 5} else 0.0", "{3, 5}", "{3, 6}"),
    "name of an argument": ("def of(x, a=1, b=1): return x[0] * a / b\ndef fn(x): return of(x, a=2)", "a=2)", "b=2)"),
    "network": (
        """
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x): return 2.0 * nn.Dense(1)(x)
        net = Net()
        def fn(x): return net.apply({"params": {"Dense_0": {"kernel": x[:, None], "bias": x[:1]}}}, x)[0]
        """,
        "2.0",
        "3.0",
    ),
    "class of a class": (
        """
        class Meta(type):
            @property
            def center(self): return 1.0
        class Task(metaclass=Meta): pass
        def fn(x): return np.sum(x - Task.center)
        """,
        "1.0",
        "2.0",
    ),
    "problem of its own": (
        """
        from zoo.host.problem import HostFunction, HostProblem
        class Mine(HostProblem):
            def initial_solution(self, key): return jnp.zeros(3)
            @property
            def host_function(self): return HostFunction(self.simulate)
            def simulate(self, x): return np.sum(x - 1.0)
        problem = Mine()
        """,
        "1.0",
        "2.0",
    ),
    "cached property": (
        """
        class Task:
            @functools.cached_property
            def center(self): return 1.0
            def value(self, x): return np.sum(x - self.center)
        fn = Task().value
        """,
        "1.0",
        "2.0",
    ),
    "default": ("def fn(x, a=1.0): return np.sum(x) * a", "a=1.0", "a=2.0"),
    "keyword default": ("def fn(x, *, a=1.0): return np.sum(x) * a", "a=1.0", "a=2.0"),
    "global": ("center = 1.0\ndef fn(x): return np.sum((x - center) ** 2)", "center = 1.0", "center = 2.0"),
    "global of a nested function": (
        "center = 1.0\ndef fn(x): return (lambda y: np.sum(y - center))(x)",
        "center = 1.0",
        "center = 2.0",
    ),
    "function it calls": ("def helper(x): return x - 1.0\ndef fn(x): return np.sum(helper(x))", "1.0", "2.0"),
    "class it makes": (
        """
        class Task:
            power = 2
            def value(self, x): return np.sum(x ** self.power)
        def fn(x): return Task().value(x)
        """,
        "power = 2",
        "power = 4",
    ),
    "base of a class": (
        """
        class Base:
            def value(self, x): return np.sum(x ** 2)
        class Task(Base): pass
        fn = Task().value
        """,
        "** 2",
        "** 4",
    ),
    "object of a bound method": (
        """
        class Task:
            def __init__(self, data): self.data = data
            def value(self, x): return np.sum(x - self.data[1])
        fn = Task({1: [1.0, 2.0]}[1]).value
        """,
        "2.0",
        "3.0",
    ),
    "property": (
        """
        class Task:
            @property
            def center(self): return 1.0
            def __call__(self, x): return np.sum(x - self.center)
        fn = Task()
        """,
        "1.0",
        "2.0",
    ),
    "closure": (
        """
        def make(center):
            def inner(x): return x - center
            return lambda x: np.sum(inner(x))
        fn = make(1.0)
        """,
        "make(1.0)",
        "make(2.0)",
    ),
    "inner function of a partial": (
        "def shifted(x, by): return np.sum(x - by) ** 2\nfn = functools.partial(shifted, by=1.0)",
        "** 2",
        "** 4",
    ),
    "argument of a partial": (
        "def shifted(x, by): return np.sum(x - by) ** 2\nfn = functools.partial(shifted, by=1.0)",
        "by=1.0",
        "by=2.0",
    ),
    "wrapped as NumPy's": (
        """
        @functools.wraps(np.sum)
        def fn(x): return np.sum(x - 1.0)
        """,
        "1.0",
        "2.0",
    ),
    "cached": (
        """
        @functools.lru_cache
        def center(): return 1.0
        def fn(x): return np.sum(x - center())
        """,
        "1.0",
        "2.0",
    ),
    "jitted": (
        """
        @jax.jit
        def inner(x): return jnp.sum(x - 1.0)
        def fn(x): return float(inner(x))
        """,
        "1.0",
        "2.0",
    ),
    "middle of a big array": (
        "data = np.zeros(5000); data[2500] = 1.0\ndef fn(x): return data.sum() * np.sum(x)",
        "= 1.0",
        "= 2.0",
    ),
    "generator": (
        "noise = np.random.default_rng(1)\ndef fn(x): return np.sum(x) + noise.normal()",
        "default_rng(1)",
        "default_rng(2)",
    ),
    "import": ("def fn(x):\n    from math import sin\n    return sin(x[0])", "sin", "cos"),
}
CASES = [(kind, name) for kind, cases in (("traced", TRACED), ("host", HOST)) for name in cases]


def case(kind, name):
    return (TRACED if kind == "traced" else HOST)[name]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda each: each)
def test_another_program(kind, name):
    source, old, new = case(kind, name)
    before, after, again = (identity_of(s) for s in (source, edited(source, old, new), source))
    assert differ(before, again) == []
    assert before.unseen == []
    assert differ(before, after)


@pytest.mark.parametrize("fn", ["loss", "fn"])
def test_a_helper_in_another_module(fn, monkeypatch):
    library = {"loss": "jnp", "fn": "np"}[fn]
    found = []
    for center in ("1.0", "1.0", "2.0"):
        monkeypatch.setitem(sys.modules, "user_helper", execute(f"def shift(x): return x - {center}", "user_helper"))
        found.append(identity_of(f"import user_helper\ndef {fn}(x): return {library}.sum(user_helper.shift(x))"))
    assert differ(found[0], found[1]) == []
    assert differ(found[0], found[2]) == ["code of the problem"]


def test_a_module_that_the_host_imports_when_it_is_called(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for center in ("1.0", "1.0", "2.0"):
        (tmp_path / "imported_later.py").write_text(f"center = {center}\n")
        found.append(identity_of("def fn(x):\n    import imported_later\n    return np.sum(x - imported_later.center)"))
    assert differ(found[0], found[1]) == []
    assert differ(found[0], found[2]) == ["code of the problem"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "def helper(a): return a - 1.0\ndef loss(x): return jnp.sum(helper(x))",
            "# moved\n\ndef aid(b):\n    '''Says so.'''\n    return b - 1.0  # less\ndef cost(y):\n    z = aid(y)\n"
            "    return jnp.sum(z)\nloss = cost",
        ),
        (
            "def helper(a): return a - 1.0\ndef fn(x):\n    y = helper(x)\n    return np.sum(y)",
            "# moved\n\ndef aid(b):\n    '''Says so.'''\n    return b - 1.0  # less\ndef cost(y):\n    'Why.'\n"
            "    z = aid(y)\n    return np.sum(z)\nfn = cost",
        ),
        (
            "@jax.jit\ndef helper(a): return a - 1.0\ndef loss(x): return jnp.sum(helper(x))",
            "@jax.jit\ndef aid(a): return a - 1.0\ndef loss(x): return jnp.sum(aid(x))",
        ),
    ],
    ids=["traced", "host", "jitted"],
)
def test_comments_and_renames_do_not_count(before, after):
    assert differ(identity_of(before), identity_of(after)) == []


def test_a_function_that_calls_itself():
    source = "def fn(x): return 0.0 if len(x) == 0 else x[0] + fn(x[1:])"
    assert differ(identity_of(source), identity_of(source)) == []
    assert differ(identity_of(source), identity_of(edited(source, "+", "-")))


def facts():
    """Returns the identities of the examples, as JSON text."""
    traced = ("closure over a function", "optimizer", "network", "method of a strategy", "callback in a loop")
    sources = [TRACED[name][0] for name in traced] + [source for source, _, _ in HOST.values()]
    return json.dumps([identity_of(source).facts() for source in sources])


def test_it_is_the_same_in_another_process_with_another_hash_seed():
    code = "from tests.loop.test_identity import facts; print(facts())"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(facts())


def test_the_zoos_own_are_not_lowered(monkeypatch):
    monkeypatch.setattr(identity, "text_of_problem", None)
    monkeypatch.setattr(identity, "text_of_strategy", None)
    for id in IDS:
        assert identity._identify_strategy(zoo.make_strategy(id, population_size=6), jnp.zeros(3))
    for id in ("blackbox/sphere", "supervised/digits", "rl/CartPole-v1", "unrolled/lorenz"):
        assert identify(zoo.make_strategy("open_es", population_size=4, optimizer=optax.sgd), zoo.make_problem(id))


def test_a_problem_is_lowered_once(monkeypatch):
    traces = []

    def counted(x):
        traces.append(1)
        return jnp.sum(x)

    problem = zoo.from_function(counted, jnp.zeros(3))
    identify(SNES, problem)
    number = len(traces)
    assert number > 0
    identify(SNES.replace(sigma=0.5), problem)
    assert len(traces) == number


# What the identity cannot see


def test_what_cannot_be_seen_is_said_once_and_never_the_same():
    lock = threading.Lock()

    def guarded(x):
        with lock:
            return float(np.sum(x))

    identity._said.clear()
    with pytest.warns(UserWarning, match=r"type _thread.lock, which .*guarded uses cannot be compared") as warned:
        one, other = (identify(SNES, zoo.from_python(guarded, np.zeros(3))) for _ in range(2))
    assert len(warned) == 1
    assert "lock" in differ(one, other)[0]
    assert one.differences(other.facts(), accept_versions=True) == []


@pytest.mark.parametrize(
    "thing",
    [
        "open('/dev/null')",
        "__import__('ctypes').CDLL(None)",
        "np.frompyfunc(lambda a, b: a + b, 2, 1)",
        "functools.reduce(lambda inner, _: (inner,), range(5000), None)",
        "type('Any', (), {'__getattr__': lambda self, name: type(self)()})()",
    ],
    ids=["file", "library", "ufunc", "deep", "any attribute"],
)
@pytest.mark.filterwarnings("ignore:.*cannot be compared")
def test_what_cannot_be_walked_over(thing):
    module = execute(f"thing = {thing}\ndef fn(x): return thing")
    assert digest_of_host_code(module.fn)[1]


def test_a_program_that_cannot_be_traced_is_never_the_same():
    problem = zoo.from_function(lambda x: 1 / 0, jnp.zeros(3))
    one, other = (identify(SNES, problem.replace()) for _ in range(2))
    assert one.differences(other.facts(), accept_versions=True) == ["code of the problem"]
    assert "FunctionProblem (ZeroDivisionError: " in differ(one, other)[1]


def test_objects_that_refer_to_each_other():
    class Node:
        def __init__(self, value):
            self.value, self.other = value, None

    def ring(value):
        one, other = Node(1), Node(value)
        one.other, other.other = other, one
        return one

    digests = [digest_of_host_code(ring(value)) for value in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0][1] == []


# Numbers and versions


def test_facts_that_are_damaged_are_of_nothing():
    here = identify(SNES, BOWL)
    for there in (None, [], {}, {"what": 1}, {**here.facts(), "versions": None}):
        assert here.differences(there) == ["it does not say what it belongs to"]


@pytest.mark.parametrize(
    ("setting", "value", "difference"),
    [
        ("jax_enable_x64", True, "precision: 32 there, 64 here"),
        ("jax_default_matmul_precision", "float32", "matmul precision: default there, float32 here"),
        ("jax_default_prng_impl", "rbg", "generator: threefry2x32 there, rbg here"),
    ],
)
def test_numbers(setting, value, difference):
    before, there = getattr(jax.config, setting), identify(SNES, zoo.make_problem("blackbox/sphere")).facts()
    jax.config.update(setting, value)
    try:
        here = identify(SNES, zoo.make_problem("blackbox/sphere"))
        for accept_versions in (False, True):
            assert difference in here.differences(there, accept_versions=accept_versions)
    finally:
        jax.config.update(setting, before)


def test_versions():
    here = Identity({"a": 1}, {}, {"zoo": "2", "jax": "0.11"}, [])
    there = {**here.facts(), "versions": {"zoo": "1", "jax": "0.11"}}
    assert here.differences(there) == ["zoo: 1 there, 2 here"]
    assert here.differences(there, accept_versions=True) == []
    with pytest.raises(ValueError, match=r"It is other: zoo: 1 there, 2 here\. .* accept_versions=True"):
        here.check(there, "It is other", accept_versions=False)
    with pytest.raises(ValueError, match=r"It is other: a: 2 there, 1 here\. .* start anew\.$"):
        here.check({**there, "what": {"a": 2}}, "It is other", accept_versions=True)
