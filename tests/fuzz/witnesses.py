"""Readers of the journal and of what witnesses say; they start from the frozen vectors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from common.journal.entries import parse_entry
from common.witness.policy import parse_policy
from common.witness.rotation import parse_rotation
from common.witness.tlog_proof import TlogProof
from common.witness.vkeys import parse_log_key, parse_vkey, parse_witness_key
from common.witness.wire import AddCheckpoint
from tests.fuzz import mutations
from tests.fuzz.decoder import Decoder, text

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


@cache
def _vectors(name: str) -> dict[str, object]:
    value: dict[str, object] = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    return value


def _seed(name: str) -> bytes:
    return str(_vectors("witness_wire")[name]).encode()


def of_witnesses() -> list[Decoder]:
    """Journal, witnesses' keys, requests, proofs and rotations."""
    lines = _vectors("journal")["lines"]
    journal = tuple(str(line).encode() for line in lines) if isinstance(lines, list) else ()
    keys = (_seed("witness_vkey"), _seed("postquantum_vkey"))
    policy = b"log " + _seed("log_vkey") + b"\nwitness w1 " + keys[0] + b"\nquorum w1\n"
    return [
        Decoder(
            "journal's entry",
            journal,
            mutations.as_json,
            lambda data: parse_entry(data, None),
            ("common.journal.entries.parse_entry",),
        ),
        Decoder("log's key", (_seed("log_vkey"),), mutations.raw, text(parse_log_key), _LOG),
        Decoder("witness's key", keys, mutations.raw, text(parse_witness_key), _WITNESS),
        Decoder("any key of a note", keys, mutations.raw, text(parse_vkey), ()),
        Decoder(
            "witness's request",
            (_seed("request"),),
            mutations.raw,
            AddCheckpoint.from_bytes,
            ("common.witness.wire.AddCheckpoint.from_bytes",),
        ),
        Decoder(
            "proof for a witness",
            (_seed("tlog_proof"),),
            mutations.raw,
            TlogProof.from_bytes,
            ("common.witness.tlog_proof.TlogProof.from_bytes",),
        ),
        Decoder(
            "witness's rotation",
            (_seed("rotation"),),
            mutations.raw,
            parse_rotation,
            ("common.witness.rotation.parse_rotation",),
        ),
        Decoder(
            "policy of witnesses",
            (policy,),
            mutations.raw,
            text(parse_policy),
            ("common.witness.policy.parse_policy", "common.witness.policy_text.parse_text"),
        ),
    ]


_LOG = ("common.witness.vkeys.parse_log_key",)
_WITNESS = ("common.witness.vkeys.parse_witness_key", "common.witness.vkeys.parse_vkey")
