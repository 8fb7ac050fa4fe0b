"""Comparing strategies on problems with one call."""

import datetime
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.benchmarking.results import CURVE_COLUMNS
from zoo.loop.files import read_json, write_json

TRACES = []
SWITCHES = {"interrupt": False, "fail": False}
TRACES_TO_COMPARE = 2  # traces of a function that compute its identity


def random_start(key):
    return jax.random.normal(key, (3,))


def bowl(x):
    return jnp.sum((x - 1) ** 2)


def centered(x, center):
    return jnp.sum((x - center) ** 2)


def temperamental(x):
    """A problem that fails while it is traced, if it is told to."""
    if SWITCHES["interrupt"]:
        raise KeyboardInterrupt
    if SWITCHES["fail"]:
        raise RuntimeError("out of luck")
    return jnp.sum(x**2)


def fresh(fn):
    """Returns a function that counts its traces and for which no program was compiled yet."""

    def counting(x):
        TRACES.append(fn.__name__)
        return fn(x)

    counting.__qualname__ = counting.__name__ = fn.__name__
    return counting


BOWL = zoo.from_function(bowl, random_start)
SEARCH = zoo.make_strategy("random_search", population_size=4)
SNES = zoo.make_strategy("snes", population_size=4)
TINY = {"num_seeds": 2, "num_steps": 8, "num_scores": 1, "progress": False}
SETTINGS = {
    "num_seeds": 3,
    "num_steps": {"bowl": 24},  # the other problem gets its suggestion, 1 000 per dimension
    "num_scores": 3,
    "strategy_settings": {
        "random_search": {"population_size": 4},
        "snes": {"population_size": 4, "sigma": 0.5},
        ("snes", "bowl"): {"sigma": 0.25, "std_learning_rate": 0.1},
    },
    "problem_settings": {"ball": {"num_dims": 2}},
    "progress": False,
}


