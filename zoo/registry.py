"""The registry: maps ids to strategies and problems, which are imported only when one is made.

A row is an id and a `"module:attribute"` spec, or the object itself. An id that ends in `/*` is a namespace: the text
after the slash is passed to the factory as one setting. A namespace may lie within another one. Other distributions add
rows through the entry points `zoo.strategies` and `zoo.problems`.
"""

import contextlib
import difflib
import importlib
import importlib.metadata
import inspect
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from zoo.core.about import about
from zoo.core.advice import BOUNDS_NAMES, bounds_advice
from zoo.core.checks import shown
from zoo.core.manual import manual
from zoo.core.problem import Problem
from zoo.core.settings import internal_fields
from zoo.core.strategy import Strategy
from zoo.core.structure import fit_structure

STRATEGIES = {
    "ars": "zoo.strategies.gradient.ars:ARS",
    "asebo": "zoo.strategies.gradient.asebo:ASEBO",
    "bipop": "zoo.strategies.wrappers.bipop:BIPOP",
    "bounded": "zoo.strategies.wrappers.bounded:Bounded",
    "bptt": "zoo.strategies.gradient.bptt:BPTT",
    "cma_es": "zoo.strategies.distribution.cma_es:CMAES",
    "cr_fm_nes": "zoo.strategies.distribution.cr_fm_nes:CRFMNES",
    "cv_zod": "zoo.strategies.gradient.cv_zod:CVZOD",
    "de": "zoo.strategies.population.de:DE",
    "dodge": "zoo.strategies.gradient.dodge:DODGE",
    "eggroll": "zoo.strategies.gradient.eggroll:EGGROLL",
    "es_single": "zoo.strategies.gradient.es_single:ESSingle",
    "evosax/*": "zoo.strategies.adapters.evosax:EvosaxStrategy",
    "frozen": "zoo.strategies.wrappers.frozen:Frozen",
    "full_es": "zoo.strategies.gradient.full_es:FullES",
    "full_forward": "zoo.strategies.gradient.dodge:FullForward",
    "gpes": "zoo.strategies.gradient.gpes:GPES",
    "guided_es": "zoo.strategies.gradient.guided_es:GuidedES",
    "hybrid": "zoo.strategies.wrappers.hybrid:Hybrid",
    "ipop": "zoo.strategies.wrappers.ipop:IPOP",
    "lm_ma_es": "zoo.strategies.distribution.lm_ma_es:LMMAES",
    "lra_cma_es": "zoo.strategies.distribution.lra_cma_es:LRACMAES",
    "lottery": "zoo.strategies.wrappers.lottery:Lottery",
    "ma_es": "zoo.strategies.distribution.ma_es:MAES",
    "masked": "zoo.strategies.wrappers.masked:Masked",
    "nres": "zoo.strategies.gradient.nres:NRES",
    "one_plus_one_es": "zoo.strategies.distribution.one_plus_one_es:OnePlusOneES",
    "open_es": "zoo.strategies.gradient.open_es:OpenES",
    "pes": "zoo.strategies.gradient.pes:PES",
    "pgpe": "zoo.strategies.gradient.pgpe:PGPE",
    "pso": "zoo.strategies.population.pso:PSO",
    "pycma": "zoo.strategies.adapters.pycma:PyCMA",
    "random_search": "zoo.strategies.population.random_search:RandomSearch",
    "rtrl": "zoo.strategies.gradient.rtrl:RTRL",
    "self_guided_es": "zoo.strategies.gradient.self_guided_es:SelfGuidedES",
    "sep_cma_es": "zoo.strategies.distribution.sep_cma_es:SepCMAES",
    "simple_ga": "zoo.strategies.population.simple_ga:SimpleGA",
    "snes": "zoo.strategies.distribution.snes:SNES",
    "tbptt": "zoo.strategies.gradient.tbptt:TBPTT",
    "tes": "zoo.strategies.gradient.tes:TES",
    "uoro": "zoo.strategies.gradient.uoro:UORO",
    "xnes": "zoo.strategies.distribution.xnes:XNES",
}

