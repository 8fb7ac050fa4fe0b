"""Bad calls of `tests/bad_calls.py` are refused in one line that names the parameter, before anything is compiled."""

import collections
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.bad_calls import KINDS, complaint, constructors, functions, kinds_of, outcomes
from zoo.core.checks import as_count, check_number, shown


def lorenz(**settings):
    return zoo.make_problem("unrolled/lorenz", **settings)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("bad_calls"))  # some values that are tried are names of folders
        return list(outcomes([*functions(), *constructors()]))


def test_bad_calls_are_refused(results):
    findings = [str(result) for result in results if result.verdict == "finding"]
    assert not findings, "\n".join(findings)


def test_there_are_many_and_they_are_quick(results):
    counts = collections.Counter(result.verdict for result in results)
    assert counts["refused"] > 3000, counts
    refused = [result.seconds for result in results if result.verdict == "refused"]
    assert np.quantile(refused, 0.99) < 0.5  # in seconds; some calls import a package or read data


def test_what_counts_as_refused():
    def outcome_of(raise_it):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            raise_it()
        return complaint(raised.value, "steps")

    def own(error):
        """Returns a function that raises the error as if es-zoo had raised it."""
        code = compile("raise error", zoo.__file__, "exec")
        return lambda: exec(code, {"error": error})

    assert outcome_of(own(ValueError("steps must be positive."))) == ""
    assert "does not name it" in outcome_of(own(ValueError("it must be positive.")))
    assert "does not name it" in outcome_of(own(ValueError("num_steps must be positive.")))
    assert "more than one line" in outcome_of(own(TypeError("steps\nare wrong")))
    assert "no ValueError" in outcome_of(own(AttributeError("steps")))
    assert "raised by" in outcome_of(lambda: np.zeros(2).reshape(3))
    assert kinds_of(float | None) == {"none", "fraction", "negative", "huge"}
    assert kinds_of(bool) == set()
    assert kinds_of(inspect.Parameter.empty) == set(KINDS)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int8(1), jnp.ones((), jnp.bfloat16), np.inf], ids=shown)
def test_numbers(value):
    check_number(value, "x")
    jax.jit(lambda x: check_number(x, "x"))(1.0)


def test_what_jax_puts_in_the_place_of_a_leaf_is_let_through():
    for problem in (zoo.make_problem("unrolled/toy_lr_schedule"), zoo.make_problem("blackbox/sphere", num_dims=2)):
        jax.jit(lambda p: p.initial_solution(jax.random.key(0))).lower(problem)
        jax.tree.map(lambda _: object(), problem)
        stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), problem)
        assert jax.vmap(lambda p: p.initial_solution(jax.random.key(0)))(stacked).shape == (2, 2)


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: check_number(True, "x"), TypeError, "x must be a number, got True."),
        (lambda: check_number(jnp.ones(2), "x"), TypeError, r"got an array float32\[2\]"),
        (lambda: check_number(float("nan"), "x"), ValueError, "got nan"),
        (lambda: check_number(10**400, "x"), ValueError, "that a float can hold, got a number of more than 60 digits"),
        (lambda: check_number(jnp.asarray(1j), "x"), TypeError, r"got an array complex64\[\]"),
        (lambda: as_count(2**31, "x"), ValueError, "x must be at most 2147483647, got 2147483648."),
        (lambda: as_count(10**70, "x"), ValueError, "got a number of more than 60 digits"),
        (lambda: as_count(1, "x", at_least=2), ValueError, "x must be at least 2, got 1"),
        (lambda: as_count(True, "x"), TypeError, "x must be a whole number, got True"),
        (lambda: lorenz(start=(1, 2)), TypeError, r"Lorenz.start must be 3 numbers, got \(1, 2\)"),
        (lambda: lorenz(start=(1, "2", 3)), TypeError, r"Lorenz.start must be 3 numbers, got \(1, '2', 3\)"),
        (lambda: zoo.from_function(sum, 1.0, data=jnp.ones(2)), TypeError, r"data=\(x,\), got an array"),
        (lambda: zoo.run("snes", "blackbox/sphere", progress="no"), TypeError, "run: progress must be True or False"),
        (lambda: zoo.load_run(""), ValueError, r"load_run\(folder\) must be the path of a folder, got an empty text"),
    ],
)
def test_errors_say_what_is_wrong(check, error, message):
    with pytest.raises(error, match=message):
        check()
