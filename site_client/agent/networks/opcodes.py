"""A pickle machine without imports, calls or attributes, for descriptions of tensors.

A pickle is a program. This walks its opcodes and can do seven things by name (make
an ordered dictionary, describe a tensor's view of a storage, name a kind of
storage) and otherwise only stack plain values; every other name and opcode is
refused. No byte of a tensor is read here.
"""

from __future__ import annotations

import math
import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np

from common.errors import InputDataError

MOST_PICKLE_BYTES = 16 << 20
_MOST_OPCODES = 2_000_000
# What the walker and plain values complain with when a program is damaged.
_COMPLAINTS = (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error)

KINDS: dict[str, np.dtype[np.generic]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _Name:
    """A global that the machine knows; nothing but a label."""

    text: str


_ORDERED_DICT = _Name("collections.OrderedDict")
_REBUILD_TENSOR = _Name("torch._utils._rebuild_tensor_v2")
_KNOWN = {name.text: name for name in (_ORDERED_DICT, _REBUILD_TENSOR)} | {
    f"torch.{kind}": _Name(f"torch.{kind}") for kind in KINDS
}


class Table(dict[object, object]):
    """A dictionary or ordered dictionary of the file."""


@dataclass(frozen=True)
class Storage:
    """The pickle's word about a storage; its bytes are elsewhere in the file."""

    key: str
    kind: str
    count: int

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.count * KINDS[self.kind].itemsize


@dataclass(frozen=True)
class TensorView:
    """A tensor as offset, shape and strides (elements) into a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def refusal(problem: str, *, expected: str = "", got: str = "") -> InputDataError:
    """The error of every file that is not read."""
    return InputDataError(
        f"the weights file {problem}",
        expected=expected,
        got=got,
        advice="Nothing in it was run. Ask its author for the weights alone (a state_dict)",
    )


def shown(text: object) -> str:
    """A name from the file, short and without control characters."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."


_MARK = object()


@dataclass
class Machine:
    """A pickle machine without imports, calls or attributes.

    Attributes:
        program: bytes that begin with one pickle.
        storages: storages the pickle refers to, by key.
        consumed: bytes the pickle took, after `run`.
    """

    program: bytes
    storages: dict[str, Storage] = field(default_factory=dict)
    consumed: int = 0
    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def run(self) -> object:
        """The value the pickle describes.

        Raises:
            InputDataError: an opcode or a name that tensors do not need; damaged.
        """
        if len(self.program) > MOST_PICKLE_BYTES:
            raise refusal("is too large", expected="a description of at most 16 MiB")
        stream = BytesIO(self.program)
        try:
            with warnings.catch_warnings():
                # The walker warns of odd escapes in names, which are refused anyway.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._walk(stream)
        except _COMPLAINTS as error:
            # They quote the file's bytes: not repeated here.
            raise refusal("is damaged") from error
        self.consumed = stream.tell()
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise refusal("is damaged", expected="one value")
        return self.stack[0]

    def _walk(self, stream: BytesIO) -> None:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= _MOST_OPCODES:
                raise refusal("is too large", expected=f"at most {_MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return
            self._obey(opcode.name, argument)

    def _obey(self, name: str, argument: object) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            key = len(self.memo) if name == "MEMOIZE" else argument
            self.memo[_integer(key)] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[_integer(argument)])
        elif name in _DEEDS:
            _DEEDS[name](self, argument)
        else:
            raise refusal(
                "holds something else than weights", got=f"the pickle opcode {shown(name)}"
            )

    def _to_mark(self) -> list[object]:
        """Pop everything above the last mark, and the mark."""
        mark = len(self.stack) - 1
        while self.stack[mark] is not _MARK:
            mark -= 1
        items = self.stack[mark + 1 :]
        del self.stack[mark:]
        return items

    def _pop(self) -> object:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError
        return value

    def _global(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self._push_known(module, name)

    def _stack_global(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        self._push_known(module, name)

    def _push_known(self, module: object, name: object) -> None:
        text = f"{module}.{name}"
        if not (isinstance(module, str) and isinstance(name, str) and text in _KNOWN):
            raise refusal("wants to run code", expected="tensors and nothing else", got=shown(text))
        self.stack.append(_KNOWN[text])

    def _reduce(self, _: object) -> None:
        arguments, name = self._pop(), self._pop()
        if name is _ORDERED_DICT and arguments == ():
            self.stack.append(Table())
        elif name is _REBUILD_TENSOR and isinstance(arguments, tuple):
            self.stack.append(_tensor(*arguments[:4]))
        else:
            raise refusal("wants to run code", expected="tensors and nothing else")

    def _persistent(self, _: object) -> None:
        match self._pop():
            case ("storage", _Name(text), str(key), str(), int(count), *view):
                kind = text.removeprefix("torch.")
                if kind in KINDS and count >= 0 and view in ([], [None]):
                    storage = Storage(key, kind, count)
                    if self.storages.setdefault(key, storage) != storage:
                        raise refusal("is damaged", expected="every storage described once")
                    self.stack.append(storage)
                    return
        raise refusal("holds something else than weights", expected="a known kind of storage")

    def _set_items(self, _: object) -> None:
        items = self._to_mark()
        table = self.stack[-1]
        if not isinstance(table, Table) or len(items) % 2:
            raise ValueError
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._store(table, key, value)

    def _set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        table = self.stack[-1]
        if not isinstance(table, Table):
            raise TypeError
        self._store(table, key, value)

    @staticmethod
    def _store(table: Table, key: object, value: object) -> None:
        if not isinstance(key, str | int):
            raise TypeError
        table[key] = value

    def _append(self, _: object) -> None:
        value, target = self._pop(), self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.append(value)

    def _appends(self, _: object) -> None:
        values = self._to_mark()
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(values)

    def _build(self, _: object) -> None:
        """An ordered dictionary's attributes (torch's version numbers) are dropped."""
        state, target = self._pop(), self.stack[-1]
        if not (isinstance(target, Table) and isinstance(state, Table)):
            raise refusal("wants to run code", expected="tensors and nothing else")

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)][::-1] if size else self._to_mark()
        self.stack.append(tuple(items))


def _integer(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _tensor(storage: object, offset: object, shape: object, strides: object) -> TensorView:
    """A tensor that lies within its storage, every element of which it shows at most once."""
    if not (isinstance(storage, Storage) and isinstance(shape, tuple)):
        raise TypeError
    if not isinstance(strides, tuple) or len(shape) != len(strides) or len(shape) > 32:
        raise TypeError
    start = _integer(offset)
    sizes, steps = tuple(map(_integer, shape)), tuple(map(_integer, strides))
    count = math.prod(sizes)
    last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise refusal(
            "is damaged", expected="tensors within their storages", got="one that is larger"
        )
    if count == 0:
        start = 0
    return TensorView(storage, start, sizes, steps)


_IGNORED = {"PROTO", "FRAME"}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": Table,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"BINGET", "LONG_BINGET"}
_DEEDS: dict[str, Callable[[Machine, object], None]] = {
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BINPERSID": Machine._persistent,
    "SETITEMS": Machine._set_items,
    "SETITEM": Machine._set_item,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "BUILD": Machine._build,
    "TUPLE": lambda machine, _: machine._tuple(0),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
}
