"""Damaged and hostile checkpoints and saved runs, folders in use, and folders that cannot be written."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.faults import Sandbox, damages, files_of, gathered, hostile_values, read_only, snapshot, some_hostile_files
from tests.loop.examples import BOWL, BUDGET, SNES, assert_same_run
from zoo.loop.archive import archive, load_archive
from zoo.loop.call import load_call, save_call
from zoo.loop.files import DamagedError, beside, read_json, remove, write_file, write_json, write_parts
from zoo.loop.lock import FolderLock, UnwritableError

NEWEST, BEFORE = "checkpoint_00000010.npz", "checkpoint_00000008.npz"


@pytest.fixture(autouse=True)
def no_flush(monkeypatch):
    """Skips flushing to the disk, which is slow. These tests never lose power."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    zoo.run(SNES, BOWL, 0, checkpoint=folder, **BUDGET)
    return folder


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    result.save(folder)
    return folder


# Checkpoints


def test_a_damaged_checkpoint_is_followed_by_the_one_before(result, checkpoints, tmp_path):
    assert files_of(checkpoints) == ["call.json", BEFORE, NEWEST]
    sandbox = Sandbox(tmp_path, checkpoints)
    for fault, damage in damages(sandbox, NEWEST).items():
        sandbox.reset()
        damage(sandbox.thing / NEWEST)
        with gathered() as messages:
            seen = []
            resumed = zoo.run(SNES, BOWL, 0, checkpoint=sandbox.thing, callback=seen.append, **BUDGET)
        if fault == "missing":
            assert messages == []
        else:
            assert len(messages) == 1, (fault, messages)
            assert f"{NEWEST} is damaged: " in messages[0]
            assert "So the run goes on from the one before." in messages[0]
        assert [p.generation for p in seen] == [10], fault
        assert_same_run(resumed, result)
        assert files_of(sandbox.thing) == ["call.json", BEFORE, NEWEST]
    sandbox.check()


def test_without_any_good_checkpoint_a_run_starts_anew(result, checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path, dirs_exist_ok=True)
    for name in (BEFORE, NEWEST):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "checkpoint_99999999.npz").write_bytes(b"")  # it does not stay the newest forever
    (tmp_path / "20240101.npz").write_text("mine")
    with gathered() as messages:
        assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET), result)
    assert len(messages) == 1
    assert all(name in messages[0] for name in (BEFORE, NEWEST, "So the run starts anew."))
    assert files_of(tmp_path) == ["20240101.npz", "call.json", BEFORE, NEWEST]


def test_hostile_checkpoints(result, checkpoints, tmp_path):
    """Hostile checkpoints are refused as another run's or as damaged.

    What passes has the promised shapes and dtypes.
    """
    sandbox = Sandbox(tmp_path, checkpoints)
    sandbox.reset()
    for write in some_hostile_files(checkpoints / NEWEST, hostile_values(sandbox)):
        write(sandbox.thing / NEWEST)
        with gathered():
            zoo.run(SNES, BOWL, 0, checkpoint=sandbox.thing, **BUDGET)
        sandbox.reset(NEWEST)
    sandbox.check()


def test_a_checkpoint_of_other_dtypes_is_another_runs(checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path, dirs_exist_ok=True)
    tree, meta = load_archive(tmp_path / NEWEST)
    tree["carry"] = [x.astype(np.float64) if x.dtype == np.float32 else x for x in tree["carry"]]
    write_file(tmp_path / NEWEST, archive(tree, meta))
    with pytest.raises(ValueError, match="is of another run"):
        zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET)


# Saved runs


