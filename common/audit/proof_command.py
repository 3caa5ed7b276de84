"""``cairn-audit proof`` and ``check-proof``: one record as a file that anybody can check."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from common.audit.load import Audited, audit
from common.canonical import sha256_hex
from common.cli import echo_json, json_option
from common.crypto.files import write_new_file
from common.crypto.identity import read_public_key
from common.errors import ExitCode, InputDataError, VerificationError
from common.ledger.folder import receipts_in, witnessed_in
from common.ledger.layout import Layout
from common.ledger.merkle import inclusion_proof, leaf_hash, tree_root
from common.ledger.notes import MAX_NOTE_BYTES, ledger_key, parse_note
from common.ledger.reading import read_regular
from common.ledger.records import LedgerRecord, record_line
from common.witness.policy import Judgement, read_policy
from common.witness.tlog_proof import MAX_PROOF_FILE_BYTES, TlogProof, merge_notes

_PATH = click.Path(path_type=Path)
_KEY = click.option("--key", "key", type=_PATH, metavar="FILE", help="The site's public key.")
_POLICY = click.option(
    "--witness-policy", type=_PATH, metavar="FILE", help="Whose cosignatures count."
)
MAX_PAYLOAD_BYTES = 1 << 31


@click.command()
@click.argument("ledger", type=_PATH)
@click.argument("record")
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE", help="A new file.")
@_KEY
@_POLICY
@json_option
def proof(
    ledger: Path,
    record: str,
    output: Path,
    key: Path | None,
    witness_policy: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write one record of LEDGER with everything that proves it as FILE.tlog-proof.

    RECORD is its number, or how the digest of its payload begins. The file holds the
    record, its place in the tree, and the newest checkpoint over it with all
    cosignatures that lie beside the ledger; with --witness-policy the newest that its
    quorum has cosigned. It can be checked offline, by this program and by others that
    read C2SP tlog-proof.

    \b
    cairn-audit proof site-a/worker/ledger 41 -o 41.tlog-proof --key site-a.pub
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    audited = audit(ledger, key_file=key, witness_file=None)
    chosen = _record(audited, record)
    whole = _newest_note(ledger, audited, chosen, witness_policy)
    size = parse_note(whole).checkpoint.size
    hashes = [leaf_hash(record_line(each)) for each in audited.records[:size]]
    if tree_root(hashes) != parse_note(whole).checkpoint.root:
        raise VerificationError("the newest checkpoint is not of this ledger")
    inclusion = tuple(inclusion_proof(hashes, chosen.seq))
    made = TlogProof(record_line(chosen), chosen.seq, inclusion, whole)
    write_new_file(output, made.to_bytes(), mode=0o644)
    cosigners = len(parse_note(whole).signatures) - 1
    if as_json:
        echo_json(
            {"proof": str(output), "record": chosen.seq, "size": size, "cosigners": cosigners}
        )
    else:
        click.echo(f"record {chosen.seq} of {size}, {cosigners} cosignatures: {output}")


@click.command("check-proof")
@click.argument("file", type=_PATH)
@_KEY
@_POLICY
@click.option("--payload", type=_PATH, metavar="FILE", help="Also: it is this file's record.")
@json_option
@click.pass_context
def check_proof(
    ctx: click.Context,
    file: Path,
    key: Path | None,
    witness_policy: Path | None,
    payload: Path | None,
    *,
    as_json: bool,
) -> None:
    """Check a .tlog-proof file, offline: is this record in a ledger that witnesses saw?

    Exit codes: 0 proven and witnessed; 9 proven, and no quorum (or no policy) vouches for
    it; 4 it does not hold.

    \b
    cairn-audit check-proof 41.tlog-proof --key site-a.pub --witness-policy policy
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    read = TlogProof.from_bytes(read_regular(file, "proof", MAX_PROOF_FILE_BYTES))
    policy = None if witness_policy is None else read_policy(witness_policy)
    origin = parse_note(read.note).checkpoint.origin
    logs = () if policy is None else policy.logs
    log_key = next((each for each in logs if each.name == origin), None)
    if key is not None:
        log_key = ledger_key(origin, read_public_key(key))
    if log_key is None:
        raise InputDataError(
            "whose ledger is it?", field="--key", expected="the site's public key", got="none"
        )
    checkpoint, record = read.verify(log_key)
    if payload is not None:
        _require_payload(record, payload)
    judged = (
        None if policy is None else policy.judge(read.note, log_key=log_key, now=datetime.now(UTC))
    )
    witnessed = judged is not None and judged.witnessed
    words = record.model_dump(mode="json", exclude_none=True)
    if as_json:
        told = None if judged is None else judged.as_dict()
        echo_json({"record": words, "size": checkpoint.size, "witnesses": told})
    else:
        click.echo(f"{record.site}: record {record.seq} ({record.event}, {record.ts}) holds")
        click.echo(f"  in its ledger of {checkpoint.size} records, {_says(judged)}")
    if not witnessed:
        ctx.exit(ExitCode.NOT_WITNESSED)


def _says(judged: Judgement | None) -> str:
    if judged is None:
        return "NOT WITNESSED: give --witness-policy"
    if not judged.witnessed:
        return f"NOT WITNESSED: {judged.reason}"
    who = ", ".join(f"{each.name} at {each.at.isoformat()}" for each in judged.who)
    return f"witnessed by {who}"


def _record(audited: Audited, wanted: str) -> LedgerRecord:
    """Return the record with this number, or the one about this payload."""
    if audited.verdict.broken is not None:
        raise VerificationError("the ledger is broken", got=str(audited.verdict.broken))
    if wanted.isdecimal() and len(wanted) < 10:
        found = [record for record in audited.records if record.seq == int(wanted)]
    else:
        found = [each for each in audited.records if (each.payload_sha256 or "").startswith(wanted)]
    if len(found) != 1 or not wanted:
        raise InputDataError(
            "no such record",
            field="RECORD",
            expected="a number, or the beginning of one record's payload digest",
            got=f"what {len(found)} records have",
        )
    return found[0]


def _newest_note(
    folder: Path, audited: Audited, record: LedgerRecord, policy_file: Path | None
) -> bytes:
    """Return the newest checkpoint over a record that is cosigned as well as can be had."""
    layout = Layout(folder)
    notes = [note for _, note in witnessed_in(layout)]
    notes += [note for _, _, note in receipts_in(layout)]
    over = [each for each in merge_notes(notes) if parse_note(each).checkpoint.size > record.seq]
    if policy_file is None:
        return over[0] if over else read_regular(layout.checkpoint, "checkpoint", MAX_NOTE_BYTES)
    policy = read_policy(policy_file)
    for note in over:
        origin = parse_note(note).checkpoint.origin
        if policy.judge(note, log_key=ledger_key(origin, audited.key.public)).witnessed:
            return note
    raise VerificationError(
        "no quorum of this policy has seen that record yet",
        field=f"record {record.seq}",
        expected=policy.says,
        got=f"{len(over)} checkpoints without one",
        advice="Ask again when worker and courier have run, or leave the policy away",
    )


def _require_payload(record: LedgerRecord, path: Path) -> None:
    digest = sha256_hex(read_regular(path, "payload", MAX_PAYLOAD_BYTES))
    if record.payload_sha256 != digest:
        raise VerificationError(
            "the record is about other bytes",
            field=str(path),
            expected=record.payload_sha256 or "no payload",
            got=digest,
        )
