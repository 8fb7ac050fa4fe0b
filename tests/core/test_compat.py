"""The private parts of JAX and quax that es-zoo uses still exist, and only `zoo/core/_compat.py` uses them."""

import ast
import importlib.metadata
import pathlib
import pkgutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPAT = pathlib.Path("zoo/core/_compat.py")
PACKAGES = ("jax", "jaxlib", "quax")
# What es-zoo relies on, besides the imported names.
RELIES_ON = {
    "jax._src.core.Trace.process_custom_vjp_call": "JAX calls this method of a trace, and quax's gets one.",
    "jax._src.linear_util.WrappedFun.call_wrapped": "With it that method calls the function.",
}


def imports(tree):
    """Yields each import of a module: the line, the name in the module, and the full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def private_names(source):
    """Returns the private names of JAX and quax that a module imports or looks up, each with its line."""
    tree = ast.parse(source)
    found = [(line, name) for line, _, name in imports(tree) if _is_private(name)]
    full_names = {package: package for package in PACKAGES} | {bound: name for _, bound, name in imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(f"jax.{node.attr}"):
            first, *rest = ast.unparse(node).split(".")
            name = ".".join([full_names.get(first, first), *rest])
            if _is_private(name) and all(part.isidentifier() for part in rest):  # skips attributes of a call's result
                found.append((node.lineno, name))
    return found


def _is_private(name):
    package, *rest = name.split(".")
    return package in PACKAGES and any(part.startswith("_") and not part.startswith("__") for part in rest)


def _comment_above(line):
    lines = (ROOT / COMPAT).read_text().splitlines()[: line - 1]
    comment = []
    while lines and lines[-1].startswith("#"):
        comment.insert(0, lines.pop().removeprefix("# "))
    return " ".join(comment)


IMPORTED = {
    name: _comment_above(line) for line, _, name in imports(ast.parse((ROOT / COMPAT).read_text())) if _is_private(name)
}
NEEDED = IMPORTED | RELIES_ON


@pytest.mark.parametrize("name", NEEDED)
def test_a_private_name_is_still_there(name):
    package = name.split(".")[0]
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        version = importlib.metadata.version(package)
        pytest.fail(f"{package} {version} no longer has {name}, which {COMPAT} needs. {NEEDED[name]}", pytrace=False)


@pytest.mark.parametrize("name", IMPORTED)
def test_a_private_name_says_why_there_is_no_public_way(name):
    assert IMPORTED[name], f"In {COMPAT} a comment above {name} has to say why there is no public way."


def test_no_other_module_uses_a_private_name():
    paths = (path for folder in ("zoo", "strategies", "problems") for path in (ROOT / folder).rglob("*.py"))
    used = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted(paths)
        if path != ROOT / COMPAT
        for line, name in private_names(path.read_text())
    ]
    assert not used, f"Private names belong in {COMPAT}: {used}"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import jax._src.core", ["jax._src.core"]),
        ("import jax\njax._src.core.Trace", ["jax._src"]),
        ("import jax.numpy as jnp\njnp._secret(1)", ["jax.numpy._secret"]),
        ("from jax import _src", ["jax._src"]),
        ("from quax import _trace as trace\ntrace._tag", ["quax._trace", "quax._trace._tag"]),
        ("def f():\n    from quax._trace import _QuaxTrace", ["quax._trace._QuaxTrace"]),
        ("import jax._src.core as core\ncore._x", ["jax._src.core", "jax._src.core._x"]),
        ("import jax\njax.__version__, jax.numpy.sin", []),
        ("import jax\njax.lax.scan(f, x)[0]._replace(y=1)", []),
        ("import numpy\nnumpy._core, state._replace(x=1)", []),
    ],
)
def test_private_names_are_found(source, names):
    assert [name for _, name in private_names(source)] == names