def test_damaged_runs_are_refused_by_name(saved, tmp_path):
    sandbox = Sandbox(tmp_path, saved)
    sandbox.reset()
    names = files_of(saved)
    assert names == ["arrays.npz", "curve.csv", "history.csv", "run.json"]
    for name in names:
        for fault, damage in damages(sandbox, name).items():
            damage(sandbox.thing / name)
            with gathered() as messages:
                zoo.load_run(sandbox.thing, BOWL, SNES)
            assert len(messages) == 1, (name, fault)
            assert name in messages[0], (name, fault)
            sandbox.reset(name)
        for write in some_hostile_files(saved / name, hostile_values(sandbox)):
            write(sandbox.thing / name)
            with gathered():
                zoo.load_run(sandbox.thing, BOWL, SNES)
            sandbox.reset(name)
    sandbox.check()


def test_a_saved_run_takes_the_place_of_links(result, saved, tmp_path):
    sandbox = Sandbox(tmp_path, saved)
    for name in [*files_of(saved), *(beside(pathlib.Path(name)) for name in files_of(saved)), ".lock"]:
        sandbox.reset()
        remove(sandbox.thing / name)
        (sandbox.thing / name).symlink_to(sandbox.outside / "round_00.npz")
        result.save(sandbox.thing)
        assert zoo.load_run(sandbox.thing, BOWL, SNES).metrics == result.metrics
    sandbox.check()


@pytest.mark.parametrize("name", ["run.json", "arrays.npz", "missing"])
def test_a_damaged_run_is_named_before_it_is_replaced(name, result, saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    if name == "missing":
        (tmp_path / "curve.csv").unlink()
    else:
        (tmp_path / name).write_bytes(b"{}")
    with gathered() as messages:
        result.save(tmp_path)
    assert len(messages) == 1
    assert f"{'curve.csv' if name == 'missing' else name} is damaged: " in messages[0]
    assert "The run that was saved there is replaced." in messages[0]
    with gathered() as messages:
        result.save(tmp_path)
    assert messages == []


def test_a_damaged_call_is_named_before_it_is_replaced(checkpoints, tmp_path):
    call = (checkpoints / "call.json").read_bytes()
    (tmp_path / "call.json").write_bytes(call[:-9])
    with gathered() as messages:
        save_call(tmp_path, load_call(checkpoints)[0])
        save_call(tmp_path, load_call(checkpoints)[0])
    assert len(messages) == 1
    assert "call.json is damaged: " in messages[0]
    assert "It is written again." in messages[0]
    assert (tmp_path / "call.json").read_bytes() == call


@pytest.mark.parametrize("is_killed", [True, False])
@pytest.mark.parametrize("when", range(20))
def test_interrupted_while_a_folder_is_replaced(when, is_killed, tmp_path, monkeypatch):
    """At every system call that renames or flushes, the folder is complete, with either the old contents or the new.

    An interrupted process may tidy up, a killed process cannot.
    """

    def contents(text):
        parts = {name: lambda file, name=name: file.write(f"{name} {text}".encode()) for name in "abc"}
        return {"text": text}, {**parts, "d": parts["a"] if text == "old" else None}

    def read():
        index = read_json(tmp_path / "index.json")
        found = {}
        for name, digest in index["files"].items():
            with zoo.loop.files.opened(tmp_path / name, digest) as file:
                found[name] = file.read().decode()
        assert found == {name: f"{'a' if name == 'd' else name} {index['text']}" for name in index["files"]}
        return index["text"]

    class KilledError(BaseException):
        pass

    write_parts(tmp_path, "index.json", *contents("old"))
    calls = []

    def counted(call):
        def killing(*args, **kwargs):
            calls.append(call)
            if len(calls) == when + 1 or (is_killed and len(calls) > when):
                raise KilledError
            return call(*args, **kwargs)

        return killing

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", counted(lambda file: None))
        for name in ("replace", "unlink"):
            patch.setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
        try:
            write_parts(tmp_path, "index.json", *contents("new"))
        except KilledError:
            assert read() in ("old", "new")
        else:
            assert read() == "new"
    write_parts(tmp_path, "index.json", *contents("new"))
    assert read() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "index.json"]


