"""The wheel: its contents, that it runs beside modules called `strategies` or `problems`, and with a plug-in."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Runs a strategy, a wrapper, a problem with data, and a worker process; then imports the user's own modules.
SCRIPT = """
import numpy as np
import zoo

zoo.run("open_es", "blackbox/sphere", num_generations=2)
zoo.make_strategy("bounded", base="snes", problem=zoo.make_problem("supervised/digits", hidden=(2,)))
problem = zoo.from_python(lambda x: float(np.sum(x**2)), np.ones(2), num_processes=1)
zoo.run("random_search", problem, num_generations=1)

import problems
import strategies

print(zoo.__file__, zoo.make_strategy("snes").__module__, strategies.OWNER, problems.OWNER, sep="\\n")
"""


def run(*command, **kwargs):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Builds a wheel from a source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("build")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "results", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source")
    (path,) = folder.glob("*.whl")
    return path


def make_wheel(folder: pathlib.Path) -> pathlib.Path:
    """Writes the wheel of another distribution, which contains a package `strategies`."""
    files = {
        "strategies/__init__.py": "OWNER = 'another distribution'\n",
        "other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
        "other-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "other-1.0.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in (*files, record))
    with zipfile.ZipFile(folder / "other-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return pathlib.Path(archive.filename or "")


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """Returns the interpreter of a new environment with the wheel, the other distribution, and the dependencies."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    # Installing the dependencies again would take minutes. A plain path to their folder brings no editable install.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    packages = (wheel, make_wheel(tmp_path_factory.mktemp("other")))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", *packages)
    return python


@pytest.fixture
def users_folder(tmp_path):
    """Makes a folder with modules of the user's own that have the names of es-zoo's folders."""
    for name in ("strategies/__init__.py", "problems/__init__.py", "problems.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("OWNER = 'the user'\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def test_the_wheel_ships_one_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"zoo", "es_zoo"}
    shipped = {name for name in names if name.endswith(".py")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("zoo", "strategies", "problems")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert shipped == {name if name.startswith("zoo/") else f"zoo/{name}" for name in sources}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zoo/reports/templates").iterdir()}
    assert len(templates) == 3
    assert {"zoo/py.typed", *templates} <= set(names)


def environment():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_wheel_runs_beside_modules_of_the_users_own(clean_python, users_folder):
    out = run(clean_python, "script.py", cwd=users_folder, env=environment())
    file, module, *owners = out.splitlines()
    assert pathlib.Path(file).is_relative_to(clean_python.parents[1])
    assert module == "zoo.strategies.distribution.snes"
    assert owners == ["the user", "the user"]


def test_the_other_distribution_keeps_its_package(clean_python, tmp_path):
    code = "import zoo, strategies; zoo.make_strategy('snes'); print(strategies.OWNER)"
    assert run(clean_python, "-c", code, cwd=tmp_path, env=environment()).strip() == "another distribution"
    assert "open_es" in run(clean_python.with_name("zoo"), "list", cwd=tmp_path, env=environment())


def test_the_editable_installation_runs_there_too(users_folder):
    file, *_, owner = run(sys.executable, "script.py", cwd=users_folder, env=environment()).splitlines()
    assert (file, owner) == (str(ROOT / "zoo" / "__init__.py"), "the user")


def test_a_plug_in_passes_its_own_tests(clean_python, tmp_path):
    """The plug-in's own tests pass with `zoo.testing` from the wheel, outside of the checkout."""
    shutil.copytree(ROOT / "tests" / "plug_in", tmp_path / "plug_in")
    install = ("install", "--no-deps", "--no-index", "--no-build-isolation", "-q", tmp_path / "plug_in")
    run(clean_python, "-m", "pip", *install)
    shutil.rmtree(tmp_path / "plug_in" / "zoo_plug_in")
    shutil.rmtree(tmp_path / "plug_in" / "build", ignore_errors=True)
    out = run(clean_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "plug_in", env=environment())
    assert " passed" in out
    assert "random_directions" in run(clean_python.with_name("zoo"), "list", cwd=tmp_path, env=environment())
