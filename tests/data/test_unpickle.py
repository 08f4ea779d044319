"""The unpickler reads arrays and plain containers, and runs nothing else."""

from __future__ import annotations

import collections
import copyreg
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data.errors import DataError
from equipoise.data.unpickle import ALLOWED, UnsafePickleError, load_pickle

PROTOCOLS = range(6)


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.made = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.made


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    np.arange(3, dtype=">i2"),
    np.array([-np.inf, np.nan, 1.0], dtype=np.float32),
    np.array([True, False]),
    np.array(2.5),
    np.zeros((0, 3)),
    np.array(["a", "bcd", "é"]),
    np.array([b"xy", b"z"]),
    np.array([1, "x", [2.0, None]], dtype=object),
]
VALUES = [
    None, True, 7, 10**30, 1.5, 2j, "text é", b"\xff\x00", b"", bytearray(b"ab"), [1, [2]], (1, (2,)), {"a": {1: 2}},
    {1, 2}, frozenset([3]), collections.OrderedDict(b=1, a=2), np.float32(0.1), np.int64(-4), np.str_("s"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_pickle_reads(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"arrays": ARRAYS, "values": VALUES}, protocol)
    path = saved(tmp_path / "x.pkl", content)
    ours, theirs = load_pickle(path), pickle.loads(content)
    for array, expected in zip(ours["arrays"], theirs["arrays"], strict=True):
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(array), expected)
    assert ours["values"] == theirs["values"]
    assert [type(v) for v in ours["values"] if type(v) is not dict] == [
        type(v) for v in theirs["values"] if not isinstance(v, dict)
    ]


@pytest.mark.parametrize("factory", [list, dict, set, int, float, str, tuple])
def test_keeps_a_defaultdict_of_a_builtin_type(tmp_path: Path, factory: type) -> None:
    original = collections.defaultdict(factory, {"a": factory()})
    loaded = load_pickle(saved(tmp_path / "x.pkl", pickle.dumps(original)))
    assert type(loaded) is collections.defaultdict
    assert loaded.default_factory is factory
    assert loaded == original


def test_python_2_pickle_is_read_as_latin1(tmp_path: Path) -> None:
    # Written by hand as Python 2.7 with numpy.core does at protocol 2: names in `__builtin__` style, bytes as `str`.
    raw = np.array([1.0, -2.0], dtype="<f4").tobytes()
    content = (
        b"\x80\x02}(U\x05audiocnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbU\x04text" + b"U\x04caf\xe9" + b"u."
    )
    loaded = load_pickle(saved(tmp_path / "x.pkl", content))
    np.testing.assert_array_equal(np.asarray(loaded["audio"]), np.array([1.0, -2.0], dtype=np.float32))
    assert loaded["audio"].dtype == np.float32
    assert loaded["text"] == "café"


def test_the_released_vocabulary_default_is_read_without_the_script(tmp_path: Path) -> None:
    content = b"\x80\x02ccollections\ndefaultdict\nc__main__\nreturn_unk\n\x85RX\x01\x00\x00\x00aK\x05s."
    loaded = load_pickle(saved(tmp_path / "mosi.pkl", content))
    assert loaded == {"a": 5}
    assert loaded["never seen"] == 0


