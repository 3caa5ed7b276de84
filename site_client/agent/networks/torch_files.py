"""Tensors out of torch's ``.pt`` files without running anything that is in them.

A ``.pt`` file holds a pickle, and reading one the usual way runs what its author
wrote. Here a machine that can neither import nor call walks it
(`site_client.agent.networks.opcodes`); storages are copied out of the file by size
and checked against it before anything is allocated.

Reads the zip format (torch 1.6 and later) and the stream format before it.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.networks.opcodes import (
    KINDS,
    MOST_PICKLE_BYTES,
    Machine,
    Table,
    TensorView,
    refusal,
    shown,
)

Array = NDArray[np.generic]

_MOST_FILE_BYTES = 4 << 30
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# What the archive's reader complains with when its directory is damaged.
_COMPLAINTS = (
    *(zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError),
    *(ValueError, OverflowError, LookupError, struct.error),
)


def read_torch_file(path: Path) -> dict[str, Array]:
    """All tensors of a saved ``state_dict`` by name.

    A training checkpoint of rl-medical is a dictionary of such dictionaries: its
    online network's is taken.

    Raises:
        InputDataError: not a file torch wrote, damaged, larger than 4 GiB, or holding
            anything but tensors, numbers, texts and containers of them.
    """
    size = path.stat().st_size
    if size > _MOST_FILE_BYTES:
        raise refusal("is too large", expected="at most 4 GiB", got=f"{size} bytes")
    raw = path.read_bytes()
    try:
        root, storages = _read_zip(raw) if raw[:2] == b"PK" else _read_stream(raw)
    except _COMPLAINTS as error:
        raise refusal("is damaged") from error
    table = root.get("q_network_state_dict", root) if isinstance(root, Table) else root
    if not isinstance(table, Table):
        raise refusal("holds no tensors", expected="a state_dict", got=type(table).__name__)
    tensors: dict[str, Array] = {}
    for name, value in table.items():
        if not isinstance(name, str) or not isinstance(value, TensorView):
            raise refusal(
                "holds something else than named tensors",
                expected="a state_dict",
                got=f"{shown(name)}: {type(value).__name__.strip('_')}",
            )
        tensors[name] = _materialise(value, storages)
    return tensors


def _read_zip(raw: bytes) -> tuple[object, dict[str, bytes]]:
    """(root, storages by key) of the zip format."""
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        pickles = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise refusal("is no torch archive", expected="one data.pkl, every name once")
        # Torch compresses nothing, so what is unpacked is never larger than the file.
        unpacked = sum(entry.file_size for entry in entries)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise refusal("is no torch archive", expected="uncompressed entries")
        if unpacked > len(raw):
            raise refusal("is damaged", expected="entries within the file")
        prefix = pickles[0].removesuffix("data.pkl")
        order = prefix + "byteorder"
        if order in names and archive.read(order) != b"little":
            raise refusal("has another byte order", expected="little-endian")
        machine = Machine(archive.read(pickles[0]))
        root = machine.run()
        storages: dict[str, bytes] = {}
        for storage in machine.storages.values():
            name = f"{prefix}data/{storage.key}"
            if name not in names:
                raise refusal("is damaged", expected="every storage it refers to")
            if archive.getinfo(name).file_size != storage.nbytes:
                raise refusal(
                    "is damaged",
                    expected=f"a storage of {storage.nbytes} bytes",
                    got=f"{archive.getinfo(name).file_size} bytes",
                )
            storages[storage.key] = archive.read(name)
        return root, storages


def _read_stream(raw: bytes) -> tuple[object, dict[str, bytes]]:
    """(root, storages by key) of the format before the zip: five pickles, then the storages."""
    offset = 0

    def following() -> tuple[object, Machine]:
        nonlocal offset
        machine = Machine(raw[offset : offset + MOST_PICKLE_BYTES])
        value = machine.run()
        offset += machine.consumed
        return value, machine

    try:
        magic, _ = following()
    except InputDataError as error:
        raise refusal("is not one that torch wrote") from error
    version, _ = following()
    system, _ = following()
    if magic != _LEGACY_MAGIC or version != _LEGACY_PROTOCOL or not isinstance(system, Table):
        raise refusal("is not one that torch wrote")
    if system.get("little_endian") is not True:
        raise refusal("has another byte order", expected="little-endian")
    root, machine = following()
    keys, _ = following()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(machine.storages):
        raise refusal("is damaged", expected="a list of its storages")
    storages: dict[str, bytes] = {}
    for key in map(str, keys):
        storage = machine.storages[key]
        if offset + 8 > len(raw):
            raise refusal("is cut off")
        (count,) = struct.unpack_from("<q", raw, offset)
        offset += 8
        if count != storage.count or storage.nbytes > len(raw) - offset:
            raise refusal(
                "is cut off or damaged",
                expected=f"a storage of {storage.nbytes} bytes",
                got=f"{count} values, {len(raw) - offset} bytes left",
            )
        storages[key] = raw[offset : offset + storage.nbytes]
        offset += storage.nbytes
    if offset != len(raw):
        raise refusal("is damaged", expected="nothing after the last storage")
    return root, storages


def _materialise(tensor: TensorView, storages: Mapping[str, bytes]) -> Array:
    """A tensor's values as a contiguous array; it was checked to lie within its storage."""
    values = np.frombuffer(storages[tensor.storage.key], KINDS[tensor.storage.kind])
    strides = tuple(stride * values.itemsize for stride in tensor.strides)
    view: Array = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")
