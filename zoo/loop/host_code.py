"""A digest of what a Python function does that the host calls. A lowered program does not contain such functions.

The digest covers code and constants (of nested functions too), closures, defaults, the object of a bound method and its
class, `functools.partial`, `__wrapped__`, and the globals that the instructions load. Functions and classes of
libraries are compared by name and version. Comments and the names of functions and variables do not count.
"""

import copyreg
import dataclasses
import dis
import functools
import hashlib
import importlib.util
import pathlib
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from zoo.core.keys import is_key
from zoo.loop.libraries import is_of_library, library_of_file, library_of_module

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_NOT_CODE = {
    # Attributes that Python writes into a class. None of them changes what its methods do.
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__dataclass_fields__"),
    *("__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__match_args__", "__module__", "__qualname__"),
    *("__static_attributes__", "__weakref__", "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__"),
}
_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_FILLERS = ("CACHE", "EXTENDED_ARG", "PUSH_NULL")
_LOADS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")


def digest_of_host_code(values: Any) -> tuple[str, list[str]]:
    """Returns a digest of functions or other values, and descriptions of the parts that cannot be compared."""
    walk = _Walk()
    try:
        digest = walk.digest(values)
    except Exception as error:  # objects may raise when they are inspected, or be nested too deeply
        digest, walk.unseen = "", [f"what host code uses ({type(error).__name__}: {error})"]
    return digest, list(dict.fromkeys(walk.unseen))


