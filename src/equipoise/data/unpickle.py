"""Read pickles that hold arrays and plain containers, and refuse everything else before any of it runs.

A pickle is a program. The one that `pickle.load` runs may import and call anything. Here every name it asks for is
looked up in one literal table of stand-ins, which build arrays and containers from checked arguments; a name that is
not in the table is refused by name. No attribute is ever fetched from a module on the file's behalf, no real NumPy
class is handed to it (`ndarray.__setstate__` and `dtype.__setstate__` trust their input: a file could otherwise make
raw bytes pass for object pointers), and the stand-ins cannot be changed by it.

Read: `None`, booleans, numbers, strings, bytes, lists, tuples, dicts, sets, `OrderedDict` (as `dict`), `defaultdict` of
a built-in type, NumPy arrays and scalars of plain types, and object arrays of these; protocols 0 to 5, Python 2
included (its `str` is read as latin-1).

Not guarded: memory and time. A small hostile file can still ask for more memory than there is. Read files of unknown
origin under a memory limit.
"""

from __future__ import annotations

import copyreg
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from equipoise.data.errors import DataError


class UnsafePickleError(DataError):
    """The pickle asks for something other than arrays and plain containers."""


class _Refused(Exception):
    """A refusal on its way out of the unpickler; `load_pickle` adds the file's name."""


class _StandIn:
    """What the file gets for an allowed name: callable, without attributes it could set."""

    __slots__ = ("factory", "function", "name")
    name: str
    function: Callable[..., Any]
    factory: type | None

    def __init__(self, name: str, function: Callable[..., Any], factory: type | None = None) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "factory", factory)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _Refused(f"it sets state on `{self.name}`")

    def __setstate__(self, state: Any) -> NoReturn:
        raise _Refused(f"it sets state on `{self.name}`")