PROBLEMS = {
    "blackbox/*": "zoo.problems.blackbox.bbob:BBOB",
    "rl/*": "zoo.problems.rl.gymnax:GymnaxProblem",
    "rl/gymnasium/*": "zoo.problems.rl.gymnasium:GymnasiumProblem",
    "supervised/accuracy_pipeline": "zoo.problems.supervised.accuracy_pipeline:AccuracyPipeline",
    "supervised/digits": "zoo.problems.supervised.images:digits",
    "supervised/fashion_mnist": "zoo.problems.supervised.images:fashion_mnist",
    "supervised/kmnist": "zoo.problems.supervised.images:kmnist",
    "supervised/mnist": "zoo.problems.supervised.images:mnist",
    "unrolled/influence_balancing": "zoo.problems.unrolled.influence_balancing:InfluenceBalancing",
    "unrolled/learned_optimizer": "zoo.problems.unrolled.learned_optimizer:LearnedOptimizer",
    "unrolled/lorenz": "zoo.problems.unrolled.lorenz:Lorenz",
    "unrolled/mlp_lr_schedule": "zoo.problems.unrolled.mlp_lr_schedule:MLPLRSchedule",
    "unrolled/toy_lr_schedule": "zoo.problems.unrolled.toy_lr_schedule:ToyLRSchedule",
}


StrategyLike = str | Mapping[str, Any] | Strategy
"""A strategy, its id, or a dictionary of its id and settings such as `{"id": "cma_es", "sigma": 0.5}`."""
ProblemLike = str | Mapping[str, Any] | Problem
"""A problem, its id, or a dictionary of its id and settings."""


class BrokenPluginError(ImportError):
    """What another package added cannot be loaded."""


