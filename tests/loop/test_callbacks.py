"""Callbacks: when they are called, what they see, and what errors in them do. The TensorBoard writer."""

import builtins
import json
import struct

import numpy as np
import pytest

import zoo
from tests.loop.examples import BOWL, BUDGET, PAIRS, SNES, Walk, assert_same, assert_same_run
from tests.loop.test_diagnosis import CIRCLE


class Recorder(zoo.Callback):
    """Keeps what it is told."""

    def __init__(self, stop_at=None, error_at=None):
        self.told, self.facts, self.seen, self.results = [], [], [], []
        self._stop_at, self._error_at = stop_at, error_at

    def start(self, facts):
        self.told.append("start")
        self.facts.append(facts)

    def __call__(self, progress):
        self.told.append(progress.generation)
        self.seen.append(progress)
        if progress.generation == self._error_at:
            raise ArithmeticError("mine")
        return progress.generation == self._stop_at

    def end(self, result):
        self.told.append("end")
        self.results.append(result)


def test_calls_of_a_callback_change_no_numbers(result, walk):
    one, other, plain = Recorder(), Recorder(), []
    run = zoo.run(SNES, BOWL, 0, callback=[one, plain.append, other], callback_every=4, **BUDGET)
    assert_same_run(run, result)
    assert one.told == other.told == ["start", 4, 8, 10, "end"]
    assert [progress.generation for progress in plain] == [4, 8, 10]
    assert one.results == [run]
    every = Recorder()
    assert_same_run(zoo.run(PAIRS, Walk(), 0, callback=every, callback_every=1, num_generations=12, num_scores=6), walk)
    assert every.told == ["start", *range(1, 13), "end"]
    in_steps = Recorder()
    short = zoo.run(PAIRS, Walk(), 0, callback=in_steps, callback_every=3, num_steps=40, num_scores=7)
    assert in_steps.told == ["start", *range(3, short.num_generations, 3), short.num_generations, "end"]
    assert_same(in_steps.seen[-1].mean, short.mean)
    seldom = Recorder()
    zoo.run(SNES, BOWL, 0, callback=seldom, callback_every=1000, stop=zoo.Converged(tol_fun=1e3), num_generations=300)
    assert seldom.told == ["start", 100, "end"]


def test_what_a_callback_sees(result):
    told = Recorder()
    zoo.run(SNES, BOWL, 0, callback=told, callback_every=4, **BUDGET)
    for name, values in result.history.items():
        np.testing.assert_array_equal(np.concatenate([progress.history[name] for progress in told.seen]), values)
    generations = [progress.history["generation"].tolist() for progress in told.seen]
    assert generations == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    seconds = np.concatenate([progress.history["seconds"] for progress in told.seen])
    assert (np.diff(seconds, prepend=0) > 0).all()
    for progress in told.seen:
        latest = {name: values[progress.generation - 1] for name, values in result.history.items()}
        assert (progress.mean_fitness, progress.std_fitness) == (latest["mean_fitness"], latest["std_fitness"])
        assert progress.steps == latest["steps"]
        assert progress.seconds == progress.history["seconds"][-1]
    assert [progress.metrics["fitness"] for progress in told.seen] == result.scores["fitness"][[2, 4, 5]].tolist()
    (facts,) = told.facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["strategy"]["population_size"] == 6
    assert (facts["key"], facts["generation"], facts["budget"]["num_generations"]) == (0, 0, 10)


def test_a_callback_stops_between_scorings(tmp_path):
    told = Recorder(stop_at=3)
    stopped = zoo.run(SNES, BOWL, 0, callback=told, callback_every=1, checkpoint=tmp_path, **BUDGET)
    assert (stopped.stopped_by, stopped.num_generations) == ("callback", 3)
    assert told.told == ["start", 1, 2, 3, "end"]
    assert stopped.scores["generation"].tolist() == [0, 2, 3]
    assert zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET).num_generations == 10


@pytest.mark.parametrize("error_at", [1, 5, 10])
def test_an_error_of_a_callback_loses_nothing(error_at, result, tmp_path):
    broken, other = Recorder(error_at=error_at), Recorder()
    with pytest.raises(ArithmeticError, match="mine"):
        zoo.run(SNES, BOWL, 0, callback=(broken, other), callback_every=1, checkpoint=tmp_path, **BUDGET)
    assert broken.results == other.results == [None]
    assert other.told == ["start", *range(1, error_at), "end"]
    told = Recorder()
    assert_same_run(zoo.run(SNES, BOWL, 0, callback=told, callback_every=1, checkpoint=tmp_path, **BUDGET), result)
    saved = (error_at - 1) // 2 * 2  # checkpoints are made at the scorings
    assert told.told == ["start", *range(saved + 1, 11), "end"]
    assert told.facts[0]["generation"] == saved
    assert told.seen[0].history["generation"].tolist() == [saved + 1]


def test_a_resumed_run_shows_what_the_callback_has_not_seen(result, tmp_path):
    broken, told = Recorder(error_at=6), Recorder()
    settings = {"callback_every": 3, "checkpoint": tmp_path, **BUDGET}  # checkpoints at even generations
    with pytest.raises(ArithmeticError):
        zoo.run(SNES, BOWL, 0, callback=broken, **settings)
    assert_same_run(zoo.run(SNES, BOWL, 0, callback=told, **settings), result)
    assert told.facts[0]["generation"] == 4
    assert [progress.history["generation"].tolist() for progress in told.seen] == [[4, 5, 6], [7, 8, 9], [10]]
    done, longer = Recorder(), Recorder()
    assert_same_run(zoo.run(SNES, BOWL, 0, callback=done, **settings), result)
    assert done.told == ["start", "end"]
    zoo.run(start=result, callback=longer, callback_every=3, num_generations=12, num_scores=6)
    assert [progress.history["generation"].tolist() for progress in longer.seen] == [[11, 12]]


