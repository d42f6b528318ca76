"""Pickles made to run something, or to cost time and memory without end; each is the `data.pkl` of an archive."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

END = b"."


class Reduces:
    """Pickles as a call of anything."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def named(name: str, *, stacked: bool = False) -> bytes:
    module, _, last = name.rpartition(".")
    return text(module) + text(last) + b"\x93" if stacked else f"c{module}\n{last}\n".encode()


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def running(canary: Path) -> dict[str, bytes]:
    """Pickles that run something in an unpickler that lets them; what runs leaves `canary` behind."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    system, evaluate = named("os.system"), named("builtins.eval")
    module = pickle.dumps({"state_dict": {}, "x": Reduces(exec, (code,))}, 2)
    array = call(named("numpy._core.multiarray._reconstruct"), named("numpy.ndarray"), b"(K\0t", b"C\1b")
    objects = call(named("numpy.dtype"), text("O8"), b"\x89", b"\x88")
    rebuild, subclass = named("torch._utils._rebuild_tensor_v2"), named("torch._tensor._rebuild_from_type_v2")
    canary_class = named("canary_module.Thing")
    return {
        "os.system": pickle.dumps({"a": Reduces(os.system, (touch,))}, 2),
        "subprocess": pickle.dumps({"a": Reduces(subprocess.Popen, (["touch", str(canary)],))}, 4),
        "eval": pickle.dumps({"a": Reduces(eval, (code,))}, 0),
        "exec in state": module,
        "STACK_GLOBAL": b"\x80\4" + call(named("posix.system", stacked=True), text(touch)) + END,
        "INST": b"(" + text(touch) + b"ios\nsystem\n" + END,
        "OBJ": b"(" + system + text(touch) + b"o" + END,
        "NEWOBJ": system + text(touch) + b"\x85\x81" + END,
        "NEWOBJ_EX": b"\x80\4" + system + text(touch) + b"\x85}\x92" + END,
        "EXT1": b"\x82\1" + text(touch) + b"\x85R" + END,
        "a class of __main__": named("__main__.Canary") + b")\x81}" + text("x") + text("y") + b"sb" + END,
        "a class whose import is seen": canary_class + b")R" + END,
        "nested names": b"\x80\4" + call(named("builtins.object.__subclasses__", stacked=True)) + END,
        "getattr": call(call(named("builtins.getattr"), named("os.system"), text("__call__")), text(touch)) + END,
        "a stand-in called": call(call(system, text(touch)), text(touch)) + END,
        "import": call(named("builtins.__import__"), text("canary_module")) + END,
        "apply": call(named("functools.partial"), evaluate, text(code)) + b")R" + END,
        "map in set": call(named("builtins.set"), call(named("builtins.map"), evaluate, b"(" + text(code) + b"l")) + END,
        "defaultdict's factory": call(named("collections.defaultdict"), system) + text("k") + text("v") + b"s" + END,
        "tensor of stand-ins": call(rebuild, call(system, text(touch)), b"K\0", b")", b")", b"\x89", b"N") + END,
        "subclass with its own builder": call(subclass, system, system, text(touch) + b"\x85", b"}") + END,
        "parameter of a call": call(named("torch._utils._rebuild_parameter"), call(evaluate, text(code)), b"\x88", b"N") + END,
        "codecs.encode": call(named("_codecs.encode"), text(code), text("unicode_escape")) + END,
        "codecs by name": call(named("_codecs.encode"), text(code), text("canary_module")) + END,
        "objects of NumPy": array + b"(K\1" + b"K\1\x85" + objects + b"\x89](" + call(system, text(touch)) + b"etb" + END,
        "scalar of NumPy": call(named("numpy.core.multiarray.scalar"), objects, call(system, text(touch))) + END,
        "_reconstructor": call(named("copyreg._reconstructor"), canary_class, named("builtins.object"), b"N") + END,
        "state of a constructor": named("collections.OrderedDict") + b"}" + text("__call__") + system + b"sb" + END,
        "slots of a constructor": named("_codecs.encode") + b"N}" + text("__defaults__") + b")s\x86b" + END,
        "persistent id": call(system, text(touch)) + b"Q" + END,
        "persistent text": b"P" + touch.encode() + b"\n" + END,
        "torch.load": call(named("torch.serialization.load"), text(str(canary))) + END,
        "hub": call(named("torch.hub.load"), text("x/y"), text("z")) + END,
    }


def chained(step: Callable[[int], bytes], count: int, first: bytes) -> bytes:
    return first + b"".join(step(i) for i in range(count))


def endless() -> dict[str, bytes]:
    """Pickles of a few kilobytes that unpack to more than any machine has, or keep it busy."""
    pair = chained(lambda i: b"2\x86", 64, b")")  # DUP, TUPLE2: 2 ** 64 leaves
    dictionaries = chained(lambda i: b"q\0" + b"}(" + text("a") + b"h\0" + text("b") + b"h\0u", 60, b"}")
    storage = b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu")
    stored = storage + b"K\4tQ"
    view = lambda size, stride, begin=b"K\0": call(  # noqa: E731
        named("torch._utils._rebuild_tensor_v2"), stored, begin, size, stride, b"\x89", b"N"
    )
    huge = b"\x8a\x07" + (2**50).to_bytes(7, "little")
    return {
        "a key of 2 ** 64 leaves": b"}" + pair + b"K\1s" + END,
        "a set of 2 ** 64 leaves": b"\x80\4\x8f(" + pair + b"\x90" + END,
        "dictionaries of 2 ** 60": dictionaries + END,
        "a thousand dictionaries deep": b"}" + text("a") + b"}" + (text("a") + b"}") * 1000 + b"s" * 1001 + END,
        "a dictionary in itself": b"}q\0" + text("a") + b"h\0s" + END,
        "a hundred thousand lists deep": b"](" * 100_000 + b"e" * 100_000 + END,
        "a string of 2 ** 63": b"\x80\4\x8d" + b"\xff" * 7 + b"\x7f" + END,
        "bytes of 2 ** 32": b"\x80\3B\xff\xff\xff\xff" + END,
        "a bytearray of a number": call(named("builtins.bytearray"), huge) + END,
        "a list of a range": call(named("builtins.list"), call(named("builtins.range"), huge)) + END,
        "a memory index of 2 ** 32": b"Nr\xff\xff\xff\xff" + END,
        "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n" + END,
        "a tensor outside its storage": b"}" + text("a") + view(b"K\5\x85", b"K\1\x85") + b"s" + END,
        "an offset outside": b"}" + text("a") + view(b"K\2\x85", b"K\1\x85", b"K\3") + b"s" + END,
        "one number 2 ** 50 times": b"}" + text("a") + view(huge + b"\x85", b"K\0\x85") + b"s" + END,
        "a negative stride": b"}" + text("a") + view(b"K\2\x85", b"J\xff\xff\xff\xff\x85", b"K\3") + b"s" + END,
        "a storage larger than the file": b"}" + text("a") + storage + huge + b"tQs" + END,
        "an array of 2 ** 50": call(named("numpy._core.multiarray._reconstruct"), named("numpy.ndarray"), b"(K\0t", b"C\1b")
        + b"(K\1"
        + huge
        + b"\x85"
        + call(named("numpy.dtype"), text("f8"), b"\x89", b"\x88")
        + b"\x89C\0tb"
        + END,
        "a dtype of 2 ** 30 bytes": call(named("numpy.dtype"), text("V1073741824"), b"\x89", b"\x88") + END,
        "marks without end": b"(" * 100_000 + END,
        "copies of a megabyte": b"U\1x0"
        + text("y" * 1_000_000)
        + b"q\0"
        + b"c_codecs\nencode\nq\1"
        + b"h\1h\0"
        + text("latin1")
        + b"\x86q\2R0"
        + b"h\1h\2R" * 20_000
        + END,
        "nothing": b"",
        "a protocol of the future": b"\x80\x63N" + END,
    }


def write(pickled: bytes, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive as `torch.save` makes it, with one storage of four floats."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", struct.pack("<4f", 1, 2, 3, 4))
    return path
