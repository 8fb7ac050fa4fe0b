"""Tests that damaged and hostile files in folders of tickets are left out and named."""

import contextlib
import json
import pathlib

import pytest

import zoo
from tests.faults import Sandbox, damages, files_of, gathered, hostile_values, some_hostile_files
from tests.sparsity.test_tickets import Shifted, identical, make_tickets
from zoo.loop.files import beside, read_json, remove, write_json

PROBLEM = Shifted()


@pytest.fixture(autouse=True)
def no_flush(monkeypatch):
    """Switches flushing off: no power fails in tests, and flushing is slow."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture(scope="module")
def tickets():
    return make_tickets(PROBLEM)


@pytest.fixture(scope="module")
def saved(tickets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tickets"
    tickets.save(folder)
    tickets.ticket("snr").save(folder)  # a single ticket may be in the same folder
    return folder


@pytest.fixture
def sandbox(saved, tmp_path):
    return Sandbox(tmp_path, saved)


def test_whatever_is_damaged_is_named_and_the_rest_is_used(tickets, saved, sandbox):
    names = files_of(saved)
    assert len(names) == 2 * (1 + 3) + 2
    sandbox.reset()
    for name in names:
        for fault, damage in damages(sandbox, name).items():
            damage(sandbox.thing / name)
            loaded = None
            with gathered() as messages:
                if name == "ticket.npz":
                    zoo.load_ticket(sandbox.thing, PROBLEM)
                loaded = zoo.load_tickets(sandbox.thing, PROBLEM)
            assert len(messages) == (fault != "missing" or name in ("tickets.json", "ticket.npz")), (name, fault)
            assert not messages or pathlib.Path(name).name in messages[0], (name, fault, messages)
            if pathlib.Path(name).parent == pathlib.Path("."):
                assert loaded is None
            else:
                assert loaded is not None
                criterion, file = name.split("/")
                left = 0 if file == "solution.npz" else int(file.removeprefix("round_").removesuffix(".npz"))
                for other in tickets.criteria:
                    expected = tickets.rounds[other][: left if other == criterion else None]
                    identical(loaded.rounds.get(other, []), expected)
            sandbox.reset(name)
    sandbox.check()


def test_hostile_contents_reach_nothing_outside(saved, sandbox):
    values = hostile_values(sandbox)
    sandbox.reset()
    for name in [name for name in files_of(saved) if not name.startswith("random/")]:
        for write in some_hostile_files(saved / name, values):
            write(sandbox.thing / name)
            with gathered():
                if name == "ticket.npz":
                    zoo.load_ticket(sandbox.thing, PROBLEM).save(sandbox.folder / "saved")
                else:
                    loaded = zoo.load_tickets(sandbox.thing, PROBLEM)
                    loaded.save(sandbox.folder / "saved")
                    loaded.summary()
            sandbox.reset(name)
    sandbox.check()


@pytest.mark.parametrize("name", ["..", "../outside", ".", "", "/", "a/b", "a\\b", "~", ".hidden", 3, None, ["snr"]])
def test_criteria_are_names_of_folders(name, tickets, saved, sandbox):
    sandbox.reset()
    facts = read_json(sandbox.thing / "tickets.json")
    for criteria in ([name], ["snr", name], [str(sandbox.outside)]):
        write_json(sandbox.thing / "tickets.json", {**facts, "criteria": criteria})
        with pytest.raises(ValueError, match=r"tickets.json is damaged: A name of letters"):
            zoo.load_tickets(sandbox.thing, PROBLEM)
    if isinstance(name, str):
        other = zoo.sparsity.tickets.Tickets({name: tickets.rounds["snr"]}, {name: tickets.solutions["snr"]}, {})
        with pytest.raises(ValueError, match="A name of letters"):
            other.save(sandbox.folder / "saved")
    sandbox.check()


def test_links_are_not_followed_where_it_is_written(tickets, saved, sandbox):
    files = [path.relative_to(saved) for path in sorted(saved.rglob("*")) if path.is_file()]
    folders = [pathlib.Path("snr")], [pathlib.Path("snr/checkpoints")]
    for places in (files, [beside(path) for path in files], *folders):
        for target in ("copy", "round_00.npz", "none"):
            sandbox.reset()
            for place in places:
                remove(sandbox.thing / place)
                (sandbox.thing / place).symlink_to(sandbox.outside / target)
            tickets.save(sandbox.thing)
            identical(zoo.load_tickets(sandbox.thing, PROBLEM).rounds, tickets.rounds)
    sandbox.check()


@pytest.mark.parametrize("when", range(0, 24, 2))
def test_killed_while_tickets_take_the_place_of_others(when, tickets, tmp_path, monkeypatch):
    """A kill during saving leaves all the old tickets or all the new ones. The old ones have more rounds."""
    old = make_tickets(PROBLEM, num_rounds=4)
    old.rounds["snr"][0].mean.bias[:] = 7
    old.save(tmp_path)
    calls = []

    class KilledError(BaseException):
        pass

    def counted(call):
        def killing(*args, **kwargs):
            calls.append(call)
            if len(calls) > when:
                raise KilledError
            return call(*args, **kwargs)

        return killing

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
        with contextlib.suppress(KilledError):
            tickets.save(tmp_path)
    with gathered() as messages:
        loaded = zoo.load_tickets(tmp_path, PROBLEM)
    assert messages == []
    is_new = len(loaded.rounds["snr"]) == 3
    identical(loaded.rounds, (tickets if is_new else old).rounds)
    identical(loaded.solutions, (tickets if is_new else old).solutions)


def test_half_a_file_that_somebody_left_beside_is_no_damage(tickets, saved, sandbox):
    sandbox.reset()
    for name in ("round_03.npz", "round_02.npz", "solution.npz"):
        beside(sandbox.thing / "snr" / name).write_bytes((saved / "snr" / "round_00.npz").read_bytes()[:300])
    with gathered() as messages:
        identical(zoo.load_tickets(sandbox.thing, PROBLEM).rounds, tickets.rounds)
    assert messages == []


def test_rounds_of_others_are_not_taken_for_those_of_the_tickets(tickets, saved, sandbox):
    """A round of another ladder is left out if somebody copied it into the folder."""
    sandbox.reset()
    other = make_tickets(PROBLEM)
    other.rounds["snr"][1].mean.bias[:] = 7
    other.save(sandbox.folder / "saved")
    path = pathlib.Path("snr/round_01.npz")
    (sandbox.thing / path).write_bytes((sandbox.folder / "saved" / path).read_bytes())
    identical(zoo.load_tickets(sandbox.thing, PROBLEM).rounds["snr"], tickets.rounds["snr"][:1])
    assert json.loads((sandbox.thing / "tickets.json").read_text())["number"]