def test_no_progress_is_made_without_a_callback_that_sees_it(result, monkeypatch):
    def make(**_):
        raise AssertionError

    monkeypatch.setattr("zoo.loop.pauses.Progress", make)
    assert_same_run(zoo.run(SNES, BOWL, 0, callback=OnlyEnd(), **BUDGET), result)


def test_errors_of_the_end(result):
    class Broken(zoo.Callback):
        def end(self, result):
            raise ArithmeticError("at the end")

    others = [Recorder(), Recorder()]
    with pytest.raises(ArithmeticError, match="at the end"):
        zoo.run(SNES, BOWL, 0, callback=[others[0], Broken(), others[1]], **BUDGET)
    assert all(len(each.results) == 1 for each in others)
    with pytest.raises(ArithmeticError, match="mine"):  # the first error is the one to see
        zoo.run(SNES, BOWL, 0, callback=[Recorder(error_at=2), Broken()], **BUDGET)
    early = Recorder()
    with pytest.raises(ValueError, match="num_steps=5"):
        zoo.run(SNES, BOWL, 0, callback=early, num_steps=5)
    assert early.told == []


class OnlyEnd:
    def end(self, result):
        self.result = result


def test_what_can_be_a_callback(result):
    only = OnlyEnd()
    run = zoo.run(SNES, BOWL, 0, callback=[only], **BUDGET)
    assert only.result is run
    assert zoo.run(SNES, BOWL, 0, callback=[], **BUDGET).metrics == result.metrics
    with pytest.raises(TypeError, match=r"callback must be an object, got the class Recorder\. Make one: Recorder\("):
        zoo.run(SNES, BOWL, 0, callback=Recorder, **BUDGET)
    with pytest.raises(TypeError, match=r"callback must be a function of a zoo.Progress, .*, got 3\."):
        zoo.run(SNES, BOWL, 0, callback=[print, 3], **BUDGET)
    for bad in (0, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="callback_every must be"):
            zoo.run(SNES, BOWL, 0, callback=print, callback_every=bad, **BUDGET)


def events_of(folder):
    """Returns the events that a folder holds, by tag: pairs of a step and a value, in the order of writing."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        data = path.read_bytes()
        while data:  # a length and its checksum, the event and its checksum
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.session_log.status:
                found.setdefault("purged", []).append((event.step, None))
            for value in event.summary.value:
                text = value.tensor.string_val[0].decode() if value.tensor.string_val else value.simple_value
                found.setdefault(value.tag, []).append((event.step, text))
    return found


def assert_curve(events, steps, values):
    assert [step for step, _ in events] == list(steps)
    np.testing.assert_array_equal([value for _, value in events], np.asarray(values, np.float32))


def test_tensorboard_gets_the_numbers_of_the_run(tmp_path):
    folder, generations = tmp_path / "board", range(1, 11)
    writer = zoo.callbacks.TensorBoard(folder)
    result = zoo.run(SNES, CIRCLE, 0, callback=writer, callback_every=4, **BUDGET)
    events = events_of(folder)
    for name in ("best", "mean", "std", "worst"):
        assert_curve(events[f"fitness/{name}"], generations, result.history[f"{name}_fitness"])
    assert_curve(events["fitness/failed"], generations, result.history["failed"])
    assert_curve(events["aux/norm"], generations, result.history["aux/norm"])
    assert_curve(events["steps"], generations, result.history["steps"])
    assert_curve(events["score/fitness"], [4, 8, 10], result.scores["fitness"][[2, 4, 5]])
    assert_curve(events["search/sigma"], [4, 8, 10], result.scores["sigma"][[2, 4, 5]])
    assert events["fitness/best_so_far"][-1] == (10, np.float32(result.best_fitness))
    ((step, text),) = events["run/strategy/text_summary"]
    assert (step, '"population_size": 6' in text) == (0, True)


def test_tensorboard_continues_a_run(tmp_path):
    settings = {"callback_every": 1, "checkpoint": tmp_path / "run", **BUDGET}
    writer = zoo.callbacks.TensorBoard(tmp_path / "board")
    with pytest.raises(ArithmeticError):
        zoo.run(SNES, BOWL, 0, callback=[writer, Recorder(error_at=5)], **settings)
    result = zoo.run(SNES, BOWL, 0, callback=writer, **settings)
    events = events_of(tmp_path / "board")
    assert events["purged"] == [(1, None), (5, None)]  # TensorBoard drops what is there of generation 5
    assert [step for step, _ in events["fitness/best"]] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    best = dict(events["fitness/best"])
    np.testing.assert_array_equal([best[k] for k in range(1, 11)], np.float32(result.history["best_fitness"]))


def test_without_tensorboard_x(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ModuleNotFoundError("No module named 'tensorboardX'", name="tensorboardX")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"not installed, tensorboardX: pip install es-zoo\[tensorboard\]\.$"):
        zoo.callbacks.TensorBoard(tmp_path)
    monkeypatch.undo()
    with pytest.raises(TypeError, match=r"TensorBoard\(folder\) must be a folder"):
        zoo.callbacks.TensorBoard(3)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"TensorBoard\(folder\) cannot make .*file: File exists"):
        zoo.callbacks.TensorBoard(tmp_path / "file")