class Registry:
    """The rows of one kind.

    Args:
        kind: The kind, for messages: "strategy" or "problem".
        base: The class whose instances the factories must return.
        rows: The built-in rows.
        entry_point_group: The entry point group for rows of other distributions.
    """

    def __init__(self, kind: str, base: type, rows: dict[str, str], entry_point_group: str):
        self.kind = kind
        self.base = base
        self.rows: dict[str, str | Callable[..., Any]] = dict(rows)
        self.entry_point_group = entry_point_group
        self._entry_points_loaded = False
        self._distributions: dict[str, str] = {}  # of the rows that are entry points

    def register(self, id: str, factory: str | Callable[..., Any] | None = None) -> Any:
        """Adds a row. Without a factory, returns a decorator for a class or function.

        Raises:
            TypeError: If the id is not a non-empty string, or the factory is neither callable nor text.
            ValueError: If the id is taken, or the factory is text that is not of the form `"module:attribute"`.
        """
        if not isinstance(id, str) or not id:
            raise TypeError(f"A {self.kind} is registered under a non-empty string, got {id!r}.")
        if factory is None:

            def decorate(target: Callable[..., Any]) -> Callable[..., Any]:
                self.register(id, target)
                return target

            return decorate
        if isinstance(factory, str):
            if not re.fullmatch(r"[\w.]+:\w+", factory):
                raise ValueError(
                    f"The {self.kind} {id!r} is registered by a spec such as 'my_package.my_module:MyClass', got "
                    f"{factory!r}."
                )
        elif not callable(factory):
            raise TypeError(
                f"The {self.kind} {id!r} is registered by a class, by a function that returns a zoo."
                f"{self.base.__name__}, or by a spec 'module:attribute', got {factory!r}."
            )
        self._load_entry_points()
        if id in self.rows:
            raise ValueError(f"The {self.kind} id {id!r} is already registered. Choose another one.")
        self.rows[id] = factory
        return factory

    def ids(self) -> list[str]:
        """Returns all ids, with all names of the namespaces."""
        self._load_entry_points()
        ids: list[str] = []
        for id, spec in self.rows.items():
            ids += [id[:-1] + name for name in load(spec).names()] if id.endswith("/*") else [id]
        return sorted(ids)

    def spec(self, given: Any) -> tuple[str, dict[str, Any]]:
        """Returns the id and the settings that are given as an id, or as a dictionary of both.

        Raises:
            TypeError: If neither an id nor such a dictionary is given.
        """
        if isinstance(given, str):
            return given, {}
        if not isinstance(given, Mapping):
            raise TypeError(
                f"Expected a {self.kind} id or a zoo.{self.base.__name__}, got {type(given).__name__}: {shown(given)}. "
                'An id with settings is a dictionary: {"id": ..., "sigma": 0.5}.'
            )
        unnamed = [name for name in given if not isinstance(name, str)]
        if unnamed:
            raise TypeError(
                f"Names of settings of a {self.kind} must be text, got {unnamed[0]!r} in {shown(dict(given))}."
            )
        if "id" not in given:
            found = shown(dict(given))
            raise TypeError(f'A {self.kind} as a dictionary needs its "id" in addition to its settings, got {found}.')
        if not isinstance(given["id"], str):
            raise TypeError(f'The "id" of a {self.kind} must be text, got {shown(given["id"])}.')
        return given["id"], {name: value for name, value in given.items() if name != "id"}

    def make(self, id: str, settings: dict[str, Any]) -> Any:
        """Makes the strategy or the problem of an id.

        Raises:
            ValueError: If the id is unknown. The message has the nearest ids.
            TypeError: If a setting is unknown. The message lists the valid settings with their defaults.
        """
        factory, name = self.factory(id)
        fixed = {} if name is None else {factory.namespace_field: name}
        hidden = {*fixed, *internal_fields(factory)}
        parameters = {k: p for k, p in inspect.signature(factory).parameters.items() if k not in hidden}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            unknown = [setting for setting in settings if setting not in parameters]
            if unknown:
                raise TypeError(self._unknown_setting(id, unknown[0], parameters, settings))
        made = factory(**fixed, **settings)
        if not isinstance(made, self.base):
            raise TypeError(
                f"The factory of {self.kind} {id!r} returned {type(made).__name__}, not a zoo.{self.base.__name__}."
            )
        about(made)[_RECIPE] = {"id": id, "settings": settings, "for_problem": False}
        return made

    def factory(self, id: str) -> tuple[Any, str | None]:
        """Returns the factory of an id and, if the id lies in a namespace, the name after the slash.

        Raises:
            ValueError: If the id is unknown. The message has the nearest ids.
        """
        found = self.find(id)
        if found is None:
            raise ValueError(self._unknown_id(id))
        return found

    def find(self, id: str) -> tuple[Any, str | None] | None:
        """Returns what `factory` returns, or `None` if the id is unknown."""
        self._load_entry_points()
        if id in self.rows and not id.endswith("/*"):
            return self.load(id), None
        parts = id.split("/")
        for num in range(len(parts) - 1, 0, -1):  # the innermost namespace first
            row, name = "/".join([*parts[:num], "*"]), "/".join(parts[num:])
            if row in self.rows:
                factory = self.load(row)
                if name in factory.names() or name in getattr(factory, "aliases", ()):
                    return factory, name
                if hasattr(factory, "check_installed"):
                    factory.check_installed()
        return None

    def load(self, row: str) -> Any:
        """Returns the factory of a row.

        Raises:
            ImportError: If it cannot be imported.
            BrokenPluginError: If another package added it and it cannot be loaded.
        """
        if row not in self._distributions:
            return load(self.rows[row])
        try:
            return load(self.rows[row])
        except Exception as error:  # code of somebody else
            raise BrokenPluginError(
                f"The {self.kind} {row!r} of the installed package {self._distributions[row]!r} cannot be loaded from "
                f"{self.rows[row]!r}: {type(error).__name__}: {error}. Mend the package, or uninstall it."
            ) from error

    def nearest(self, id: str) -> list[str]:
        """Returns up to three ids that look like the one given, with or without their namespaces."""
        ids = self.ids()
        short = {known.rpartition("/")[2].lower(): known for known in ids}
        near = difflib.get_close_matches(id, ids, n=3, cutoff=0.5)
        near += [short[s] for s in difflib.get_close_matches(id.rpartition("/")[2].lower(), short, n=3, cutoff=0.6)]
        return list(dict.fromkeys(near))[:3]

    def count(self) -> str:
        """Returns how many ids there are, as words."""
        return f"{len(self.ids())} {self.kind[:-1] + 'ies' if self.kind.endswith('y') else self.kind + 's'}"

    def _unknown_id(self, id: str) -> str:
        other = _problems if self is _strategies else _strategies
        with contextlib.suppress(ImportError):  # of a package that another id needs
            if other.find(id) is not None:
                return f"{shown(id)} is the id of a {other.kind}, and a {self.kind} is expected here."
        hint = _did_you_mean(self.nearest(id))
        return f"Unknown {self.kind} {shown(id)}.{hint} There are {self.count()}: `zoo list` prints their ids."

    def _unknown_setting(
        self, id: str, setting: str, parameters: dict[str, inspect.Parameter], settings: Mapping[str, Any]
    ) -> str:
        hint = ""
        if setting in BOUNDS_NAMES and self.kind == "strategy":
            hint = " Use `lower` and `upper`." if "lower" in parameters else f" {bounds_advice(id)}"
        elif base := self._base_with(parameters, settings, setting):
            hint = f" It is a setting of the base: base={base}."
        else:
            hint = _did_you_mean(difflib.get_close_matches(setting, parameters, n=1, cutoff=0.5))
        valid = ", ".join(
            name if p.default is inspect.Parameter.empty else f"{name}={_show(p.default)}"
            for name, p in parameters.items()
        )
        return f"{self.kind} {id!r} has no setting {setting!r}.{hint} Valid settings: {valid}."

    def _base_with(
        self, parameters: Mapping[str, inspect.Parameter], settings: Mapping[str, Any], setting: str
    ) -> str | None:
        """Returns the base of a wrapper with a setting that the base, or a base inside of it, has, as text.

        Returns `None` if none of them has it.
        """
        base = settings.get("base", parameters["base"].default) if "base" in parameters else None
        if not isinstance(base, (str, Mapping)):
            return None
        id, own = self.spec(base)
        parameters = inspect.signature(self.factory(id)[0]).parameters
        inner = {**own, setting: settings[setting]}
        if setting in parameters:
            name, value = setting, shown(settings[setting])
        else:
            name, value = "base", self._base_with(parameters, inner, setting)
        others = ", ..." if own.keys() - {name} else ""
        return None if value is None else f'{{"id": "{id}", "{name}": {value}{others}}}'

    def _load_entry_points(self) -> None:
        if not self._entry_points_loaded:
            self._entry_points_loaded = True
            for entry_point in importlib.metadata.entry_points(group=self.entry_point_group):
                if entry_point.name in self.rows:
                    warnings.warn(
                        f"{entry_point.value} wants to add the {self.kind} {entry_point.name!r}, but this id is taken. "
                        "It is left out.",
                        stacklevel=2,
                    )
                else:
                    self.rows[entry_point.name] = entry_point.value
                    self._distributions[entry_point.name] = getattr(entry_point.dist, "name", "unknown")