class _Walk:
    """Walks over objects. The digest of an object is made of the digests of its parts."""

    def __init__(self) -> None:
        self.unseen: list[str] = []
        self._done: dict[int, tuple[Any, str]] = {}  # keeps the object alive, so that its id stays unique
        self._under_way: list[int] = []
        self._inside: list[str] = []  # names of the user's functions, for messages

    def digest(self, value: Any) -> str:
        if type(value) in _ATOMS:
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._under_way:  # for example a function that calls itself
            return _hash("again", str(len(self._under_way) - self._under_way.index(id(value))))
        if id(value) not in self._done:
            self._under_way.append(id(value))
            self._done[id(value)] = value, _hash(*self._parts(value))
            self._under_way.pop()
        return self._done[id(value)][1]

    def _parts(self, value: Any) -> Iterator[str]:
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            yield from self._array(value)
        elif type(value) in (tuple, list):
            yield type(value).__name__
            plain = all(type(each) in _ATOMS for each in value)
            yield from (repr(value),) if plain else map(self.digest, value)
        elif type(value) is dict:
            yield "dict"
            if all(type(x) in _ATOMS for pair in value.items() for x in pair):
                yield repr(value)
                return
            for key, each in value.items():
                yield self.digest(key)
                yield self.digest(each)
        elif type(value) in (set, frozenset):
            yield from ("set", *sorted(map(self.digest, value)))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.MethodType):
            yield from ("method", self.digest(value.__func__), self.digest(value.__self__))
        elif isinstance(value, types.CellType):
            yield "cell" if value == types.CellType() else self.digest(value.cell_contents)
        elif isinstance(value, types.ModuleType):
            yield from self._module(value.__name__)
        elif isinstance(value, types.BuiltinFunctionType):
            yield from ("builtin", value.__name__, self.digest(value.__self__))
        elif isinstance(value, property):
            yield from ("property", *map(self.digest, (value.fget, value.fset, value.fdel)))
        elif isinstance(value, functools.cached_property):
            yield from ("property", self.digest(value.func))
        elif isinstance(value, (staticmethod, classmethod)):
            yield from (type(value).__name__, self.digest(value.__func__))
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, (jax.tree_util.PyTreeDef, jax.ShapeDtypeStruct)):
            yield _ADDRESS.sub("", str(value))
        elif is_of_library(value):
            yield from ("library", str(library_of_module(value.__module__)), value.__module__, value.__qualname__)
        elif hasattr(value, "__wrapped__"):
            yield from (type(value).__qualname__, self.digest(value.__wrapped__))
        elif isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):  # of a slot
            yield value.__name__
        elif isinstance(value, _METHODS_IN_C):
            yield value.__qualname__
            if not is_of_library(value.__objclass__):
                self._not_seen(f"the method {value.__qualname__}")
        else:
            yield from self._instance(value)

    def _array(self, value: Any) -> Iterator[str]:
        if is_key(value):
            yield str(jax.random.key_impl(value))
            value = jax.random.key_data(value)
        array = np.asarray(value)
        yield from ("array", str(array.dtype), str(array.shape))
        yield self.digest(array.tolist()) if array.dtype == object else hashlib.sha256(array.tobytes()).hexdigest()

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        code = function.__code__
        library = library_of_file(code.co_filename)
        yield from ("function", library or "")
        if library is None:
            self._inside.append(function.__qualname__)
            yield from self._code(code, function.__globals__)
            yield self.digest({k: v for k, v in vars(function).items() if k != "__wrapped__"})
        else:
            yield from (code.co_qualname, hashlib.sha256(code.co_code).hexdigest())
        yield from map(self.digest, function.__closure__ or ())
        yield from map(self.digest, (function.__defaults__, function.__kwdefaults__))
        if library is None:
            self._inside.pop()

    def _code(self, code: types.CodeType, names: dict[str, Any]) -> Iterator[str]:
        """Yields instructions, with the values that they refer to in place of indices."""
        arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        yield from ("code", str(sys.version_info[:2]), str(arguments), code.co_exceptiontable.hex())
        instructions = [each for each in dis.get_instructions(code) if each.opname not in _FILLERS]
        for number, each in enumerate(instructions):
            yield each.opname
            if each.opname in _LOADS_GLOBAL:
                yield self._global(each.argval, names, instructions[number + 1 :])
            elif each.opname == "IMPORT_NAME":
                yield from self._module(_absolute(each.argval, instructions[number - 2].argval, names))
            elif each.opcode in dis.hasconst and each.arg is not None:
                constant = code.co_consts[each.arg]
                is_code = isinstance(constant, types.CodeType)
                yield from self._code(constant, names) if is_code else (self.digest(constant),)
            elif each.opcode in dis.hasname:
                yield each.argval
            else:
                yield str(each.arg)

    def _global(self, name: str, names: dict[str, Any], following: list[dis.Instruction]) -> str:
        builtins = names.get("__builtins__", {})
        builtins = vars(builtins) if isinstance(builtins, types.ModuleType) else builtins
        if name not in names:
            return _hash("builtin", name) if name in builtins else _hash("undefined", name)
        value = names[name]
        for each in following:  # of a module of the user's, follows the attribute and not the whole module
            if not isinstance(value, types.ModuleType) or library_of_module(value.__name__) is not None:
                break
            if each.opname not in _LOADS_ATTRIBUTE or not hasattr(value, each.argval):
                break
            value = getattr(value, each.argval)
        return self.digest(value)

    def _module(self, name: str) -> Iterator[str]:
        yield from ("module", name)
        library = library_of_module(name)
        if library is not None:
            yield library
            return
        module = sys.modules.get(name)
        filename = getattr(module, "__file__", None)
        if module is None:
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError, AttributeError):
                spec = None
            filename = None if spec is None else spec.origin
        library = None if filename is None else library_of_file(filename)
        if library is not None:
            yield library
        elif filename is not None and pathlib.Path(filename).suffix == ".py" and pathlib.Path(filename).is_file():
            yield hashlib.sha256(pathlib.Path(filename).read_bytes()).hexdigest()
        else:
            self._not_seen(f"the module {name}")

    def _class(self, cls: type) -> Iterator[str]:
        for each in cls.__mro__:
            if is_of_library(each):
                yield from ("library", str(library_of_module(each.__module__)), each.__module__, each.__qualname__)
                continue
            yield from ("class", self.digest(type(each)))
            for name in sorted(vars(each).keys() - _NOT_CODE):
                yield from (name, self.digest(vars(each)[name]))

    def _instance(self, value: Any) -> Iterator[str]:
        """Yields what pickle would write for an object: its class and its state."""
        table = copyreg.dispatch_table.get(type(value))
        reduce = value.__reduce_ex__
        if is_of_library(type(value)) and hasattr(value, "host_code"):  # an object of the zoo that knows what it runs
            yield from (type(value).__qualname__, self.digest(value.host_code()))
            return
        if dataclasses.is_dataclass(value) and any(c.__module__ == "flax.linen.module" for c in type(value).__mro__):
            fields = [
                f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")
            ]  # its other attributes change in use
            yield from ("flax", self.digest(type(value)), *(self.digest(getattr(value, name)) for name in fields))
            return
        try:
            if any(cls.__module__.partition(".")[0] in _OPAQUE for cls in type(value).__mro__):
                raise TypeError
            reduced: Any = reduce(4) if table is None else table(value)
        except Exception:
            self._not_seen(f"an object of type {type(value).__module__}.{type(value).__qualname__}")
            return
        if isinstance(reduced, str):
            where = str(getattr(value, "__module__", None) or type(value).__module__)
            yield from ("global", where, reduced, str(library_of_module(where)))
            if library_of_module(where) is None or getattr(sys.modules.get(where), reduced, None) is not value:
                self._not_seen(f"{reduced}, an object of type {type(value).__module__}.{type(value).__qualname__}")
            return
        function, arguments, state, items, pairs = (*reduced[:5], *(None,) * (5 - len(reduced[:5])))
        yield from ("instance", *map(self.digest, (function, arguments, state)))
        yield from (self.digest([*(items or ())]), self.digest([*(pairs or ())]))

    def _not_seen(self, what: str) -> None:
        self.unseen.append(f"{what}, which {self._inside[-1]} uses" if self._inside else what)


_METHODS_IN_C = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
_OPAQUE = ("ctypes", "_ctypes", "cffi", "_cffi_backend")  # the state of their objects is an address


def _absolute(name: str, level: int, names: dict[str, Any]) -> str:
    """Returns the absolute name of a module that is imported relative to the module with the globals `names`."""
    if not level:
        return name
    return importlib.util.resolve_name("." * level + name, names.get("__package__") or "")


def _hash(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