def test_contents_are_flushed_before_they_are_relied_on(tmp_path, monkeypatch):
    """Files are flushed before they are renamed, and folders afterwards, so that a loss of power cannot undo it."""
    events = []
    replace = pathlib.Path.replace
    monkeypatch.setattr("os.fsync", lambda file: events.append(pathlib.Path(os.readlink(f"/proc/self/fd/{file}")).name))
    monkeypatch.setattr(
        pathlib.Path, "replace", lambda old, new: events.append((old.name, new.name)) or replace(old, new)
    )
    write_parts(tmp_path, "index", {}, {"a": lambda file: file.write(b"1")})
    folder, index, part = tmp_path.name, (".index.new", "index"), (".a.new", "a")
    assert events == [".a.new", folder, ".index.new", folder, index, folder, part, folder]


# Archives


def test_an_archive_is_read_back_bit_for_bit(tmp_path):
    key = jax.random.key(0)
    tree = {
        "x": (1.0, [], {}, None),
        "half": [jnp.arange(3, dtype=jnp.bfloat16), jnp.arange(3, dtype=jnp.int4)],
        "empty": np.zeros((0, 3), np.int8),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.complex64(1j),
        "mask": np.array([True, False]),
    }
    write_file(tmp_path / "a.npz", archive({**tree, "key": key}, {"a": [1, None]}))
    loaded, facts = load_archive(tmp_path / "a.npz")
    assert facts == {"a": [1, None]}
    np.testing.assert_array_equal(loaded.pop("key"), jax.random.key_data(key))
    assert jax.tree.structure(loaded) == jax.tree.structure({**tree, "x": list(tree["x"])})
    for x, y in zip(jax.tree.leaves(loaded), map(np.asarray, jax.tree.leaves({**tree})), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
    assert {"0", "1", "2"} < {*np.load(tmp_path / "a.npz")}


def test_numbers_in_json_may_be_anything(tmp_path, monkeypatch):
    facts = {"nan": float("nan"), "keys": {10: 1, 9: 2}, "text": "\ud800é", "tuple": (1, 1e300)}
    write_json(tmp_path / "a.json", facts)
    read = read_json(tmp_path / "a.json")
    assert np.isnan(read.pop("nan"))
    assert read == {"keys": {"10": 1, "9": 2}, "text": "\ud800é", "tuple": [1, 1e300]}
    monkeypatch.setattr("zoo.loop.files._MAX_BYTES", 10)
    with pytest.raises(DamagedError, match="damaged: it has more than 10 bytes"):
        read_json(tmp_path / "a.json")


# Two processes

HOLD = """
import filelock, sys
with filelock.FileLock(sys.argv[1] + "/.lock"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_uses(result, checkpoints, saved, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(checkpoints, folder)
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    (folder / ".lock").unlink()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"  # now the other process holds the lock
        before = snapshot(folder)
        tickets = zoo.sparsity.tickets.Tickets({}, {}, {})
        for use in (
            lambda: zoo.run(SNES, BOWL, 0, checkpoint=folder, **BUDGET),
            lambda: result.save(folder),
            lambda: zoo.benchmark([SNES], {"bowl": BOWL}, num_steps=6, num_seeds=1, out=folder, progress=False),
            lambda: zoo.Results([], {}).save(folder),
            lambda: zoo.lottery_tickets(SNES, BOWL, generations_per_round=1, num_rounds=1, out=folder, progress=False),
            lambda: tickets.save(folder),
        ):
            with pytest.raises(ValueError, match=r"Another process is using .*folder\. Wait until it"):
                use()
        assert zoo.load_run(folder, BOWL, SNES).metrics == result.metrics  # reading does not need the lock
        assert snapshot(folder) == before
        other.communicate("")
    assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=folder, **BUDGET), result)


def test_a_lock_ends_with_its_run(tmp_path):
    zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET)
    with pytest.raises(ValueError, match="is of another run"):
        zoo.run(SNES, BOWL, 1, checkpoint=tmp_path, **BUDGET)
    zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET)


# Folders that cannot be written


def test_what_cannot_be_written_shows_before_anything_is_computed(checkpoints, tmp_path, monkeypatch):
    def compute(*_args, **_kwargs):
        raise AssertionError

    read_only(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("zoo.loop.compiled.start", compute)
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(UnwritableError, match=r"needs to write in .*Read-only file system. Choose another fol"):
                zoo.run(SNES, BOWL, 0, checkpoint=folder, **BUDGET)
            with pytest.raises(ValueError, match=r"benchmark\(out=...\) needs to write in .*Read-only file system"):
                zoo.benchmark([SNES], {"bowl": BOWL}, num_steps=6, num_seeds=1, out=folder, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("zoo.loop.log.Log.add_generations", compute)
        with pytest.raises(UnwritableError, match="needs to write in"):  # the run is not finished
            zoo.run(SNES, BOWL, 0, checkpoint=checkpoints, num_generations=12, num_scores=6)


def test_what_is_finished_is_read_where_nothing_can_be_written(result, checkpoints, saved, tmp_path, monkeypatch):
    settings = {"num_steps": 6, "num_seeds": 2, "num_scores": 1, "progress": False, "out": tmp_path}
    zoo.benchmark([SNES], {"bowl": BOWL}, **settings)
    read_only(monkeypatch)
    before = [snapshot(folder) for folder in (checkpoints, saved, tmp_path)]
    assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=checkpoints, **BUDGET), result)
    assert zoo.load_run(saved, BOWL, SNES).metrics == result.metrics
    again = zoo.benchmark([SNES], {"bowl": BOWL}, **settings)
    assert again.curves.equals(zoo.Results.load(tmp_path).curves)
    assert [snapshot(folder) for folder in (checkpoints, saved, tmp_path)] == before


def test_a_disk_that_fills_up_is_named_and_loses_nothing(result, tmp_path, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, callback=lambda progress: progress.generation >= 4, **BUDGET)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*checkpoint_00000006.npz"):
            zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET)
    assert files_of(tmp_path) == ["call.json", "checkpoint_00000002.npz", "checkpoint_00000004.npz"]
    assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET), result)


@pytest.mark.parametrize("name", ["loop", "x" * 300])
def test_folders_that_cannot_be(name, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for use in (
        lambda folder: zoo.run(SNES, BOWL, 0, checkpoint=folder, **BUDGET),
        lambda folder: zoo.benchmark([SNES], {"b": BOWL}, num_steps=6, num_seeds=1, out=folder, progress=False),
        lambda folder: zoo.sparsity.tickets.Tickets({}, {}, {}).save(folder),
    ):
        with pytest.raises(ValueError, match=r"needs to write in|is a file"):
            use(tmp_path / name)


def test_a_folder_stays_where_it_was_when_a_problem_goes_elsewhere(tmp_path, monkeypatch):
    def wander(_progress_or_solution):
        os.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    zoo.run(SNES, BOWL, 0, checkpoint="run", callback=wander, **BUDGET)
    monkeypatch.chdir(tmp_path)
    problem = zoo.from_function(wander, jnp.zeros(3))  # it fails, because it returns no fitness
    zoo.benchmark([SNES], {"b": problem}, num_steps=6, num_seeds=1, out="benchmark", progress=False)
    assert pathlib.Path.cwd().name == "elsewhere"
    assert not list(pathlib.Path.cwd().iterdir())
    assert (tmp_path / "benchmark" / "pairs" / "b__SNES" / "pair.json").is_file()


def test_a_full_disk_is_found_out_first(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with FolderLock(tmp_path, "a test") as lock:
        assert not lock.is_writable
        with pytest.raises(UnwritableError, match=r"a test needs to write in .*No space left on device"):
            lock.check_writable()
    monkeypatch.undo()
    with FolderLock(tmp_path, "a test") as lock:
        lock.check_writable()