def run_all(**settings):
    problems = {"bowl": BOWL, "ball": "blackbox/sphere"}
    return zoo.benchmark(["random_search", "snes"], problems, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def results():
    return run_all()


@pytest.fixture
def switches():
    yield SWITCHES
    SWITCHES.update(dict.fromkeys(SWITCHES, False))


def without_clock(frame):
    return frame.drop(columns="seconds")


# What comes out


def test_curves(results):
    curves = results.curves
    assert tuple(curves) == CURVE_COLUMNS
    assert len(curves) == 4 * 3 * 4
    assert curves.metric.unique().tolist() == ["fitness"]
    assert [(pair.strategy, pair.problem) for pair in results.pairs] == [
        *(("random_search", "bowl"), ("snes", "bowl"), ("random_search", "ball"), ("snes", "ball"))
    ]
    assert np.isfinite(curves.value).all()
    for pair in results.pairs:
        assert not pair.info["error"]
        assert sorted(pair.curve.seed.unique()) == [0, 1, 2]
        for _, rows in pair.curve.groupby("seed"):
            np.testing.assert_array_equal(rows.steps, 4 * rows.generation)
            assert rows.generation.tolist() == ([0, 2, 4, 6] if pair.problem == "bowl" else [0, 167, 334, 500])
            assert rows.seconds.iloc[0] == 0
            assert (np.diff(rows.seconds) > 0).all()
        assert pair.info["seconds"] == pair.curve.seconds.max()
        assert pair.info["compile_seconds"] > 0
        assert pair.info["load"].keys() == {"cores", "busy_others"}


def test_final(results):
    assert len(results.final) == 4 * 3
    assert results.final.steps.tolist() == [24] * 6 + [2000] * 6
    last = results.pairs[1].curve.query("generation == 6").value.to_numpy()
    np.testing.assert_array_equal(results.scores("snes", "bowl"), last)


def test_summary(results):
    summary = results.summary()
    assert summary.problem.tolist() == ["ball", "ball", "bowl", "bowl"]
    assert summary.strategy.tolist() == ["snes", "random_search", "random_search", "snes"]
    assert summary["rank"].tolist() == [1, 1, 1, 1]  # the intervals of three seeds are wide, and overlap
    assert summary.steps.tolist() == [2000, 2000, 24, 24]
    assert (summary.num_seeds == 3).all()
    assert len(results.failures) == 0


def test_solutions(results):
    for pair in results.pairs:
        mean = pair.solution["mean"]
        assert mean.shape == (3, 3 if pair.problem == "bowl" else 2)
    values = jax.vmap(bowl)(results.pair("snes", "bowl").solution["mean"])
    np.testing.assert_allclose(values, results.scores("snes", "bowl"), rtol=1e-5)


def test_seeds_start_alike_for_every_strategy(results):
    start = results.curves[results.curves.generation == 0]
    for problem in ("bowl", "ball"):
        one, other = (start[(start.problem == problem) & (start.strategy == s)] for s in ("random_search", "snes"))
        np.testing.assert_array_equal(one.value, other.value)
        assert one.value.nunique() == 3


def test_seeds_are_runs_of_their_own(results):
    strategy = zoo.make_strategy("snes", population_size=4, sigma=0.25, std_learning_rate=0.1)
    for seed in range(3):
        key = jax.random.fold_in(jax.random.key(0), seed)
        run = zoo.run(strategy, BOWL, key, num_steps=24, num_scores=3)
        rows = results.pair("snes", "bowl").curve.query("seed == @seed")
        np.testing.assert_allclose(rows.value, run.scores["fitness"], rtol=1e-5)


def test_the_key_decides(results):
    again = run_all()
    pd.testing.assert_frame_equal(without_clock(again.curves), without_clock(results.curves), check_exact=True)
    again = run_all(key=jax.random.key(0))
    pd.testing.assert_frame_equal(without_clock(again.curves), without_clock(results.curves), check_exact=True)
    other = run_all(key=1)
    values = other.curves.value[other.curves.value > 0]  # at the optimum the values are equal for all keys
    assert len(values) > 20
    assert not np.isin(values, results.curves.value).any()


def test_the_first_seeds_do_not_depend_on_how_many_there_are(results):
    fewer = zoo.benchmark(
        {"snes": SNES.replace(sigma=0.25, std_learning_rate=0.1)},
        {"bowl": BOWL},
        num_seeds=2,
        num_steps=24,
        num_scores=3,
        progress=False,
    )
    np.testing.assert_allclose(fewer.scores("snes", "bowl"), results.scores("snes", "bowl")[:2], rtol=1e-5)


@pytest.mark.parametrize("num_seeds", [np.int64(2), np.int32(2)])
def test_numpy_numbers(num_seeds, tmp_path):
    settings = {**TINY, "num_seeds": num_seeds, "num_steps": np.int64(8), "key": np.int64(0)}
    results = zoo.benchmark({"s": SEARCH}, {"bowl": BOWL}, out=tmp_path, **settings)
    assert len(results.scores("s", "bowl")) == 2
    assert zoo.Results.load(tmp_path).metadata["num_seeds"] == 2


def test_metadata(results):
    metadata = results.metadata
    assert metadata["versions"]["jax"] == jax.__version__
    assert metadata["versions"]["es-zoo"]
    assert metadata["device"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }
    assert metadata["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", metadata["git_commit"])
    assert metadata["num_seeds"] == 3
    assert metadata["key"] == run_all(key=jax.random.key(0), num_seeds=3).metadata["key"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(metadata["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


# Settings


def test_settings_of_a_pair_win(results):
    described = {(p.strategy, p.problem): p.info["strategy_settings"] for p in results.pairs}
    assert described["snes", "bowl"]["sigma"] == 0.25
    assert described["snes", "bowl"]["std_learning_rate"] == 0.1
    assert described["snes", "ball"]["sigma"] == 0.5
    assert described["snes", "ball"]["std_learning_rate"] is None
    assert all(settings["population_size"] == 4 for settings in described.values())


def test_suggestions_are_used_and_recorded(results):
    described = {(p.strategy, p.problem): p.info["strategy_settings"] for p in results.pairs}
    assert described["random_search", "ball"]["sigma"] == 2.0  # what the problem suggests
    assert described["random_search", "bowl"]["sigma"] == 1.0  # the strategy's own default


def test_problem_settings_and_budgets_are_recorded(results):
    ball = results.pair("snes", "ball").info
    assert ball["problem_settings"]["num_dims"] == 2
    assert ball["num_steps"] == 2000
    assert ball["num_seeds"] == 3
    assert results.pair("snes", "bowl").info["num_steps"] == 24
    assert (ball["headline"], ball["maximize"]) == ("fitness", False)


# Labels


def test_labels_of_ids_and_instances():
    settings = {"random_search": {"population_size": 4}}
    results = zoo.benchmark(["random_search", SNES], BOWL, strategy_settings=settings, **TINY)
    assert [(pair.strategy, pair.problem) for pair in results.pairs] == [
        ("random_search", "FunctionProblem"),
        ("SNES", "FunctionProblem"),
    ]
    results = zoo.benchmark(SNES, {"one": BOWL, "two": BOWL}, **TINY)
    assert results.scores("SNES", "one").tolist() == results.scores("SNES", "two").tolist()


def test_one_strategy_twice():
    strategies = {"small": SNES.replace(sigma=0.01), "large": SNES.replace(sigma=1.0)}
    results = zoo.benchmark(strategies, {"bowl": BOWL}, **TINY)
    assert results.scores("small", "bowl").tolist() != results.scores("large", "bowl").tolist()


@pytest.mark.parametrize(
    ("strategies", "problems", "label"),
    [
        (["snes", "snes"], {"bowl": BOWL}, "snes"),
        ([SNES, SNES.replace(sigma=1.0)], {"bowl": BOWL}, "SNES"),
        (["snes"], [BOWL, BOWL], "FunctionProblem"),
        (["snes"], ["blackbox/sphere", "blackbox/sphere"], "blackbox/sphere"),
    ],
)
def test_a_label_used_twice(strategies, problems, label):
    with pytest.raises(ValueError, match=f"have the label '{label}'.*mapping"):
        zoo.benchmark(strategies, problems, **TINY)


@pytest.mark.parametrize(
    ("argument", "value", "label"),
    [
        ("strategy_settings", {"sness": {"sigma": 0.1}}, "'sness'"),
        ("strategy_settings", {("snes", "bowk"): {"sigma": 0.1}}, r"\('snes', 'bowk'\)"),
        ("strategy_settings", {"bowl": {"sigma": 0.1}}, "'bowl'"),
        ("problem_settings", {"boll": {"num_dims": 2}}, "'boll'"),
        ("num_steps", {"bowk": 10}, "'bowk'"),
    ],
)
def test_a_typo_in_a_label(argument, value, label):
    with pytest.raises(ValueError, match=f"{argument} has an entry for {label}"):
        zoo.benchmark(["snes"], {"bowl": BOWL}, **{**TINY, argument: value})


# Mistakes show before anything runs


@pytest.mark.parametrize(
    ("strategies", "extra", "settings", "error", "message"),
    [
        (["snes", "sness"], {}, {}, ValueError, "Unknown strategy 'sness'"),
        (["snes"], {"b": "blackbox/spere"}, {}, ValueError, "Unknown problem 'blackbox/spere'"),
        (["snes"], {}, {"strategy_settings": {"snes": {"sgima": 1}}}, TypeError, "no setting 'sgima'"),
        (["snes"], {}, {"strategy_settings": {("snes", "bowl"): {"sigma": -1}}}, ValueError, "greater than 0"),
        ({"snes": SNES}, {}, {"strategy_settings": {"snes": {"sigma": 1}}}, TypeError, "already made"),
        (["snes"], {}, {"problem_settings": {"bowl": {"num_dims": 3}}}, TypeError, "already made"),
        (["snes"], {}, {"num_seeds": 0}, ValueError, "num_seeds must be"),
        (["snes"], {}, {"num_seeds": 2.0}, TypeError, "num_seeds must be"),
        (["snes"], {}, {"num_seeds": True}, TypeError, "num_seeds must be"),
        (["snes"], {}, {"num_steps": 0}, ValueError, "num_steps must be"),
        (["snes"], {}, {"num_steps": {"bowl": -3}}, ValueError, "num_steps must be"),
        (["snes"], {}, {"num_scores": 0}, ValueError, "num_scores must be"),
        ([], {}, {}, ValueError, "at least one strategy"),
        ([3], {}, {}, TypeError, "strategy"),
        (["snes"], {"b": bowl}, {}, TypeError, "problem"),
    ],
)
def test_mistakes_show_before_anything_runs(strategies, extra, settings, error, message, tmp_path):
    TRACES.clear()
    problem = zoo.from_function(fresh(bowl), random_start)
    with pytest.raises(error, match=message):
        zoo.benchmark(strategies, {"bowl": problem, **extra}, out=tmp_path, **{**TINY, **settings})
    assert TRACES == []
    assert list(tmp_path.iterdir()) == []


def test_no_problems():
    with pytest.raises(ValueError, match="at least one problem"):
        zoo.benchmark(["snes"], {}, **TINY)


# Failures


def test_a_failing_pair_does_not_lose_the_others(switches, tmp_path):
    switches["fail"] = True
    problems = {"first": zoo.from_function(temperamental, jnp.ones(2)), "bowl": BOWL}
    results = zoo.benchmark({"search": SEARCH, "snes": SNES}, problems, out=tmp_path, **TINY)
    assert results.failures.to_dict("records") == [
        {"strategy": "search", "problem": "first", "error": "RuntimeError: out of luck"},
        {"strategy": "snes", "problem": "first", "error": "RuntimeError: out of luck"},
    ]
    assert "temperamental" in results.pair("snes", "first").info["traceback"]
    assert results.pair("snes", "first").info["strategy_settings"]["sigma"] == 0.1
    assert np.isfinite(results.scores("snes", "bowl")).all()
    assert results.curves.problem.unique().tolist() == ["bowl"]
    assert results.summary().query("problem == 'first'").score.isna().all()
    assert zoo.Results.load(tmp_path).failures.to_dict() == results.failures.to_dict()


def test_missing_data_fails_only_its_own_pairs(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    results = zoo.benchmark({"search": SEARCH}, {"mnist": "supervised/mnist", "bowl": BOWL}, out=tmp_path, **TINY)
    (failure,) = results.failures.to_dict("records")
    assert (failure["strategy"], failure["problem"]) == ("search", "mnist")
    assert failure["error"].startswith("FileNotFoundError:")
    assert "ZOO_DATA" in failure["error"]
    assert len(results.scores("search", "bowl")) == 2
    results.report(tmp_path)
    assert zoo.Results.load(tmp_path).summary().strategy.tolist() == ["search", "search"]


def test_a_strategy_that_does_not_fit_fails_alone():
    class Needy(type(SEARCH)):
        def takes_surrogate(self, state):
            return True

    class Rough(zoo.FunctionProblem):
        @property
        def differentiable(self):
            return False

    problem = Rough(fn=bowl, init_fn=random_start)
    results = zoo.benchmark({"needy": Needy(population_size=4), "search": SEARCH}, {"rough": problem}, **TINY)
    assert results.failures.strategy.tolist() == ["needy"]
    assert "surrogate gradient" in results.failures.error[0]
    assert results.summary().strategy.tolist() == ["search", "needy"]


# Folders


def count_traces(call):
    TRACES.clear()
    result = call()
    return len(TRACES), result


def test_finished_pairs_are_not_computed_again(tmp_path):
    def call(**settings):
        problems = {"bowl": zoo.from_function(fresh(bowl), random_start)}
        sigma = settings.pop("sigma", 0.1)
        strategies = {"search": SEARCH, "other": SEARCH.replace(sigma=sigma)}  # they share programs
        return count_traces(lambda: zoo.benchmark(strategies, problems, out=tmp_path, **{**TINY, **settings}))

    traced, first = call()
    assert traced > TRACES_TO_COMPARE
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("pair.json")}
    assert len(saved) == 2
    traced, second = call()
    assert traced == TRACES_TO_COMPARE
    assert {path: path.stat().st_mtime_ns for path in saved} == saved
    pd.testing.assert_frame_equal(second.curves, first.curves, check_exact=True)
    assert [pair.info for pair in second.pairs] == [pair.info for pair in first.pairs]

    # With another setting of one strategy, only its pair is computed again.
    traced, third = call(sigma=0.2)
    assert traced > TRACES_TO_COMPARE
    changed = [path for path in saved if path.stat().st_mtime_ns != saved[path]]
    assert ["other" in str(path) for path in changed] == [True]
    assert third.scores("search", "bowl").tolist() == first.scores("search", "bowl").tolist()
    assert third.scores("other", "bowl").tolist() != first.scores("other", "bowl").tolist()
    assert zoo.Results.load(tmp_path).scores("other", "bowl").tolist() == third.scores("other", "bowl").tolist()


@pytest.mark.parametrize("changed", [{"key": 1}, {"num_seeds": 3}, {"num_steps": 16}, {"num_scores": 2}, {"data": 2.0}])
def test_another_benchmark_is_computed_again(changed, tmp_path):
    def call(data=1.0, **settings):
        problem = zoo.from_function(centered, jnp.zeros(2), data=(jnp.array(data),))
        return zoo.benchmark({"search": SEARCH}, {"bowl": problem}, out=tmp_path, **{**TINY, **settings})

    call()
    (path,) = tmp_path.rglob("pair.json")
    before = path.stat().st_mtime_ns
    results = call(**changed)
    assert path.stat().st_mtime_ns != before
    assert len(results.scores("search", "bowl")) == changed.get("num_seeds", 2)


@pytest.fixture
def moody(switches, tmp_path):
    """Benchmarks a problem that works, and a second one that fails if the switches say so."""

    def other(x):
        return temperamental(x)

    problems = {"bowl": BOWL, "other": zoo.from_function(other, random_start)}
    return lambda: zoo.benchmark({"search": SEARCH}, problems, out=tmp_path, **TINY)


def saved_at(folder):
    return {json.loads(path.read_text())["problem"]: path.stat().st_mtime_ns for path in folder.rglob("pair.json")}


def test_a_failed_pair_is_tried_again(moody, switches, tmp_path):
    switches["fail"] = True
    assert moody().failures.problem.tolist() == ["other"]
    before = saved_at(tmp_path)
    switches["fail"] = False
    results = moody()
    after = saved_at(tmp_path)
    assert (before["bowl"] == after["bowl"], before["other"] == after["other"]) == (True, False)
    assert len(results.failures) == 0
    assert np.isfinite(results.scores("search", "other")).all()
    assert len(zoo.Results.load(tmp_path).failures) == 0


def test_an_interrupted_benchmark_keeps_what_is_finished(moody, switches, tmp_path):
    switches["interrupt"] = True
    with pytest.raises(KeyboardInterrupt):
        moody()
    kept = zoo.Results.load(tmp_path)
    assert [(pair.strategy, pair.problem) for pair in kept.pairs] == [("search", "bowl")]
    assert len(kept.scores("search", "bowl")) == 2
    before = saved_at(tmp_path)
    switches["interrupt"] = False
    results = moody()
    assert saved_at(tmp_path)["bowl"] == before["bowl"]
    assert [pair.problem for pair in results.pairs] == ["bowl", "other"]
    assert results.scores("search", "bowl").tolist() == kept.scores("search", "bowl").tolist()


def test_what_is_saved_is_what_was_returned(results, tmp_path):
    saved = run_all(out=tmp_path / "new" / "folder")
    loaded = zoo.Results.load(tmp_path / "new" / "folder")
    pd.testing.assert_frame_equal(loaded.curves, saved.curves, check_exact=True)
    pd.testing.assert_frame_equal(loaded.summary(), saved.summary(), check_exact=True)
    assert loaded.metadata == saved.metadata
    pd.testing.assert_frame_equal(without_clock(loaded.curves), without_clock(results.curves), check_exact=True)
    for one, other in zip(loaded.pairs, saved.pairs, strict=True):
        np.testing.assert_array_equal(one.solution["mean"], other.solution["mean"])


def test_a_folder_that_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises((OSError, ValueError), match="file"):
        zoo.benchmark({"search": SEARCH}, {"bowl": BOWL}, out=file, **TINY)
    assert file.read_text() == "mine"


def test_figures_and_report(results, tmp_path):
    figure = results.plot()
    assert [[line.get_label() for line in axis.lines] for axis in figure.axes] == [["random_search", "snes"]] * 4
    text = results.report(tmp_path).read_text()
    for label in ("random_search", "snes", "bowl", "ball"):
        assert label in text
    assert "| ball | snes | " in text.partition("## Runtimes")[2]
    pictures = {"curves_bowl.png", "curves_ball.png", "runtime_ecdf.png", "data_profile.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == pictures


def test_programs_are_dropped_now_and_then(monkeypatch):
    """Thousands of compiled programs would use up the memory maps of a process, and crash it."""
    monkeypatch.setattr("zoo.loop.compiled.MAX_PROGRAMS", 2)
    problems = {str(i): zoo.from_function(fresh(bowl), jnp.zeros(i)) for i in range(1, 4)}
    results = zoo.benchmark({"search": SEARCH}, problems, **TINY)
    assert not len(results.failures)
    assert zoo.loop.compiled.advance.num_programs == 1


# Another program


def scaled(factor):
    """Returns a function with the same name and place, but with another constant."""
    names = {"jnp": jnp}
    exec(compile(f"def scaled(x):\n    return {factor} * jnp.sum(x**2)", "user_code.py", "exec"), names)
    return names["scaled"]


def test_another_function_of_the_same_name_is_computed_again(tmp_path, capsys):
    def call(factor, **settings):
        problems = {"scaled": zoo.from_function(scaled(factor), jnp.ones(2)), "bowl": BOWL}
        return zoo.benchmark({"search": SEARCH}, problems, out=tmp_path, **{**TINY, "progress": True, **settings})

    first = call(1.0)
    assert "pair" not in capsys.readouterr().err
    edited = call(2.0)
    assert edited.scores("search", "scaled").tolist() == [2 * x for x in first.scores("search", "scaled")]
    today = edited.metadata["date"][:10]
    assert capsys.readouterr().err.splitlines() == [
        f"1 pair reused from {tmp_path}/, computed {today}",
        f"1 pair in {tmp_path}/ computed again, because of a difference: code of the problem",
    ]
    before = saved_at(tmp_path)
    call(2.0, fresh=True)
    assert all(saved_at(tmp_path)[name] > before[name] for name in before)
    assert capsys.readouterr().err == ""


def test_pairs_of_another_version_are_computed_again_unless_they_are_accepted(tmp_path, caplog):
    def call(**settings):
        return zoo.benchmark({"search": SEARCH}, {"bowl": BOWL}, out=tmp_path, **{**TINY, **settings})

    call()
    (path,) = tmp_path.rglob("pair.json")
    info = read_json(path)
    info["identity"]["versions"]["jax"] = "0.1"
    write_json(path, info)
    before = path.read_bytes()
    with caplog.at_level("INFO", logger="zoo"):
        call(accept_versions=True)
        assert path.read_bytes() == before
        call()
    assert f"because of a difference: jax: 0.1 there, {jax.__version__} here" in caplog.messages[-1]
    assert read_json(path)["identity"]["versions"]["jax"] == jax.__version__


def test_pairs_of_another_precision_are_computed_again(tmp_path):
    def call():
        problem = zoo.make_problem("blackbox/sphere", num_dims=2)
        return zoo.benchmark({"search": SEARCH}, {"ball": problem}, out=tmp_path, **TINY)

    call()
    with jax.enable_x64(True):
        double = call().pair("search", "ball").solution["mean"]
    assert double.dtype == np.float64
