"""How the functions of a run are compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.loop import compiled
from zoo.loop.programs import Program, _largest_array, _unless_set


def double(x, *, times=2):
    return times * jnp.sin(x)


def sums_of_outer_products(x):
    return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sum(jnp.outer(y, y), axis=0), x)


@pytest.mark.parametrize("repeats", [True, False])
def test_a_program_computes_its_function(repeats):
    program = Program(double, repeats=repeats, static_argnames="times")
    x = jnp.arange(3.0)
    np.testing.assert_allclose(program(x, times=3), double(x, times=3), rtol=1e-6)
    assert program.__name__ == "double"
    assert program.num_programs == 1
    program(x, times=3)
    assert program.num_programs == 1
    program.forget()
    assert program.num_programs == 0


def test_within_a_trace_it_is_inlined():
    program = Program(lambda x: double(x), repeats=True)
    np.testing.assert_allclose(jax.jit(lambda x: program(x) + 1)(jnp.ones(2)), double(jnp.ones(2)) + 1, rtol=1e-6)
    assert jax.eval_shape(program, jnp.ones(2)).shape == (2,)
    assert program.num_programs == 0


def test_what_is_called_a_few_times_is_compiled_fast_unless_its_arrays_are_large():
    once = Program(sums_of_outer_products, repeats=False)
    loop = Program(sums_of_outer_products, repeats=True)
    small, large = jnp.ones(64), jnp.ones(65)  # outer products of 4 096 numbers, and of more
    assert once.choose(small) is once._once
    assert once.choose(large) is once._loop
    for x in (small, large):
        assert loop.choose(x) is loop._loop


def test_other_devices_get_no_options_of_the_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for repeats in (True, False):
        program = Program(double, repeats=repeats)
        assert program.choose(jnp.ones(2)) is program._plain


def test_the_largest_array_is_found_in_loops_and_branches():
    def branches(x):
        return jax.lax.cond(x[0] > 0, lambda: jnp.sum(jnp.outer(x, x)), lambda: jnp.zeros(()))

    for fn in (branches, sums_of_outer_products, jax.vmap(lambda y: y * jnp.ones(7))):
        assert _largest_array(jax.make_jaxpr(fn)(jnp.ones(7))) == 49
    assert _largest_array(jax.make_jaxpr(lambda x: x)(jnp.ones(7))) == 0


def test_flags_of_the_user_are_left_as_they_are(monkeypatch):
    options = {"xla_backend_optimization_level": 2, "xla_cpu_scheduler_type": "ANY"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_max_isa=AVX")
    assert _unless_set(options) == {"xla_cpu_scheduler_type": "ANY"}
    monkeypatch.delenv("XLA_FLAGS")
    assert _unless_set(options) == options


def test_the_loop_is_the_only_program_that_repeats():
    assert [program._repeats for program in (compiled.start, compiled.advance, compiled.score)] == [False, True, False]
    assert isinstance(functools.partial(Program, repeats=True)(double), Program)