def attacks(target: Path) -> dict[str, bytes]:
    """Pickles that would create `target`, or lead there, each with the name its refusal has to show."""

    shell = f"touch {target}"
    touch = shell.encode()
    text = b"X" + struct.pack("<I", len(touch)) + touch
    array = np.zeros(2)
    return {
        "posix.system": pickle.dumps(Call(os.system, shell)),
        "posix.system ": pickle.dumps([array, {"a": Call(os.system, shell)}], 0),
        "builtins.eval": pickle.dumps(Call(eval, f"open({str(target)!r}, 'w')")),
        "builtins.exec": pickle.dumps(Call(exec, f"open({str(target)!r}, 'w')")),
        "__builtin__.eval": b"c__builtin__\neval\n(S\"open('" + str(target).encode() + b"', 'w')\"\ntR.",
        "io.open": pickle.dumps(Call(open, str(target), "w")),
        "builtins.getattr": b"\x80\x02cbuiltins\ngetattr\ncposixpath\nos\nX\x06\x00\x00\x00system\x86R"
        + text
        + b"\x85R.",
        "os.system": b"(S'" + touch + b"'\nios\nsystem\n.",
        "os.system  ": b"(cos\nsystem\n" + text + b"o.",
        "os.path.os.system": b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93" + text + b"\x85R.",
        "numpy.ndarray.__class__": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "numpy.load": b"cnumpy\nload\n(S'x.npy'\nNI01\ntR.",
        "numpy.testing._private.utils.runstring": b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n}tR.",
        "numpy.fromfile": b"cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
        "numpy.core.multiarray.fromfile": b"cnumpy.core.multiarray\nfromfile\n(S'/etc/hostname'\ntR.",
        "subprocess.Popen": pickle.dumps(Call(subprocess.Popen, ["touch", str(target)])),
        "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
        "copy_reg._reconstructor": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        "functools.partial": b"cfunctools\npartial\n(cos\nsystem\ntR.",
        "torch._utils._rebuild_tensor_v2": b"ctorch._utils\n_rebuild_tensor_v2\n(tR.",
        "builtins.object": b"cbuiltins\nobject\n)\x81}b.",
        "importlib.import_module": b"cimportlib\nimport_module\n(S'antigravity'\ntR.",
        "_codecs.decode": b"c_codecs\ndecode\n(S'x'\ntR.",
        "collections.deque": pickle.dumps(collections.deque([1])),
        "collections.Counter": pickle.dumps(collections.Counter("ab")),
        "__main__.Model": b"c__main__\nModel\n)\x81.",
    }


@pytest.mark.parametrize("name", sorted(attacks(Path("/nowhere"))))
def test_every_other_name_is_refused_by_name_and_nothing_runs(tmp_path: Path, name: str) -> None:
    target = tmp_path / "created"
    path = saved(tmp_path / "evil.pkl", attacks(target)[name])
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "evil.pkl" in message
    assert f"`{name.strip()}`" in message
    assert not target.exists()


def test_the_attacks_work_on_a_plain_unpickler(tmp_path: Path) -> None:
    # Otherwise the test above could pass on harmless files.
    target = tmp_path / "created"
    for name in ("posix.system", "os.system", "os.system  ", "os.path.os.system", "builtins.getattr", "posix.system "):
        pickle.loads(attacks(target)[name])
        assert target.exists(), name
        target.unlink()


def test_a_torch_tensor_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pkl", pickle.dumps({"audio": torch.zeros(2)}))
    with pytest.raises(UnsafePickleError, match=r"torch\._utils\._rebuild_tensor_v2.*tensor\.numpy\(\)"):
        load_pickle(path)
    torch.save({"audio": torch.zeros(2)}, tmp_path / "y.pkl")
    with pytest.raises(DataError, match=r"zip archive"):
        load_pickle(tmp_path / "y.pkl")


def test_persistent_ids_are_refused(tmp_path: Path) -> None:
    for content in (b"Pabc\n.", b"\x80\x02U\x03abcQ."):
        with pytest.raises(UnsafePickleError, match="persistent"):
            load_pickle(saved(tmp_path / "x.pkl", content))


def test_extension_codes_are_refused_even_when_cached(tmp_path: Path) -> None:

    target = tmp_path / "created"
    touch = f"touch {target}".encode()
    content = b"\x80\x02\x82\xf0X" + struct.pack("<I", len(touch)) + touch + b"\x85R."
    copyreg.add_extension("os", "system", 0xF0)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")  # fills the cache that a plain unpickler reads first
        with pytest.raises(UnsafePickleError, match=r"`os\.system`"):
            load_pickle(saved(tmp_path / "x.pkl", content))
        assert not target.exists()
        pickle.loads(content)
        assert target.exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
        copyreg.clear_extension_cache()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
