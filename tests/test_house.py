"""The structure of the package: which modules import which, and under which name each thing can be imported.

Imports count everywhere, also inside functions and under `TYPE_CHECKING`, so that nothing is hidden there.
"""

import ast
import doctest
import importlib
import pathlib
import pkgutil
import subprocess
import sys
import textwrap
import types

import pytest

import zoo
import zoo.core

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"zoo": "zoo", "strategies": "zoo.strategies", "problems": "zoo.problems"}

# Levels from low to high. A module may import its own package, and packages on lower levels.
FLOORS = [
    {"zoo._version"},
    {"zoo.core"},
    {"zoo.registry", "zoo.space", "zoo.statistics"},
    {"zoo.host", "zoo.smoothing", "zoo.figures"},
    {"zoo.loop", "zoo.testing"},
    {"zoo.reports", "zoo.callbacks"},
    {"zoo.tuning"},
    {"zoo.benchmarking"},
    {"zoo.sparsity"},
    {"zoo"},  # the public names
    {"zoo.terminal"},
    {"zoo.cli"},
    {"zoo.__main__"},
]
# Plug-in folders are outside of the levels. They import `zoo.core` and themselves, and only the registry imports them.
PLUG_INS = ("zoo.strategies", "zoo.problems")
# Packages that re-export public names, and list them.
FACES = (
    "zoo",
    "zoo.core",
    "zoo.testing",
    "zoo.strategies.perturbations",
    "zoo.strategies.perturbations.low_rank_array",
)
EXCEPTIONS = {
    ("zoo.strategies.wrappers.base", "zoo.registry"): "a wrapper takes its base by id",
    ("zoo.strategies.adapters.pycma", "zoo.host.callback"): "pycma is a host library",
    ("zoo.problems.rl.gymnasium", "zoo.host.problem"): "gymnasium's environments are Python",
    ("zoo.problems.unrolled.inner_training", "zoo.registry"): "the task to train on is given by id",
    ("zoo.problems.supervised.accuracy_pipeline", "zoo.registry"): "the images are given by id",
    ("zoo.problems.supervised.accuracy_pipeline", "zoo.smoothing.smooth"): "one of its estimators is `zoo.smooth`",
}


def module_name(path: pathlib.Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


MODULES = {module_name(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """Returns the modules of es-zoo that a module imports, as far as names show it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this test does not follow"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner
            if len(inner) < len(node.names):
                found.add(node.module)
    return {name for name in found if name.partition(".")[0] == "zoo"} - {module}


IMPORTS = {module: imports_of(module) for module in MODULES}


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def floor_of(module: str) -> int:
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)
    return floor


def is_allowed(module: str, other: str) -> bool:
    if (module, other) in EXCEPTIONS:
        return True
    if room_of(module) in PLUG_INS:
        return room_of(other) in (room_of(module), "zoo.core")
    return room_of(other) not in PLUG_INS and (room_of(module) == room_of(other) or floor_of(other) < floor_of(module))


def test_imports_point_downward():
    upward = [
        (module, other) for module in MODULES for other in sorted(IMPORTS[module]) if not is_allowed(module, other)
    ]
    assert upward == []


def test_every_exception_is_still_needed():
    assert [edge for edge in EXCEPTIONS if edge[1] not in IMPORTS[edge[0]]] == []


def test_no_circle():
    left = dict(IMPORTS)
    while ready := [module for module, others in left.items() if not others & left.keys()]:
        for module in ready:
            del left[module]
    assert left == {}


def test_rooms_hand_nothing_on():
    """Each name can be imported from one place, except public names, which their packages list."""
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module not in FACES:
            (docstring,) = ast.parse(path.read_text()).body
            assert isinstance(docstring, ast.Expr), module


def test_no_module_is_called_like_a_public_name():
    for package in (zoo, zoo.core):
        children = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert children & set(package.__all__) == set()
        for name in package.__all__:
            assert not isinstance(getattr(package, name), types.ModuleType)


def test_lists_of_public_names_are_sorted():
    assert zoo.__all__ == sorted(zoo.__all__)
    assert zoo.core.__all__ == sorted(zoo.core.__all__)


def names_read_by(tree: ast.Module) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}


def test_functions_that_serve_one_module_have_an_underscore():
    """A function without an underscore is public, or another module of the repository uses it."""
    paths = [path for folder in (*FOLDERS, "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    read = {path: names_read_by(tree) for path, tree in trees.items()}
    unused = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in trees[path].body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and not node.decorator_list  # commands of the command line
        and node.name not in public_names(trees[path])
        and not any(node.name in names for other, names in read.items() if other != path)
    ]
    assert unused == []


def public_names(tree: ast.Module) -> set[str]:
    """Returns the names that a module, `zoo` or `zoo.core` lists in `__all__`."""
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    return {*zoo.__all__, *zoo.core.__all__, *(name for names in listed for name in names)}


def rows() -> list[str]:
    registries = (zoo.registry._strategies, zoo.registry._problems)
    return [row for registry in registries for row in registry.rows.values() if isinstance(row, str)]


def test_nothing_is_importable_under_a_generic_name():
    """After all modules and public names are imported, no module has a generic name."""
    code = f"""
        import importlib, sys
        import zoo
        for name in {sorted(MODULES.keys() - {"zoo.__main__"})}:
            importlib.import_module(name)
        for name in zoo.__all__:
            getattr(zoo, name)
        for row in {rows()}:
            zoo.registry.load(row)
        print([name for name in sys.modules if name.partition(".")[0] in ("strategies", "problems")])
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("package", PLUG_INS)
def test_examples_in_the_folders_of_plug_ins(package):
    """Examples run by import name, because pytest would import these files a second time under another name."""
    for module in MODULES:
        if module.startswith(f"{package}."):
            failed, _ = doctest.testmod(importlib.import_module(module))
            assert not failed, module
