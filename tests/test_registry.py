"""Ids, settings by name, registration, entry points, and when modules are imported."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import pytest

import zoo
from zoo.registry import Registry, catalogue, load
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.population.random_search import RandomSearch

ROOT = pathlib.Path(__file__).parents[1]
MNIST_FAMILY = ["supervised/fashion_mnist", "supervised/kmnist", "supervised/mnist"]
PROBLEMS = [
    id
    for id in zoo.list_problems()
    if id not in MNIST_FAMILY and id != "rl/MNISTBandit-bsuite"  # this one downloads its images
]


class Suggestive(zoo.Problem):
    headline = "fitness"

    def initial_solution(self, key):
        return jnp.zeros(5)

    def fitness(self, key, solution):
        return jnp.sum(solution**2)

    @property
    def suggestions(self) -> Mapping[str, Any]:
        return {"sigma": 0.7, "learning_rate": 0.3, "no_such_setting": 1}


@pytest.fixture
def clean_registries():
    """Removes what a test registers."""
    registries = zoo.registry._strategies, zoo.registry._problems
    rows = [dict(registry.rows) for registry in registries]
    yield
    for registry, before in zip(registries, rows, strict=True):
        registry.rows = before


def test_listed_ids():
    strategies, problems = zoo.list_strategies(), zoo.list_problems()
    assert {"cma_es", "open_es", "random_search", "snes"} <= set(strategies)
    assert {*MNIST_FAMILY, "supervised/digits", "blackbox/sphere", "rl/CartPole-v1"} <= set(problems)
    assert strategies == sorted(set(strategies))
    assert problems == sorted(set(problems))
    assert not any("*" in id for id in strategies + problems)
    assert len([id for id in problems if id.startswith("blackbox/")]) == 24 + 30


@pytest.mark.parametrize("id", zoo.list_strategies())
def test_every_strategy_can_be_made(id):
    strategy = zoo.make_strategy(id)
    assert isinstance(strategy, zoo.Strategy)
    assert zoo.make_strategy(id, population_size=6).population_size == 6
    assert zoo.make_strategy(id, problem=Suggestive()).population_size is not None


@pytest.mark.parametrize("id", PROBLEMS)
def test_every_problem_can_be_made(id):
    problem = zoo.make_problem(id)
    assert isinstance(problem, zoo.Problem)
    namespace, name = id.partition("/")[0], id.rpartition("/")[2]
    if namespace == "blackbox":
        assert problem.function == name
    if namespace == "rl":
        assert problem.environment == name


@pytest.mark.parametrize("id", MNIST_FAMILY)
def test_the_mnist_family_is_made_from_a_data_folder(id, idx_folder, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    assert zoo.make_problem(id, data_dir=idx_folder).train_inputs.shape == (20, 28, 28, 1)
    with pytest.raises(FileNotFoundError, match="ZOO_DATA"):
        zoo.make_problem(id)
    monkeypatch.setenv("ZOO_DATA", str(idx_folder))
    assert zoo.make_problem(id).test_inputs.shape == (10, 28, 28, 1)


@pytest.mark.parametrize(
    ("make", "id", "nearest"),
    [
        (zoo.make_strategy, "open_ess", "'open_es'"),
        (zoo.make_strategy, "OPEN_ES", "'open_es'"),
        (zoo.make_strategy, "cmaes", "'cma_es'"),
        (zoo.make_problem, "rl/CartPole-v2", "'rl/CartPole-v1'"),
        (zoo.make_problem, "cartpole-v1", "'rl/CartPole-v1'"),
        (zoo.make_problem, "rastrigin", "'blackbox/rastrigin'"),
        (zoo.make_problem, "blackbox/rastigin", "'blackbox/rastrigin'"),
        (zoo.make_problem, "mnist", "'supervised/mnist'"),
    ],
)
def test_an_unknown_id_gets_the_nearest_names(make, id, nearest):
    with pytest.raises(ValueError, match="Unknown") as error:
        make(id)
    message = str(error.value)
    assert repr(id) in message
    assert nearest in message.partition("Did you mean ")[2]


def test_an_unknown_id_is_told_how_many_there_are_and_where():
    number = len(zoo.list_strategies())
    words = f"^Unknown strategy 'zzzzzzzz'\\. There are {number} strategies: `zoo list` prints their ids\\.$"
    with pytest.raises(ValueError, match=words):
        zoo.make_strategy("zzzzzzzz")
    with pytest.raises(ValueError, match=r"^Unknown problem 'rl/Pole'\..* There are \d+ problems: `zoo list`") as error:
        zoo.make_problem("rl/Pole")
    assert len(str(error.value)) < 300


def test_an_id_of_the_other_kind_is_called_one():
    with pytest.raises(ValueError, match=r"^'snes' is the id of a strategy, and a problem is expected here\.$"):
        zoo.run("blackbox/sphere", "snes")
    with pytest.raises(ValueError, match=r"^'rl/CartPole-v1' is the id of a problem, and a strategy is expected"):
        zoo.make_strategy("rl/CartPole-v1")


@pytest.mark.parametrize("id", ["", "/", "rl/", "rl/*", "blackbox/*", "blackbox", "no/such/id"])
def test_a_namespace_is_no_id(id):
    with pytest.raises(ValueError, match="Unknown problem"):
        zoo.make_problem(id)


@pytest.mark.parametrize("id", [None, 3, OpenES, ["open_es"]])
def test_an_id_is_a_string(id):
    with pytest.raises(TypeError, match=r"Expected a strategy id or a zoo\.Strategy, got"):
        zoo.make_strategy(id)


def test_an_unknown_setting_gets_the_valid_ones_with_their_defaults():
    with pytest.raises(TypeError, match="has no setting 'sigm'") as error:
        zoo.make_strategy("open_es", sigm=0.1)
    message = str(error.value)
    assert "Did you mean 'sigma'?" in message
    for setting in ("population_size=64", "sigma=0.1", "learning_rate=0.01", "optimizer=adam", "antithetic=True"):
        assert setting in message
    with pytest.raises(TypeError, match="has no setting 'xyzzy'") as error:
        zoo.make_problem("blackbox/sphere", xyzzy=1)
    assert "Did you mean" not in str(error.value)
    assert "num_dims=10" in str(error.value)
    with pytest.raises(TypeError, match="has no setting 'hiden'") as error:
        zoo.make_problem("supervised/digits", hiden=(3,))  # made by a function, not a class
    assert "Did you mean 'hidden'?" in str(error.value)
    assert "hidden=(32,)" in str(error.value)


def test_a_setting_of_the_base_is_not_one_of_the_wrapper():
    """The message shows the base as it must be given, and this base works."""
    for base, given in (("snes", "snes"), ("bounded", {"id": "bounded", "base": "snes", "lower": 0.0})):
        with pytest.raises(TypeError, match="strategy 'ipop' has no setting 'sigma'") as error:
            zoo.make_strategy("ipop", base=given, sigma=0.25)
        inner = '{"id": "snes", "sigma": 0.25}'
        expected = inner if base == "snes" else f'{{"id": "bounded", "base": {inner}, ...}}'
        assert f"It is a setting of the base: base={expected}. Valid" in str(error.value)
    assert zoo.make_strategy("ipop", base=json.loads(inner)).base.sigma == 0.25
    with pytest.raises(TypeError, match=r"has no setting 'xyzzy'\. Valid settings"):
        zoo.make_strategy("ipop", base="snes", xyzzy=1)
    with pytest.raises(TypeError, match=r'base=\{"id": "open_es", "learning_rate": 1\}'):
        zoo.make_strategy("bounded", learning_rate=1)


def test_the_name_in_a_namespace_is_no_setting():
    with pytest.raises(TypeError, match="has no setting 'function'"):
        zoo.make_problem("blackbox/sphere", function="rastrigin")


def test_a_bad_value_is_reported_by_the_strategy():
    with pytest.raises(ValueError, match=r"OpenES\.sigma must be greater than 0"):
        zoo.make_strategy("open_es", sigma=-1)
    with pytest.raises(TypeError, match=r"OpenES\.population_size must be a whole number"):
        zoo.make_strategy("open_es", population_size=8.5)


@pytest.mark.usefixtures("clean_registries")
def test_register_as_a_decorator():
    @zoo.register_strategy("test_search")
    class Search(RandomSearch):
        pass

    @zoo.register_problem("test/bowl")
    def bowl(num_dims: int = 3) -> zoo.Problem:
        return zoo.from_function(lambda x: jnp.sum(x**2), jnp.zeros(num_dims))

    assert isinstance(Search, type)  # the decorator returns its argument
    assert callable(bowl)
    assert isinstance(zoo.make_strategy("test_search", sigma=2), Search)
    assert zoo.make_problem("test/bowl", num_dims=4).solution.shape == (4,)
    assert "test_search" in zoo.list_strategies()
    assert "test/bowl" in zoo.list_problems()
    with pytest.raises(TypeError, match=r"no setting 'dims'.*num_dims=3"):
        zoo.make_problem("test/bowl", dims=3)


@pytest.mark.usefixtures("clean_registries")
def test_register_a_lazy_spec():
    spec = "zoo.strategies.population.random_search:RandomSearch"
    assert zoo.register_strategy("test_lazy", spec) == spec
    assert isinstance(zoo.make_strategy("test_lazy"), RandomSearch)
    zoo.register_strategy("test_missing_module", "no_such_module_at_all:Thing")  # nothing is imported yet
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        zoo.make_strategy("test_missing_module")
    zoo.register_strategy("test_missing_name", "zoo.strategies.population.random_search:Nothing")
    with pytest.raises(AttributeError, match="Nothing"):
        zoo.make_strategy("test_missing_name")


@pytest.mark.usefixtures("clean_registries")
def test_the_fixture_takes_back_registrations():
    assert not any(id.startswith("test") for id in zoo.list_strategies() + zoo.list_problems())


@pytest.mark.usefixtures("clean_registries")
def test_a_taken_id():
    with pytest.raises(ValueError, match="strategy id 'open_es' is already registered"):
        zoo.register_strategy("open_es", RandomSearch)
    with pytest.raises(ValueError, match=r"problem id 'rl/\*' is already registered"):
        zoo.register_problem("rl/*", Suggestive)
    with pytest.raises(ValueError, match="already registered"):

        @zoo.register_strategy("cma_es")
        class Other(RandomSearch):
            pass

    assert isinstance(zoo.make_strategy("open_es"), OpenES)


@pytest.mark.parametrize("id", ["", None, 3])
def test_an_id_to_register_is_a_non_empty_string(id):
    with pytest.raises(TypeError, match="non-empty string"):
        zoo.register_strategy(id, RandomSearch)


@pytest.mark.usefixtures("clean_registries")
def test_a_factory_that_returns_something_else():
    zoo.register_strategy("test_wrong", lambda: 3)
    with pytest.raises(TypeError, match=r"factory of strategy 'test_wrong' returned int, not a zoo\.Strategy"):
        zoo.make_strategy("test_wrong")
    zoo.register_problem("test/wrong", RandomSearch)
    with pytest.raises(TypeError, match=r"factory of problem 'test/wrong' returned RandomSearch, not a zoo\.Problem"):
        zoo.make_problem("test/wrong")


@pytest.mark.usefixtures("clean_registries")
def test_a_factory_with_free_settings_gets_them_all():
    received = {}

    def make(**settings):
        received.update(settings)
        return RandomSearch()

    zoo.register_strategy("test_free", make)
    zoo.make_strategy("test_free", anything=1, sigma=2)
    assert received == {"anything": 1, "sigma": 2}


@pytest.mark.usefixtures("clean_registries")
def test_a_namespace_passes_the_name_on():
    class Bowls(Suggestive):
        shape: str = zoo.static()
        depth: float = zoo.number(1.0)

        namespace_field: ClassVar[str] = "shape"

        @staticmethod
        def names() -> list[str]:
            return ["round", "deep/square"]

    zoo.register_problem("bowls/*", Bowls)
    assert {"bowls/round", "bowls/deep/square"} <= set(zoo.list_problems())
    assert zoo.make_problem("bowls/round", depth=2).shape == "round"
    assert zoo.make_problem("bowls/deep/square").shape == "deep/square"
    with pytest.raises(ValueError, match=r"Unknown problem 'bowls/ronud'.*'bowls/round'"):
        zoo.make_problem("bowls/ronud")
    # A separate row takes precedence over the namespace.
    zoo.register_problem("bowls/special", Suggestive)
    assert type(zoo.make_problem("bowls/special")) is Suggestive


def test_suggestions_fill_in_what_is_open():
    problem = Suggestive()
    strategy = zoo.make_strategy("open_es", problem=problem)
    assert (strategy.sigma, strategy.learning_rate, strategy.population_size) == (0.7, 0.3, 64)
    # Without a problem, the strategy's own defaults are used.
    assert (zoo.make_strategy("open_es").sigma, zoo.make_strategy("open_es").learning_rate) == (0.1, 0.01)
    # A strategy without a learning rate takes the other suggestions.
    assert zoo.make_strategy("random_search", problem=problem).sigma == 0.7
    assert zoo.make_problem("blackbox/sphere").suggestions["sigma"] == 2.0
    assert zoo.make_strategy("snes", problem=zoo.make_problem("blackbox/sphere")).sigma == 2.0


def test_explicit_settings_win_over_suggestions():
    strategy = zoo.make_strategy("open_es", problem=Suggestive(), sigma=0.2, population_size=10)
    assert (strategy.sigma, strategy.learning_rate, strategy.population_size) == (0.2, 0.3, 10)


def test_the_population_size_depends_on_the_dimensions():
    assert zoo.make_strategy("snes").population_size is None
    assert zoo.make_strategy("snes", problem=Suggestive()).population_size == 8  # 4 + floor(3 ln 5)
    large = zoo.from_function(lambda x: jnp.sum(x["a"]), {"a": jnp.zeros((10, 10))})
    assert zoo.make_strategy("snes", problem=large).population_size == 17  # 4 + floor(3 ln 100)


def _fresh(monkeypatch, *entry_points):
    calls = []

    def fake(*, group):
        calls.append(group)
        return [e for e in entry_points if e.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", fake)
    rows = {"open_es": "zoo.strategies.gradient.open_es:OpenES"}
    return Registry("strategy", zoo.Strategy, rows, "zoo.strategies"), calls


def test_entry_points_add_rows(monkeypatch):
    EntryPoint = importlib.metadata.EntryPoint  # noqa: N806
    registry, calls = _fresh(
        monkeypatch,
        EntryPoint("their_search", "zoo.strategies.population.random_search:RandomSearch", "zoo.strategies"),
        EntryPoint("their_broken", "no_such_module_at_all:Thing", "zoo.strategies"),
        EntryPoint("their_problem", "zoo.problems.blackbox.bbob:BBOB", "zoo.problems"),
    )
    assert calls == []  # entry points are read when they are needed
    assert registry.ids() == ["open_es", "their_broken", "their_search"]
    assert isinstance(registry.make("their_search", {"sigma": 3}), RandomSearch)
    assert isinstance(registry.make("open_es", {}), OpenES)
    with pytest.raises(ValueError, match="Did you mean 'their_search'"):
        registry.make("their_saerch", {})
    words = r"'their_broken' of the installed package 'unknown' cannot be loaded from .*No module named 'no_such_module"
    with pytest.raises(ImportError, match=words):  # only making this strategy fails
        registry.make("their_broken", {})
    monkeypatch.setattr("zoo.registry._strategies", registry)
    with pytest.warns(UserWarning, match=words):
        assert [row for row, _, _ in catalogue("strategy")] == ["open_es", "their_search"]
    assert calls == ["zoo.strategies"]  # they are read only once


def test_an_entry_point_is_found_by_making_it(monkeypatch):
    spec = "zoo.strategies.population.random_search:RandomSearch"
    registry, _ = _fresh(monkeypatch, importlib.metadata.EntryPoint("their_search", spec, "zoo.strategies"))
    assert isinstance(registry.make("their_search", {}), RandomSearch)


def test_the_id_of_an_entry_point_is_taken(monkeypatch):
    spec = "zoo.strategies.population.random_search:RandomSearch"
    registry, _ = _fresh(monkeypatch, importlib.metadata.EntryPoint("their_search", spec, "zoo.strategies"))
    with pytest.raises(ValueError, match="already registered"):
        registry.register("their_search", OpenES)


@pytest.mark.parametrize("kind", ["strategy", "problem"])
def test_the_catalogue_says_what_each_row_is(kind):
    rows = catalogue(kind)
    ids = [id[:-1] + name for id, _, names in rows for name in names or [""] if names] + [
        id for id, _, names in rows if not names
    ]
    assert sorted(ids) == (zoo.list_strategies() if kind == "strategy" else zoo.list_problems())
    assert all(summary.endswith(".") for _, summary, _ in rows)


def test_load_passes_objects_through():
    assert load(OpenES) is OpenES
    assert load("zoo.strategies.gradient.open_es:OpenES") is OpenES


def _python(code, **kwargs):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)


def test_import_is_cheap():
    done = _python(
        """
        import sys
        import zoo
        heavy = ("zoo.strategies", "zoo.problems", "pandas", "scipy.stats", "matplotlib", "gymnax", "bbobax",
                 "quax", "sklearn", "typer")
        print([name for name in heavy if name in sys.modules])
        print(sorted(set(zoo.__all__) - set(dir(zoo))))
        zoo.make_strategy("random_search")
        print(*(f"zoo.strategies.{name}" in sys.modules for name in ("population.random_search", "distribution.snes")))
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "[]", "True False"]


