"""Tensors out of torch's ``.pt`` files without running anything that is in them.

A ``.pt`` file holds pickles, and a pickle is a program. Only names that tensors need are
let through, by a walk over the opcodes that obeys none of them; then torch reads the file
with ``weights_only``, which calls nothing else either. What torch would unpack or allocate
is held against the size of the file first.

Reads the zip format (torch 1.6 and later) and the stream format before it.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import InputDataError

Array = NDArray[np.generic]

_MOST_FILE_BYTES: Final = 4 << 30
_MOST_PICKLE_BYTES: Final = 16 << 20
_MOST_OPCODES: Final = 2_000_000
_STREAM_PICKLES: Final = 5  # magic, version, system, the value, its storages' keys
_NAMES: Final = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "Long", "Int")),
}


def read_torch_file(path: Path) -> dict[str, Array]:
    """Read all tensors of a saved ``state_dict`` by name.

    A training checkpoint of rl-medical is a dictionary of such dictionaries: its
    online network's is taken.

    Raises:
        InputDataError: not a file torch wrote, damaged, larger than 4 GiB, or holding
            anything but tensors, numbers, texts and containers of them.
    """
    size = path.stat().st_size
    if size > _MOST_FILE_BYTES:
        raise _refusal("is too large", expected="at most 4 GiB", got=f"{size} bytes")
    raw = path.read_bytes()
    if raw[:2] == b"PK":
        program, raw = _unpacked(raw)
        _check_names(io.BytesIO(program))
    else:
        stream = io.BytesIO(raw)
        for _ in range(_STREAM_PICKLES):
            _check_names(stream)
    root = _loaded(raw)
    table = root.get("q_network_state_dict", root) if isinstance(root, dict) else root
    if not isinstance(table, dict):
        raise _refusal("holds no tensors", expected="a state_dict", got=type(table).__name__)
    tensors: dict[str, Array] = {}
    total = 0
    for name, value in table.items():
        if not isinstance(name, str) or type(value) is not torch.Tensor:
            raise _refusal(
                "holds something else than named tensors",
                expected="a state_dict",
                got=f"{_short(name)}: {type(value).__name__}",
            )
        # A view may show one number a billion times: what is laid out must have been sent.
        shown = value.numel() * value.element_size()
        total += shown
        if shown > value.untyped_storage().nbytes() or total > _MOST_FILE_BYTES:
            raise _refusal("is damaged", expected="tensors no larger than what the file holds")
        tensors[name] = np.array(value.numpy(), order="C")
    return tensors


def _unpacked(raw: bytes) -> tuple[bytes, bytes]:
    """Return the pickle of the zip format, and the archive packed anew.

    Two readers may see two archives in one file: torch is given what was looked at here.

    Raises:
        InputDataError: it unpacks to more than it is, or is no archive of torch's.
    """
    fresh = io.BytesIO()
    with _refusing(), zipfile.ZipFile(io.BytesIO(raw)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        pickles = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise _refusal("is no torch archive", expected="one data.pkl, every name once")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _refusal("is no torch archive", expected="uncompressed entries")
        if sum(entry.file_size for entry in entries) > len(raw):
            raise _refusal("is damaged", expected="entries within the file")
        with zipfile.ZipFile(fresh, "w") as again:
            for entry in entries:
                again.writestr(entry.filename, archive.read(entry))
        return archive.read(pickles[0]), fresh.getvalue()


def _check_names(program: io.BytesIO) -> None:
    """Walk over one pickle, obeying nothing of it, and refuse every name that no tensor needs.

    Raises:
        InputDataError: another name, an opcode that puts one together, too long, or damaged.
    """
    first = program.tell()
    with _refusing():
        for number, (opcode, argument, at) in enumerate(pickletools.genops(program)):
            if number >= _MOST_OPCODES or (at or 0) - first > _MOST_PICKLE_BYTES:
                raise _refusal("is too large", expected="a description of at most 16 MiB")
            if opcode.name in ("GLOBAL", "INST") and argument not in _NAMES:
                raise _code(str(argument).replace(" ", ".", 1))
            if opcode.name in ("STACK_GLOBAL", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
                raise _code(f"the pickle opcode {opcode.name}")


def _loaded(raw: bytes) -> object:
    """Let torch read what names nothing but tensors.

    Raises:
        InputDataError: it refuses.
    """
    with _refusing("is damaged, or holds something else than weights"):
        whole: object = torch.load(  # noqa: TID251 - weights_only: nothing of the file is run
            io.BytesIO(raw), map_location=lambda storage, _: storage, weights_only=True
        )
    return whole


@contextlib.contextmanager
def _refusing(problem: str = "is damaged") -> Iterator[None]:
    """Refuse the file whatever its readers complain of: they name no errors, and quote its bytes.

    Raises:
        InputDataError: any complaint.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in names, and of old formats
            yield
    except InputDataError:
        raise
    except Exception as error:
        raise _refusal(problem) from error


def _code(name: str) -> InputDataError:
    expected = "tensors and nothing else"
    return _refusal("wants to run code", expected=expected, got=_short(name))


def _refusal(problem: str, *, expected: str = "", got: str = "") -> InputDataError:
    """Make the error of every file that is not read."""
    return InputDataError(
        f"the weights file {problem}",
        expected=expected,
        got=got,
        advice="Nothing in it was run. Ask its author for the weights alone (a state_dict)",
    )


def _short(text: object) -> str:
    """Write a name from the file short and without control characters."""
    short = ascii(text)
    return short if len(short) <= 80 else short[:77] + "..."