class _Dtype:
    """A dtype as the file describes it: kind, size and byte order; every other part of its state is ignored."""

    __slots__ = ("dtype",)
    dtype: np.dtype[Any]

    def __init__(self, code: Any, *rest: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not 0 < len(text) < 16 or not text.strip("<>=|").isalnum():
            raise _Refused(f"its array type {code!r} is not a plain one")
        dtype = np.dtype("O") if text.strip("<>=|") in ("O", "O4", "O8") else np.dtype(text)
        if dtype.kind not in "biufcSUO" or (dtype.kind != "O" and dtype.itemsize == 0):
            raise _Refused(f"its array type {text!r} is not a plain one")
        object.__setattr__(self, "dtype", dtype)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _Refused("it sets attributes of a dtype")

    def __setstate__(self, state: Any) -> None:
        # State is (version, byte order, ...). The flags at its end are what a hostile file would change.
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise _Refused(f"its byte order {order!r} is unknown")
        object.__setattr__(self, "dtype", self.dtype.newbyteorder(order))  # type: ignore[arg-type]


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array whose state is checked before NumPy sees it."""

    def __setstate__(self, state: Any) -> None:
        shape, described, fortran, raw = tuple(state)[-4:]
        dtype = _plain_dtype(described)
        size = _size(shape)
        if isinstance(raw, str):  # Python 2
            raw = raw.encode("latin1")
        if dtype.kind == "O":
            if type(raw) is not list or len(raw) != size:
                raise _Refused(f"an object array of shape {shape} does not come with {size} objects")
        elif not isinstance(raw, (bytes, bytearray)) or len(raw) != size * dtype.itemsize:
            raise _Refused(f"an array of shape {shape} and type {dtype} does not come with its bytes")
        content = raw if dtype.kind == "O" else bytes(raw)
        super().__setstate__((1, shape, dtype, bool(fortran), content))  # type: ignore[arg-type]


def _plain_dtype(described: Any) -> np.dtype[Any]:
    if not isinstance(described, _Dtype):
        raise _Refused("an array comes without a plain dtype")
    return described.dtype


def _size(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise _Refused(f"the array shape {shape!r} is not one")
    size = 1
    for n in shape:
        size *= n
    return size


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not ALLOWED["numpy", "ndarray"]:
        raise _Refused("it builds an array subclass")
    empty: _Array = _Array((0,), np.uint8)
    return empty


def _frombuffer(raw: Any, described: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise _Refused("an array buffer is not plain bytes")
    dtype = _plain_dtype(described)
    if dtype.kind == "O" or len(raw) != _size(shape) * dtype.itemsize:
        raise _Refused(f"an array of shape {shape} and type {dtype} does not come with its bytes")
    array: _Array = np.frombuffer(raw, dtype).reshape(shape, order=order).view(_Array)
    return array


def _scalar(described: Any, raw: Any = b"") -> Any:
    dtype = _plain_dtype(described)
    if isinstance(raw, str):  # Python 2
        raw = raw.encode("latin1")
    if dtype.kind == "O" or not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise _Refused(f"a scalar of type {dtype} does not come with its bytes")
    return np.frombuffer(raw, dtype)[0]


def _no_array(*args: Any) -> NoReturn:
    raise _Refused("it calls `numpy.ndarray`")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # How protocols 0 to 2 spell bytes. Any other codec would be imported by name.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise _Refused(f"it encodes with {encoding!r}")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _encode(data, encoding))


def _complex(real: Any = 0.0, imag: Any = 0.0) -> complex:
    return complex(float(real), float(imag))


def _container(kind: type) -> Callable[..., Any]:
    def build(*args: Any) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], (list, tuple, dict, set, frozenset))):
            raise _Refused(f"it calls `{kind.__name__}` with something other than a container")
        return kind(*args)

    return build


def _only_default(kind: type) -> Callable[..., Any]:
    def build(*args: Any) -> Any:
        if args:
            raise _Refused(f"it calls `{kind.__name__}`")
        return kind()

    return build


def _defaultdict(factory: Any = None, *items: Any) -> Any:
    if factory is not None and (not isinstance(factory, _StandIn) or factory.factory is None):
        raise _Refused("a defaultdict has a factory that is not a built-in type")
    kind: type | None = None if factory is None else factory.factory
    return defaultdict(kind, *[_container(dict)(item) for item in items])


def _table() -> dict[tuple[str, str], _StandIn]:
    builtins: dict[str, tuple[Callable[..., Any], type | None]] = {
        "list": (_container(list), list),
        "tuple": (_container(tuple), tuple),
        "dict": (_container(dict), dict),
        "set": (_container(set), set),
        "frozenset": (_container(frozenset), frozenset),
        "int": (_only_default(int), int),
        "float": (_only_default(float), float),
        "str": (_only_default(str), str),
        "bool": (_only_default(bool), bool),
        "bytes": (_only_default(bytes), bytes),
        "bytearray": (_bytearray, None),
        "complex": (_complex, None),
    }
    python2 = {"unicode": (_only_default(str), str), "long": (_only_default(int), int)}
    table = {
        ("numpy", "ndarray"): _StandIn("numpy.ndarray", _no_array),
        ("numpy", "dtype"): _StandIn("numpy.dtype", _Dtype),
        ("_codecs", "encode"): _StandIn("_codecs.encode", _encode),
        ("collections", "OrderedDict"): _StandIn("collections.OrderedDict", _container(dict), dict),
        ("collections", "defaultdict"): _StandIn("collections.defaultdict", _defaultdict),
        # Public training scripts for these files define `return_unk`, returning 0, as a vocabulary's default factory.
        # The name stands for `int` here; nothing is fetched from `__main__`.
        ("__main__", "return_unk"): _StandIn("__main__.return_unk", _only_default(int), int),
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _StandIn(f"{core}.multiarray._reconstruct", _reconstruct)
        table[f"{core}.multiarray", "scalar"] = _StandIn(f"{core}.multiarray.scalar", _scalar)
        table[f"{core}.numeric", "_frombuffer"] = _StandIn(f"{core}.numeric._frombuffer", _frombuffer)
    for module, names in (("builtins", builtins), ("__builtin__", {**builtins, **python2})):
        for name, (function, factory) in names.items():
            table[module, name] = _StandIn(f"{module}.{name}", function, factory)
    return table


ALLOWED: dict[tuple[str, str], _StandIn] = _table()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            pass
        if module.split(".")[0] == "torch":
            raise _Refused(f"it refers to `{module}.{name}`; save tensors as arrays first: `tensor.numpy()`")
        raise _Refused(f"it refers to `{module}.{name}`")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it refers to objects outside the file (persistent ids)")


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle that holds arrays and plain containers only.

    Arrays come back as `numpy.ndarray` (or a bare subclass of it: `np.asarray` makes it plain).

    Raises:
        UnsafePickleError: the file refers to anything else; nothing of it has run.
        DataError: the file is empty, truncated or not a pickle.
        FileNotFoundError: there is no such file.

    """
    path = Path(path)
    # An extension code that this process has resolved before would come from a cache, past `find_class`.
    copyreg.clear_extension_cache()
    with path.open("rb") as file:
        start = file.read(4)
        if not start:
            raise DataError(f"{path} is empty.")
        if start == b"PK\x03\x04":
            raise DataError(f"{path} is a zip archive (`torch.save` or `.npz`), not a pickle; save its arrays as .npz.")
        file.seek(0)
        try:
            return _Unpickler(file, encoding="latin1").load()
        except _Refused as error:
            raise UnsafePickleError(
                f"{path} is refused: {error}. Only arrays and plain containers are read from a pickle."
            ) from None
        except MemoryError:
            raise DataError(f"{path} asks for more memory than there is.") from None
        except Exception as error:
            # The unpickler raises nearly every built-in exception on a damaged stream.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path} is truncated or not a pickle of arrays and plain containers: {reason}.") from None