def test_pictures_of_gymnax_are_imported_when_they_are_drawn():
    """Importing gymnax with its plotting libraries would take most of the time until the first result."""
    done = _python(
        """
        import sys
        import zoo
        zoo.make_problem("rl/CartPole-v1")
        print([name for name in ("matplotlib.pyplot", "seaborn", "pandas", "scipy.stats") if name in sys.modules])
        from gymnax.environments.misc import pong
        print(pong.plt.figure().number)
        import matplotlib.pyplot
        print(pong.plt.figure is matplotlib.pyplot.figure)
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "1", "True"]


def test_a_checkout_that_is_not_installed_says_so():
    done = _python(
        """
        import sys
        # Removes the finder of the installation, which maps the folders.
        sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
        import zoo
        for make, id in ((zoo.make_strategy, "open_es"), (zoo.make_problem, "supervised/digits")):
            try:
                make(id)
            except ImportError as error:
                print(error)
        """,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == [
        f"zoo.{name} is missing: the zoo was imported from {ROOT}, but is not installed. Install it with "
        f"`pip install -e {ROOT}`."
        for name in ("strategies", "problems")
    ], done.stderr


def test_an_import_error_of_the_users_own_is_passed_on(monkeypatch):
    monkeypatch.setitem(zoo.registry._strategies.rows, "test_typo", "zoo.strategies.no_such_module:Thing")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'zoo\.strategies\.no_such_module'$"):
        zoo.make_strategy("test_typo")
