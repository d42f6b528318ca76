"""The names that a checkpoint's pickle may use, each with this package's own constructor; nothing else is ever called."""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.models.stand_ins import Damaged, Global, StandIn, Stored, Unreadable, safe_key

_MOST_DIMENSIONS = 32
_MOST_REPEATED_BYTES = 64 << 20
# Numbers of a fixed width; objects, texts and records of NumPy are no tensors.
_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")


class Dtype:
    """A NumPy dtype on its way: its state tells the byte order. `dtype` is None for one that holds no numbers."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *options: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        self.dtype = np.dtype(code) if isinstance(code, str) and _NUMBERS.fullmatch(code) else None

    def set_state(self, state: Any) -> None:
        if self.dtype is not None and isinstance(state, tuple) and len(state) > 1 and state[1] in (">", "<", b">", b"<"):
            self.dtype = self.dtype.newbyteorder(">" if state[1] in (">", b">") else "<")


class Array:
    """A NumPy array on its way: its state holds the values. `array` is None for one that holds no numbers."""

    __slots__ = ("array",)

    def __init__(self, *unused: Any) -> None:
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        shape, dtype, fortran, data = state[-4:]
        if isinstance(dtype, Dtype) and dtype.dtype is not None:
            self.array = _array(data, dtype.dtype, shape, bool(fortran))


def _array(data: Any, dtype: np.dtype, shape: Any, fortran: bool) -> np.ndarray:
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(_sizes(shape)) * dtype.itemsize:
        raise Damaged("an array of NumPy in it does not have the bytes that its shape needs")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    result = Array()
    result.set_state((shape, dtype, order == "F", data))
    return result


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, Dtype) or dtype.dtype is None:
        return StandIn("numpy.scalar")
    return _array(data, dtype.dtype, (1,), False)[0].item()


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MOST_DIMENSIONS:
        raise Damaged("a tensor's shape in it is no tuple of a few numbers")
    if any(type(value) is not int or not 0 <= value < 2**62 for value in values):
        raise Damaged("a tensor's shape in it holds what is no size")
    return tuple(values)


def _view(stored: Any, dtype: torch.dtype | None, offset: Any, size: Any, stride: Any) -> Any:
    """The tensor at an offset of a storage, if all of it lies inside; strides may repeat elements within reason."""
    if isinstance(stored, (Unreadable, StandIn)):
        return stored
    if not isinstance(stored, Stored) or not isinstance(dtype, torch.dtype):
        raise Damaged("a tensor in it has no storage")
    if stored.storage is None:
        return StandIn("tensor")
    shape, steps = _sizes(size), _sizes(stride)
    (offset,) = _sizes((offset,))
    numel = math.prod(shape)
    if numel == 0:
        return torch.empty(shape, dtype=dtype)
    last = offset + sum((count - 1) * step for count, step in zip(shape, steps, strict=True))
    if last >= stored.storage.nbytes() // dtype.itemsize:
        raise Damaged(f"a tensor of shape {list(shape)} in it lies outside its storage")
    if numel * dtype.itemsize > max(stored.storage.nbytes(), _MOST_REPEATED_BYTES):
        raise Damaged(f"a tensor of shape {list(shape)} in it repeats the {stored.storage.nbytes()} bytes of its storage")
    return torch.empty(0, dtype=dtype).set_(stored.storage, offset, shape, steps)


def _tensor(stored: Any, offset: Any, size: Any, stride: Any, *options: Any) -> Any:
    return _view(stored, getattr(stored, "dtype", None), offset, size, stride)


def _tensor_of_dtype(stored: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *rest: Any) -> Any:
    return _view(stored, dtype, offset, size, stride)


def _first(data: Any, *options: Any) -> Any:
    """What is wrapped: a parameter's tensor, an array or tensor that comes from another device."""
    if isinstance(data, Array) and data.array is not None:
        return tensor_of(data.array)
    return data if isinstance(data, (Tensor, Unreadable)) else StandIn("wrapped")


def _subclass(function: Any, kind: Any, args: Any, *state: Any) -> Any:
    """The plain tensor inside a tensor subclass."""
    known = isinstance(function, Global) and function.name.startswith("torch._utils._rebuild_") and function.build
    return known(*args) if known and isinstance(args, tuple) else StandIn(getattr(kind, "name", "subclass"))