def load(spec: str | Callable[..., Any]) -> Any:
    """Returns the object of a `"module:attribute"` spec.

    Raises:
        ImportError: If the module cannot be imported.
    """
    if not isinstance(spec, str):
        return spec
    module_name, _, attribute = spec.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name not in ("zoo.strategies", "zoo.problems"):
            raise
        root = pathlib.Path(__file__).resolve().parents[1]
        raise ModuleNotFoundError(
            f"{error.name} is missing: the zoo was imported from {root}, but is not installed. Install it with "
            f"`pip install -e {root}`.",
            name=error.name,
        ) from error


def _did_you_mean(near: Sequence[str]) -> str:
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


def _show(default: Any) -> str:
    return getattr(default, "__qualname__", None) or repr(default)


_RECIPE = "recipe"
_strategies = Registry("strategy", Strategy, STRATEGIES, "zoo.strategies")
_problems = Registry("problem", Problem, PROBLEMS, "zoo.problems")


def _registry(kind: str) -> Registry:
    return _strategies if kind == "strategy" else _problems


def make_strategy(id: str | Mapping[str, Any], *, problem: Problem | None = None, **settings: Any) -> Strategy:
    """Makes a registered strategy.

    Args:
        id: An id such as `"open_es"` (`list_strategies()` returns all ids). Or a dictionary of an id and settings, such
            as `{"id": "cma_es", "sigma": 0.5}`.
        problem: A problem from which settings left open are filled in: the settings that it suggests, and those that
            depend on its number of dimensions. With `None`, the strategy's own defaults are used.
        **settings: Settings of the strategy. They take precedence over settings in the dictionary.

    Raises:
        ValueError: If the id is unknown or a setting has an invalid value.
        TypeError: If a setting is unknown or has the wrong type, or the dictionary has no id.

    >>> import zoo
    >>> zoo.make_strategy("open_es", population_size=32, sigma=0.1).population_size
    32
    """
    return _make_strategy(id, settings, problem)


def _make_strategy(given: Any, settings: Mapping[str, Any], problem: Any) -> Strategy:
    id, own = _strategies.spec(given)
    settings = {**own, **settings}
    if problem is None:
        return _strategies.make(id, settings)
    if not isinstance(problem, Problem):
        raise TypeError(f"make_strategy expects problem to be a zoo.Problem, got {type(problem).__name__}.")
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    completed = complete_settings(id, settings, problem.suggestions, solution)
    made = _strategies.make(id, completed).for_solution(solution)
    about(made)[_RECIPE] = {"id": id, "settings": settings, "for_problem": True}
    return made


