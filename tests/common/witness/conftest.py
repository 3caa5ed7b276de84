"""A log that grows, a witness that runs on loopback, and a client that notes what it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.crypto.identity import SigningKey
from common.crypto.postquantum import PostQuantumSigningKey
from common.ledger.log import Ledger
from common.ledger.merkle import consistency_proof, leaf_hash, tree_root
from common.ledger.notes import Algorithm, Checkpoint, NoteKey, ledger_key, sign_checkpoint
from common.witness.judging import Judge
from common.witness.keys import Signer
from common.witness.server import Address, WitnessServer
from common.witness.store import Store
from common.witness.vkeys import vkey_text
from common.witness.wire import AddCheckpoint

ORIGIN = "site-a/ledger"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class Log:
    """A site's log, whose holder can also lie."""

    key: SigningKey
    origin: str = ORIGIN
    leaves: list[bytes] = field(default_factory=list)

    def grow(self, count: int, what: bytes = b"record") -> Log:
        start = len(self.leaves)
        self.leaves += [leaf_hash(b"%s %d" % (what, start + n)) for n in range(count)]
        return self

    def fork(self, at: int) -> Log:
        return Log(self.key, self.origin, self.leaves[:at])

    @property
    def size(self) -> int:
        return len(self.leaves)

    @property
    def public(self) -> NoteKey:
        return ledger_key(self.origin, self.key.public)

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.size, tree_root(self.leaves))

    @property
    def note(self) -> bytes:
        return sign_checkpoint(self.checkpoint, self.key)

    def ask(self, old: int) -> bytes:
        proof = tuple(consistency_proof(self.leaves, old)) if old <= self.size else ()
        return AddCheckpoint(old, proof, self.note).to_bytes()


@dataclass
class Bench:
    """A witness's name and keys, and judges over one folder."""

    folder: Path
    name: str = "witness.example/w1"
    classical: SigningKey = field(default_factory=lambda: SigningKey.from_seed(b"\7" * 32))
    postquantum: PostQuantumSigningKey = field(
        default_factory=lambda: PostQuantumSigningKey.from_seed(b"\7" * 32)
    )

    @property
    def signers(self) -> tuple[Signer, ...]:
        return (self.classical, self.postquantum)

    @property
    def keys(self) -> tuple[NoteKey, NoteKey]:
        return (
            NoteKey(self.name, self.classical.public, Algorithm.COSIGNATURE),
            NoteKey(self.name, self.postquantum.public, Algorithm.POSTQUANTUM),
        )

    def line(self, name: str = "w1", url: str = "", key: int = 0) -> str:
        return f"witness {name} {vkey_text(self.keys[key])} {url}".rstrip() + "\n"

    @contextmanager
    def judge(self, *of: Log, logs=None, clock=lambda: NOW) -> Iterator[Judge]:
        known = (logs or {}) | {log.origin: (log.public,) for log in of}
        with Store(self.folder) as store:
            yield Judge(self.name, self.signers, known, store, clock)

    @contextmanager
    def served(self, *of: Log, logs=None, address: Address | None = None) -> Iterator[str]:
        """The address of a server that answers by such a judge."""
        stop, where = threading.Event(), address or Address()
        judged = self.judge(*of, logs=logs, clock=lambda: datetime.now(UTC))
        with judged as judge, WitnessServer(judge, where) as server:
            thread = threading.Thread(target=server.serve, args=(stop,))
            thread.start()
            try:
                yield f"http{'s' if where.certificate else ''}://127.0.0.1:{server.port}"
            finally:
                stop.set()
                thread.join()


@pytest.fixture
def log() -> Log:
    return Log(SigningKey.from_seed(b"\1" * 32)).grow(1)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path / "state")


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    key = SigningKey.from_seed(b"\1" * 32)
    with Ledger.open(tmp_path / "ledger", ORIGIN, key, lambda: NOW) as opened:
        yield opened
