"""Damaged and hostile folders of benchmarks: damaged parts are left out, and a warning names them."""

import dataclasses

import pandas as pd
import pytest

import zoo
from tests.benchmarking.test_results import curves_to, make_pair, make_results
from tests.benchmarking.test_runtimes import timed_pair
from tests.faults import MARKUP, Sandbox, damages, files_of, gathered, hostile_values, snapshot, some_hostile_files
from zoo.benchmarking.pair import Pair, file_name
from zoo.loop.files import DamagedError, beside, remove

NAN = float("nan")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "benchmark"
    timed = timed_pair("a", "p", [1.0], [[5.0], [NAN]], [40, 50])
    failed = make_pair("b", "p", [], error="ValueError: no")
    make_results(timed, failed, make_pair("c", "p", curves_to(3.0, 4.0))).save(folder)
    return folder


@pytest.fixture(autouse=True)
def no_flush(monkeypatch):
    """Does not flush files to the disk, which is slow and is not needed without a power failure."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def sandbox(saved, tmp_path):
    return Sandbox(tmp_path, saved)


def test_whatever_is_damaged_is_named_and_the_rest_is_used(saved, sandbox):
    names = files_of(saved)
    assert len(names) == 1 + 4 + 2 + 3  # benchmark.json, and the files of the pairs
    whole = zoo.Results.load(saved)
    sandbox.reset()
    for name in names:
        for fault, damage in damages(sandbox, name).items():
            sandbox.reset(name)
            damage(sandbox.thing / name)
            with gathered() as messages:
                results = None
                results = zoo.Results.load(sandbox.thing)
            assert len(messages) == 1, (name, fault, messages)
            assert name in messages[0], (name, fault, messages)
            if results is None:
                assert name == "benchmark.json"
                continue
            (label,) = {"a", "b", "c"} - {pair.strategy for pair in results.pairs}
            assert f"p__{label}/" in name
            assert results.final.value.sum() == whole.final.value[whole.final.strategy != label].sum()
        sandbox.reset(name)
    sandbox.check()


def test_damaged_pairs_are_computed_again(tmp_path):
    """One warning names the damaged files. Other pairs are not touched, whatever their labels are."""
    search = zoo.make_strategy("random_search", population_size=4)
    labels = ["a", "b/../../x", "c", "d", "e"]
    settings = {"num_seeds": 2, "num_steps": 8, "num_scores": 1, "progress": False, "out": tmp_path}

    def compute():
        return zoo.benchmark({"s": search}, dict.fromkeys(labels, zoo.make_problem("blackbox/sphere")), **settings)

    results = compute()
    a, b, c, d, e = (tmp_path / "pairs" / f"{file_name(label)}__s" for label in labels)
    text = (a / "curve.csv").read_text()
    (a / "curve.csv").write_text(text[: text.rindex("1,2,")])  # well-formed, but with one seed less
    (b / "solution.npz").write_bytes(b"")
    (c / "pair.json").write_text("{}")
    remove(d)
    d.write_text("somebody's")
    (tmp_path / "benchmark.json").write_text("")
    before = snapshot(e)
    with gathered() as messages:
        again = compute()
    (message,) = messages
    for path in (a / "curve.csv", b / "solution.npz", c / "pair.json", d):
        assert f"{path} is damaged" in message or f"{path}/pair.json is damaged" in message
    assert snapshot(e) == before
    for other in (again, zoo.Results.load(tmp_path)):
        assert other.final.drop(columns="seconds").equals(results.final.drop(columns="seconds"))
    assert d.with_name(f"{d.name}.old").read_text() == "somebody's"


@pytest.mark.parametrize("facts", [{"num_dims": 0}, {"num_dims": 10**400}, {"seconds": 10**400}, {"num_seeds": 10**12}])
def test_numbers_that_nothing_can_be_computed_with(facts, tmp_path):
    pair = timed_pair("a", "p", [1.0], [[5.0], [NAN]], [40, 50])
    dataclasses.replace(pair, info={**pair.info, **facts}).save(tmp_path)
    with pytest.raises(DamagedError):
        Pair.load(tmp_path, "a", "p")


def test_seeds_that_were_promised_are_counted(tmp_path):
    pair = make_pair("a", "p", curves_to(1.0, 2.0))
    dataclasses.replace(pair, curve=pair.curve[pair.curve.seed == 0]).save(tmp_path)
    with pytest.raises(DamagedError, match=r"curve.csv is damaged: it does not have the rows of 2 seeds"):
        Pair.load(tmp_path, "a", "p")


def test_hostile_contents_reach_nothing_outside(saved, sandbox):
    values = hostile_values(sandbox)
    sandbox.reset()
    for name in files_of(saved):
        for number, write in enumerate(some_hostile_files(saved / name, values)):
            write(sandbox.thing / name)
            with gathered():
                results = zoo.Results.load(sandbox.thing)
                results.save(sandbox.folder / "saved")
                if number % 10 == 0:
                    results.summary()
            sandbox.reset(name)
    sandbox.check()


def test_links_are_not_followed_where_it_is_written(saved, sandbox):
    """There are links to folders and files elsewhere, at every place that is written."""
    results = zoo.Results.load(saved)
    files = [path.relative_to(saved) for path in sorted(saved.rglob("*")) if path.is_file()]
    pictures = [type(saved)(name) for name in ("report.md", "curves_p.png")]
    folders = [files[-1].parents[1]], [files[-1].parent]
    for places in (files, [beside(path) for path in files], *folders, pictures):
        for target in ("copy", "round_00.npz", "none"):
            sandbox.reset()
            for place in places:
                remove(sandbox.thing / place)
                (sandbox.thing / place).symlink_to(sandbox.outside / target)
            results.save(sandbox.thing)
            if places == pictures and target == "round_00.npz":
                results.report(sandbox.thing)
            assert zoo.Results.load(sandbox.thing).curves.equals(results.curves)
    sandbox.check()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_are_text_in_a_report(tmp_path):
    label = f"{MARKUP} $\\frac$"
    results = make_results(make_pair(label, label, curves_to(1.0, 2.0)), make_pair("b", label, [], error=MARKUP))
    results.pairs[0].info["strategy_settings"] = {"name": MARKUP}
    results.save(tmp_path)
    text = zoo.Results.load(tmp_path).report(tmp_path).read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\[red\\]\\`\\|" in text
    assert "\n# x" not in text
    assert text.count("`") == 2 * len(results.pairs) + text.count("\\`")


def test_what_was_written_beside_its_place_is_found(saved, sandbox):
    """The process was killed after the index was replaced, but before the other files were."""
    whole = zoo.Results.load(saved)
    sandbox.reset()
    for path in sandbox.thing.rglob("curve.csv"):
        path.rename(beside(path))
        path.write_text("old")
    with gathered() as messages:
        pd.testing.assert_frame_equal(zoo.Results.load(sandbox.thing).curves, whole.curves, check_exact=True)
    assert messages == []


def test_the_index_of_a_benchmark_says_what_to_do(saved, sandbox):
    sandbox.reset()
    (sandbox.thing / "benchmark.json").write_text("{")
    with pytest.raises(DamagedError, match=r"benchmark\(\.\.\., out=.*\) writes it again and keeps finished pairs"):
        zoo.Results.load(sandbox.thing)
