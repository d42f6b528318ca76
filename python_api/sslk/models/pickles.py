"""Reads a pickle without running it: plain data is built, every other object stands in for itself and does nothing.

Python's own unpicklers import what the file names, call it and set its attributes. This one is a machine over the same
instructions (those of protocols 0 to 5) that knows no import: a global is looked up in a table of this package's own
constructors (`pickle_globals`), and one that is not there becomes a `StandIn` that remembers its name. Whatever a file
does, its cost is bounded: no instruction allocates more than the file holds, and the number of instructions is limited.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from mmap import mmap
from typing import Any

from sslk.models.stand_ins import Damaged, Global, Refused, StandIn, safe_key

MOST_STEPS = 10_000_000
_LEAST_COPIED = 16 << 20
_STEPS_PER_CALL = 20  # what a constructor makes costs more memory than a number


class Unpickler:
    """One pickle of a buffer.

    Args:
        data: bytes or a mapped file.
        find: the table: dotted name -> `Global` or a constant.
        load_persistent: what a persistent id stands for.
        position: of the pickle's first byte.

    Attributes:
        position: behind the last instruction read.

    >>> Unpickler(pickle.dumps({"a": [1, 2.5]}), Global, lambda key: key).load()
    {'a': [1, 2.5]}
    >>> found = Unpickler(pickle.dumps(Unpickler), Global, lambda key: key).load()
    >>> type(found).__name__, found.name
    ('Global', 'sslk.models.pickles.Unpickler')
    """

    def __init__(
        self, data: bytes | mmap, find: Callable[[str], Any], load_persistent: Callable[[Any], Any], position: int = 0
    ) -> None:
        self.data, self.find, self.load_persistent, self.position = data, find, load_persistent, position
        self.steps, self.spare = 0, 4 * len(data) + _LEAST_COPIED
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object.

        Raises:
            Damaged: it is no pickle, is cut off, or asks for too much.
            Refused: a constructor said so.
        """
        try:
            while True:
                self.spend(1)
                code = self.take(1)
                if code == pickle.STOP:
                    return self.stack.pop()
                _OPERATIONS[code](self)
        except (Damaged, Refused):
            raise
        except KeyError as error:
            raise Damaged(f"its pickle has no such instruction or memory: {error}") from None
        except (IndexError, TypeError, ValueError, OverflowError, struct.error, AttributeError) as error:
            raise Damaged(f"its pickle is damaged: {error}") from None

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise Damaged(f"its pickle has more than {MOST_STEPS:,} instructions")

    def take(self, count: int) -> bytes:
        """The next `count` bytes; nothing is allocated for bytes that are not there."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise Damaged(f"its pickle ends where {count} bytes should follow")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise Damaged("its pickle ends within a line")
        piece = self.take(end - self.position)
        self.position += 1
        return piece

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def construct(self, function: Any, args: Any, keywords: Any = ()) -> Any:
        """What a call in the pickle gives; only constructors of the table are called."""
        if isinstance(function, StandIn) or (isinstance(function, Global) and (function.build is None or keywords)):
            return StandIn(function.name)
        if not isinstance(function, Global) or not isinstance(args, tuple) or function.build is None:
            raise Damaged("its pickle calls what cannot be called")
        self.spend(_STEPS_PER_CALL)
        if args and isinstance(args[0], (str, bytes, bytearray, list, tuple, dict, set)):  # what the constructor may copy
            self.spare -= len(args[0]) * (1 if isinstance(args[0], (str, bytes, bytearray)) else 64)
            if self.spare < 0:
                raise Damaged("its pickle copies more than the file holds")
        try:
            return function.build(*args)
        except (Refused, Damaged):
            raise
        except Exception as error:  # whatever does not fit a constructor: the file is damaged or made up
            raise Damaged(f"{function.name} does not take what its pickle gives it ({error})") from None

    def set_state(self, state: Any) -> None:
        """Only objects made for it take a state: attributes of anything else are never set."""
        take = getattr(type(self.stack[-1]), "set_state", None)
        if take is not None:
            take(self.stack[-1], state)

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[safe_key(key)] = value

    def add(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is set:
            self.stack[-1].update(map(safe_key, items))

    def extension(self, width: int) -> None:
        self.push(self.find(f"copyreg.extension_{self.number(width)}"))  # the registry of this process is not asked

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Damaged("its pickle names a global by what is no text")
        self.push(self.find(f"{module}.{name}"))

    def read_global(self) -> Any:
        module, name = self.line().decode(), self.line().decode()
        return self.find(f"{module}.{name}")

    def construct_marked(self, function: Any = None) -> None:
        items = self.pop_marked()
        function = items.pop(0) if function is None else function
        self.push(self.construct(function, tuple(items)))

    def construct_top(self, with_keywords: bool = False) -> None:
        keywords = self.stack.pop() if with_keywords else ()
        args, function = self.stack.pop(), self.stack.pop()
        self.push(self.construct(function, args, keywords))

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def protocol(self) -> None:
        version = self.number(1)
        if version > pickle.HIGHEST_PROTOCOL:
            raise Damaged(f"its pickle is of protocol {version}")

    def out_of_band(self) -> None:
        raise Refused("its pickle keeps its data elsewhere (out-of-band buffers), and nothing of that is in the file")


def _text(data: bytes) -> str | bytes:
    """A string of Python 2: text, or bytes where it is none."""
    return data.decode() if data.isascii() else data


def _whole_number(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else int(line.removesuffix(b"L") or b"0")


def _index(line: bytes) -> int:
    if not line.isdigit() or len(line) > 10:
        raise Damaged("its pickle numbers its memory by what is no number")
    return int(line)


def _quoted(line: bytes) -> str | bytes:
    return _text(codecs.escape_decode(line.strip()[1:-1])[0])


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _sized(convert: Callable[[bytes], Any], width: int, signed: bool = False) -> Callable[[Unpickler], None]:
    return lambda u: u.push(convert(u.take(u.number(width, signed))))


def _tuple(count: int) -> Callable[[Unpickler], None]:
    def build(u: Unpickler) -> None:
        if len(u.stack) < count:
            raise Damaged("its pickle takes more from its stack than is there")
        u.stack[-count:] = [tuple(u.stack[-count:])]

    return build


def _dictionary(u: Unpickler) -> None:
    items = u.pop_marked()
    u.push({})
    u.set_items(items)


_OPERATIONS: dict[bytes, Callable[[Unpickler], Any]] = {
    pickle.PROTO: Unpickler.protocol,
    pickle.FRAME: lambda u: u.take(8),
    pickle.MARK: Unpickler.mark,
    pickle.POP: lambda u: u.stack.pop() if u.stack else u.pop_marked(),
    pickle.POP_MARK: Unpickler.pop_marked,
    pickle.DUP: lambda u: u.push(u.stack[-1]),
    pickle.NONE: lambda u: u.push(None),
    pickle.NEWTRUE: lambda u: u.push(True),
    pickle.NEWFALSE: lambda u: u.push(False),
    pickle.INT: lambda u: u.push(_whole_number(u.line())),
    pickle.LONG: lambda u: u.push(_whole_number(u.line())),
    pickle.BININT: lambda u: u.push(u.number(4, signed=True)),
    pickle.BININT1: lambda u: u.push(u.number(1)),
    pickle.BININT2: lambda u: u.push(u.number(2)),
    pickle.LONG1: lambda u: u.push(u.number(u.number(1), signed=True)),
    pickle.LONG4: lambda u: u.push(u.number(u.number(4, signed=True), signed=True)),
    pickle.FLOAT: lambda u: u.push(float(u.line())),
    pickle.BINFLOAT: lambda u: u.push(struct.unpack(">d", u.take(8))[0]),
    pickle.STRING: lambda u: u.push(_quoted(u.line())),
    pickle.BINSTRING: _sized(_text, 4, signed=True),
    pickle.SHORT_BINSTRING: _sized(_text, 1),
    pickle.UNICODE: lambda u: u.push(u.line().decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: _sized(_utf8, 1),
    pickle.BINUNICODE: _sized(_utf8, 4),
    pickle.BINUNICODE8: _sized(_utf8, 8),
    pickle.SHORT_BINBYTES: _sized(bytes, 1),
    pickle.BINBYTES: _sized(bytes, 4),
    pickle.BINBYTES8: _sized(bytes, 8),
    pickle.BYTEARRAY8: _sized(bytearray, 8),
    pickle.EMPTY_LIST: lambda u: u.push([]),
    pickle.EMPTY_DICT: lambda u: u.push({}),
    pickle.EMPTY_SET: lambda u: u.push(set()),
    pickle.EMPTY_TUPLE: lambda u: u.push(()),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.TUPLE: lambda u: u.push(tuple(u.pop_marked())),
    pickle.LIST: lambda u: u.push(u.pop_marked()),
    pickle.DICT: _dictionary,
    pickle.FROZENSET: lambda u: u.push(frozenset(map(safe_key, u.pop_marked()))),
    pickle.APPEND: lambda u: u.append([u.stack.pop()]),
    pickle.APPENDS: lambda u: u.append(u.pop_marked()),
    pickle.SETITEM: lambda u: u.set_items([u.stack.pop(-2), u.stack.pop()]),
    pickle.SETITEMS: lambda u: u.set_items(u.pop_marked()),
    pickle.ADDITEMS: lambda u: u.add(u.pop_marked()),
    pickle.PUT: lambda u: u.memo.__setitem__(_index(u.line()), u.stack[-1]),
    pickle.BINPUT: lambda u: u.memo.__setitem__(u.number(1), u.stack[-1]),
    pickle.LONG_BINPUT: lambda u: u.memo.__setitem__(u.number(4), u.stack[-1]),
    pickle.MEMOIZE: lambda u: u.memo.__setitem__(len(u.memo), u.stack[-1]),
    pickle.GET: lambda u: u.push(u.memo[_index(u.line())]),
    pickle.BINGET: lambda u: u.push(u.memo[u.number(1)]),
    pickle.LONG_BINGET: lambda u: u.push(u.memo[u.number(4)]),
    pickle.GLOBAL: lambda u: u.push(u.read_global()),
    pickle.STACK_GLOBAL: Unpickler.stack_global,
    pickle.EXT1: lambda u: u.extension(1),
    pickle.EXT2: lambda u: u.extension(2),
    pickle.EXT4: lambda u: u.extension(4),
    pickle.INST: lambda u: u.construct_marked(u.read_global()),
    pickle.OBJ: lambda u: u.construct_marked(),
    pickle.REDUCE: lambda u: u.construct_top(),
    pickle.NEWOBJ: lambda u: u.construct_top(),
    pickle.NEWOBJ_EX: lambda u: u.construct_top(with_keywords=True),
    pickle.BUILD: lambda u: u.set_state(u.stack.pop()),
    pickle.PERSID: lambda u: u.push(u.load_persistent(u.line().decode())),
    pickle.BINPERSID: lambda u: u.push(u.load_persistent(u.stack.pop())),
    pickle.NEXT_BUFFER: Unpickler.out_of_band,
    pickle.READONLY_BUFFER: Unpickler.out_of_band,
}