OBJECTS = b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
FLOATS = b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        # The dtype's state clears the flags that mark objects: NumPy itself would take the bytes for pointers.
        (b"\x80\x02" + ARRAY + b"(K\x01K\x01\x85" + OBJECTS + b"\x89U\x08AAAAAAAAtb.", "object array"),
        # NumPy reads one object a cell without looking at the list's length.
        (b"\x80\x02" + ARRAY + b"(K\x01M\xff\xff\x85" + OBJECTS + b"\x89]K\x01atb.", "object array"),
        (b"\x80\x02" + ARRAY + b"(K\x01J\x00\x00\x00\x7f\x85" + FLOATS + b"\x89U\x08AAAAAAAAtb.", "its bytes"),
        (b"\x80\x02" + ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOATS + b"\x89U\x08AAAAAAAAtb.", "shape"),
        (b"\x80\x02" + ARRAY + b"(K\x01K\x01\x85U\x02f8\x89U\x08AAAAAAAAtb.", "plain dtype"),
        (b"\x80\x02cnumpy\ndtype\n(U\x0df8,O,(2)f4,i8tR.", "not a plain one"),
        (b"\x80\x02cnumpy\ndtype\n(U\x02V8tR.", "not a plain one"),
        (b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85R.", "calls `numpy.ndarray`"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.", "array subclass"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n" + OBJECTS + b"U\x08AAAAAAAA\x86R.", "scalar"),
        (b"\x80\x02c_codecs\nencode\nU\x01aU\x05punyc\x86R.", "encodes"),
        (b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.", "encodes"),
        (b"\x80\x02c__builtin__\nlist\nU\x05abcde\x85R.", "container"),
        (b"\x80\x02ccollections\ndefaultdict\nc_codecs\nencode\n\x85R.", "defaultdict"),
        (b"\x80\x02ccollections\ndefaultdict\ncnumpy\nndarray\n\x85R.", "defaultdict"),
        # BUILD on a name: a plain unpickler would set attributes of the function or class itself.
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x03docU\x01xsb.", "sets state"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x08functionc_codecs\nencode\ns\x86b.", "sets state"),
    ],
)
def test_allowed_names_cannot_be_misused(tmp_path: Path, content: bytes, reason: str) -> None:
    before = {key: (item.function, item.factory) for key, item in ALLOWED.items()}
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(saved(tmp_path / "x.pkl", content))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == {key: (item.function, item.factory) for key, item in ALLOWED.items()}


def test_the_table_holds_nothing_but_stand_ins() -> None:
    for (module, name), item in ALLOWED.items():
        assert module in (
            "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric",
            "_codecs", "collections", "builtins", "__builtin__", "__main__",
        )  # fmt: skip
        assert name not in ("eval", "exec", "getattr", "setattr", "open", "compile", "__import__", "object", "type")
        with pytest.raises(Exception, match="sets state"):
            item.name = "other"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"audio": np.arange(100.0), "text": ["a", "b"]}, protocol)
    for cut in range(1, len(content) - 1, 37):
        with pytest.raises(DataError) as caught:
            load_pickle(saved(tmp_path / "cut.pkl", content[:cut]))
        assert "cut.pkl is truncated or not a pickle" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"id,label\n1,2\n", b"\x89HDF\r\n\x1a\n", b"\x80\xff", b"{}", b"\n\n\n\n"])
def test_not_a_pickle_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.pkl is truncated or not a pickle") as caught:
        load_pickle(saved(tmp_path / "x.pkl", content))
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_a_missing_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.pkl is empty"):
        load_pickle(saved(tmp_path / "x.pkl", b""))
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "missing.pkl")