def recipe(item: StrategyLike | ProblemLike, kind: str) -> dict[str, Any] | None:
    """Returns the id and the settings by which a strategy or a problem was made.

    Returns `None` if it was not made by an id, or was changed afterwards.
    """
    if isinstance(item, Strategy | Problem):
        return about(item).get(_RECIPE)
    id, settings = _registry(kind).spec(item)
    return {"id": id, "settings": settings, "for_problem": True}


def label_of(item: Any) -> str:
    """Returns a name for a strategy or a problem: `cma_es`, `cma_es(sigma=0.5)`, or the name of its class."""
    if isinstance(item, str):
        return item
    if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
        return type(item).__name__
    inner = (f"{name}={_label_of_value(value)}" for name, value in item.items() if name != "id")
    settings = ", ".join(inner)
    return f"{item['id']}({settings})" if settings else item["id"]


def _label_of_value(value: Any) -> str:
    if isinstance(value, Mapping) and "id" in value:
        return label_of(value)
    return getattr(value, "__qualname__", None) or shown(value)


def given_strategy(strategy: StrategyLike, settings: Mapping[str, Any], name: str, problem: Any = None) -> Strategy:
    """Returns a strategy that is given as an instance, by its id, or by a dictionary of its id and settings.

    Args:
        strategy: What was given.
        settings: More settings, for a strategy that is given by its id.
        name: Name of the function that it was given to, for messages.
        problem: The problem from which settings left open are filled in, or `None`.

    Raises:
        TypeError: If the strategy is an instance and there are settings for it, or a setting is unknown.
    """
    if not isinstance(strategy, Strategy):
        return _make_strategy(strategy, settings, problem)
    if settings:
        raise TypeError(
            f"{name} got a strategy that is already made, and settings {sorted(settings)} for it. Use "
            "strategy.replace(...) instead, or give the strategy's id."
        )
    return strategy


def complete_settings(
    id: str, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Any
) -> dict[str, Any]:
    """Returns a strategy's settings, completed by the suggestions of a problem.

    Args:
        id: Id of the strategy.
        settings: The given settings.
        suggestions: `Problem.suggestions`.
        solution: A solution. Only its shapes are used.
    """
    # Suggestions for this strategy alone take precedence over suggestions for all strategies.
    for_all = {name: value for name, value in suggestions.items() if not isinstance(value, Mapping)}
    suggestions = {**for_all, **suggestions.get(id, {})}
    factory, name = _strategies.factory(id)
    fixed = {} if name is None else {factory.namespace_field: name}
    if isinstance(factory, type) and issubclass(factory, Strategy):
        completed = factory.with_suggestions({**settings, **fixed}, suggestions, solution)
        return {setting: value for setting, value in completed.items() if setting not in fixed}
    known = valid_settings(id, "strategy")
    return {**{name: value for name, value in suggestions.items() if name in known}, **settings}


@jax.transfer_guard("allow")
def make_problem(id: str | Mapping[str, Any], **settings: Any) -> Problem:
    """Makes a registered problem.

    Args:
        id: An id such as `"supervised/digits"`, `"rl/CartPole-v1"` or `"blackbox/rastrigin"` (`list_problems()` returns
            all ids). Or a dictionary of an id and settings, such as `{"id": "blackbox/sphere", "num_dims": 5}`.
        **settings: Settings of the problem. They take precedence over settings in the dictionary.

    Raises:
        ValueError: If the id is unknown or a setting has an invalid value.
        TypeError: If a setting is unknown or has the wrong type, or the dictionary has no id.

    >>> import zoo
    >>> zoo.make_problem("blackbox/sphere", num_dims=5).num_dims
    5
    """
    return given_problem(id, settings)


def given_problem(problem: ProblemLike, settings: Mapping[str, Any] | None = None) -> Problem:
    """Returns a problem that is given as an instance, by its id, or by a dictionary of its id and settings.

    Raises:
        TypeError: If the problem is an instance and there are settings for it, or a setting is unknown.
    """
    if not isinstance(problem, Problem):
        id, own = _problems.spec(problem)
        return _problems.make(id, {**own, **(settings or {})})
    if settings:
        raise TypeError(
            f"A problem that is already made was given, and settings {sorted(settings)} for it. Use "
            "problem.replace(...) instead, or give the problem's id."
        )
    return problem