def tensor_of(array: np.ndarray) -> Tensor:
    """The tensor of an array of numbers, in this machine's byte order."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))


def _unreadable(kind: str) -> Callable[..., Unreadable]:
    return lambda *unused: Unreadable(kind)


def _ordered(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return OrderedDict((safe_key(key), value) for key, value in pairs)


def _default(factory: Any = None, items: Any = ()) -> dict[Any, Any]:
    return _ordered(items)


def _counter(items: Any = ()) -> dict[Any, Any]:
    return Counter({key: value for key, value in _ordered(items).items() if isinstance(value, int)})


def _sequence(build: Callable[[Any], Any]) -> Callable[..., Any]:
    def checked(items: Any = (), *options: Any) -> Any:
        if not isinstance(items, (list, tuple)):
            raise Damaged("a collection in it is made of no list")
        return build(items)

    return checked


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise Damaged("bytes in it are written in an unknown way")
    return text.encode("latin-1")


def _bytes(data: Any = b"", encoding: Any = None) -> bytes:
    if isinstance(data, str):
        return _encode(data, encoding)
    if not isinstance(data, (bytes, bytearray)):
        raise Damaged("bytes in it are made of no bytes")
    return bytes(data)


def _number(build: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any) -> Any:
        if any(not isinstance(value, (int, float)) or abs(value) >= 2**63 for value in values):
            raise Damaged("a number in it is made of no numbers")
        return build(*values)

    return checked


def _device(kind: Any = "cpu", index: Any = None) -> str:
    kind = kind if isinstance(kind, str) else "cpu"
    return f"{kind}:{index}" if type(index) is int and abs(index) < 2**31 else kind


def _of_class(kind: Any, *unused: Any) -> Any:
    """An object as `copyreg` makes it: of a class that is not known, or an empty container."""
    return kind.build() if isinstance(kind, Global) and kind.build in _EMPTY else StandIn(getattr(kind, "name", "object"))


_EMPTY = (_ordered, _default, _counter)
_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_sparse_tensor": _unreadable("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unreadable("a sparse tensor"),
    "torch._utils._rebuild_qtensor": _unreadable("a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": _unreadable("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("a tensor without values (on the meta device)"),
    "torch._utils._rebuild_wrapper_subclass": _unreadable("a tensor that wraps others"),
    "torch._tensor._rebuild_from_type": _subclass,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.tensor._rebuild_from_type": _subclass,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.Tensor": _first,
    "torch.Size": _sequence(lambda items: torch.Size(_sizes(items))),
    "torch.device": _device,
    "torch.serialization._get_layout": lambda name: name,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    "collections.Counter": _counter,
    "collections.deque": _sequence(list),
    "_codecs.encode": _encode,
    **{f"{module}.complex": _number(complex) for module in ("builtins", "__builtin__")},
    **{f"{module}.slice": lambda *unused: StandIn("slice") for module in ("builtins", "__builtin__")},
    **{f"{module}.bytearray": lambda *data: bytearray(_bytes(*data)) for module in ("builtins", "__builtin__")},
    **{f"{module}.bytes": _bytes for module in ("builtins", "__builtin__")},
    **{f"{module}.dict": _ordered for module in ("builtins", "__builtin__")},
    **{f"{module}.list": _sequence(list) for module in ("builtins", "__builtin__")},
    **{f"{module}.tuple": _sequence(tuple) for module in ("builtins", "__builtin__")},
    **{f"{module}.set": _sequence(lambda items: set(map(safe_key, items))) for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": _sequence(lambda i: frozenset(map(safe_key, i))) for module in ("builtins", "__builtin__")},
    **{f"{module}.{name}": _of_class for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")},
    **{f"numpy{core}.multiarray._reconstruct": Array for core in (".core", "._core")},
    **{f"numpy{core}.multiarray.scalar": _numpy_scalar for core in (".core", "._core")},
    **{f"numpy{core}.numeric._frombuffer": _frombuffer for core in (".core", "._core")},
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
}
# Names that stand for themselves: default factories, base classes, sizes of nothing.
_NAMES = {
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("object", "int", "float", "str", "bool")),
    *(f"{module}.range" for module in ("builtins", "__builtin__")),
    "builtins.NoneType",
}
_STORAGES = {
    **{
        f"{name}Storage": dtype
        for name, dtype in {
            "Double": torch.float64,
            "Float": torch.float32,
            "Half": torch.float16,
            "BFloat16": torch.bfloat16,
            "Long": torch.int64,
            "Int": torch.int32,
            "Short": torch.int16,
            "Char": torch.int8,
            "Byte": torch.uint8,
            "Bool": torch.bool,
            "ComplexDouble": torch.complex128,
            "ComplexFloat": torch.complex64,
            "QInt8": torch.qint8,
            "QUInt8": torch.quint8,
            "QInt32": torch.qint32,
            "QUInt4x2": torch.quint4x2,
            "QUInt2x4": torch.quint2x4,
        }.items()
    },
    "UntypedStorage": None,
    "_UntypedStorage": None,
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_LAYOUTS = {str(value): value for value in vars(torch).values() if isinstance(value, torch.layout)}


class Table:
    """Looks names up, and remembers those that are not known.

    Attributes:
        ignored: the names that stand-ins stand for, in the order of the file.
    """

    def __init__(self) -> None:
        self.ignored: dict[str, None] = {}

    def __call__(self, name: str) -> Any:
        if name in _DTYPES or name in _LAYOUTS:
            return _DTYPES.get(name, _LAYOUTS.get(name))
        module, _, last = name.rpartition(".")
        if last in _STORAGES and module in ("torch", "torch.cuda", "torch.storage"):
            return Stored(None, _STORAGES[last])
        if name not in _BUILDERS and name not in _NAMES:
            self.ignored.setdefault(name[:200])
        return Global(name, _BUILDERS.get(name))