def as_problem(problem: ProblemLike, statistics: Any = ()) -> Problem:
    """Returns a problem that is given as an instance or by its id, with the given statistics if there are any.

    Raises:
        ValueError: If the statistics do not have the structure and the shapes of the problem's statistics.
    """
    problem = given_problem(problem)
    if not jax.tree.leaves(statistics):
        return problem
    like = f"what a run of this {type(problem).__name__} gathers in problem_state.statistics"
    expected = jax.eval_shape(problem.init_statistics)
    return problem.with_statistics(fit_structure("statistics", statistics, expected, exact=True, like=like))


def list_strategies() -> list[str]:
    """Returns the ids of all registered strategies."""
    return _strategies.ids()


def list_problems() -> list[str]:
    """Returns the ids of all registered problems."""
    return _problems.ids()


def register_strategy(id: str, factory: str | Callable[..., Strategy] | None = None) -> Any:
    """Registers a strategy: a class, a function that returns one, or a lazy `"module:attribute"` spec.

    Also a decorator: `@zoo.register_strategy("my_es")` above the class.

    Raises:
        TypeError: If the id is not a non-empty string, or the factory is neither callable nor text.
        ValueError: If the id is taken, or the factory is text that is not of the form `"module:attribute"`.
    """
    return _strategies.register(id, factory)


def register_problem(id: str, factory: str | Callable[..., Problem] | None = None) -> Any:
    """Registers a problem: a class, a function that returns one, or a lazy `"module:attribute"` spec.

    Also a decorator: `@zoo.register_problem("mine/my_problem")` above the class.

    Raises:
        TypeError: If the id is not a non-empty string, or the factory is neither callable nor text.
        ValueError: If the id is taken, or the factory is text that is not of the form `"module:attribute"`.
    """
    return _problems.register(id, factory)


def valid_settings(given: str | Mapping[str, Any], kind: str) -> list[str]:
    """Returns the names of an id's settings.

    Args:
        given: A registered id, or a dictionary of it and settings.
        kind: `"strategy"` or `"problem"`.
    """
    registry = _registry(kind)
    factory, _ = registry.factory(registry.spec(given)[0])
    return [name for name in inspect.signature(factory).parameters if name not in internal_fields(factory)]


def describe(id: str, width: int = 80) -> str:
    """Returns a description of a strategy or a problem, its settings with defaults and bounds, and its references.

    Args:
        id: A registered id.
        width: Maximal number of characters of a line.

    Raises:
        ValueError: If the id is unknown. The message has the nearest ids.
        TypeError: If the id is not text.

    >>> import zoo
    >>> zoo.describe("cma_es").splitlines()[0]
    'cma_es, a strategy'
    """
    if not isinstance(id, str):
        raise TypeError(f"describe expects an id such as 'open_es' or 'rl/CartPole-v1', got {shown(id)}.")
    kind = "a strategy"
    try:
        factory, name = _strategies.factory(id)
    except ValueError:
        kind = "a problem"
        try:
            factory, name = _problems.factory(id)
        except ValueError:
            near = [near for registry in (_strategies, _problems) for near in registry.nearest(id)]
            raise ValueError(
                f"Unknown id {shown(id)}.{_did_you_mean(near)} There are {_strategies.count()} and "
                f"{_problems.count()}: `zoo list` prints their ids."
            ) from None
    fixed = () if name is None else (factory.namespace_field,)
    return manual(f"{id}, {kind}", factory, {*internal_fields(factory), *fixed}, width)


def catalogue(kind: str) -> list[tuple[str, str, list[str]]]:
    """Returns the rows of a registry: the id, the first line of the docstring, and the names if it is a namespace.

    A row that another package added and that cannot be imported is left out, with a warning that names the package.

    Args:
        kind: `"strategy"` or `"problem"`.
    """
    registry = _registry(kind)
    registry.ids()  # adds the rows of other distributions
    rows = []
    for id in sorted(registry.rows):
        try:
            factory = registry.load(id)
        except BrokenPluginError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        summary = (inspect.getdoc(factory) or "").partition("\n")[0]
        rows.append((id, summary, factory.names() if id.endswith("/*") else []))
    return rows


def resolve(strategy: StrategyLike, problem: ProblemLike) -> tuple[Strategy, Problem]:
    """Returns a strategy and a problem as instances, with open settings of the strategy filled in."""
    problem = given_problem(problem)
    if isinstance(strategy, Strategy):
        start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
        return strategy.for_solution(start), problem
    return _make_strategy(strategy, {}, problem), problem
