"""What somebody on a site's disk, the site itself, or both with the aggregator can hide.

Each line of the tables is one way to alter a ledger, on a copy of what a real run left,
and the verdict that the auditor's whole command must come to. The last table holds what
stays undetected, and why; nothing may be added to it without a word in deploy/EGRESS.md.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.audit.load import audit
from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey, read_signing_key
from common.ledger.merkle import Frontier, leaf_hash
from common.ledger.notes import Checkpoint, cosign_note, sign_checkpoint
from common.ledger.verdict import Finding
from common.plan import parse_plan
from common.policy import Policy, parse_policy
from common.wire.envelope import Envelope, decode, encode
from tests.federation.conftest import Federation
from tests.ledgers import NO_OP, chained, sign_again

BROKEN, UNWITNESSED = Finding.BROKEN, Finding.NOT_WITNESSED
PLAN = parse_plan(NO_OP.model_dump() | {"rounds": {"training": 2, "quorum": 2, "deadline_s": 5.0}})
ORIGIN = "site-a/ledger"


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Federation:
    """What a run of three sites left on every disk."""
    federation = Federation(tmp_path_factory.mktemp("run"))
    for name in ("site-a", "site-b", "site-c"):
        federation.add_site(name)
    federation.acquaint(plan=PLAN)
    store = federation.create_run(PLAN, min_sites=3)
    assert federation.conduct(store, federation.transport()).verdict == "COMPLETED"
    return federation


class Copy:
    """A copy of site-a's ledger, and everything that a liar could have."""

    def __init__(self, left: Federation, folder: Path) -> None:
        self.left = left
        self.ledger = folder / "ledger"
        shutil.copytree(left.sites["site-a"].ledger, self.ledger)
        admitted = left.folder.root / "sites" / "site-a"
        self.key = admitted / "ledger.pub"
        self.witness = left.folder.root / "pki" / "witness.pub"
        self.note = folder / "newest.note"
        shutil.copy(admitted / "checkpoint.note", self.note)

    @property
    def site_key(self) -> SigningKey:
        return read_signing_key(self.left.sites["site-a"].ledger_key)

    @property
    def witness_key(self) -> SigningKey:
        return read_signing_key(self.left.folder.root / "pki" / "witness.key")

    @property
    def other(self) -> Path:
        """The ledger of site-b."""
        return self.left.sites["site-b"].ledger

    @property
    def log(self) -> Path:
        return self.ledger / "log.jsonl"

    def lines(self) -> list[bytes]:
        return self.log.read_bytes().splitlines(keepends=True)

    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.lines()]

    def sends(self, kind: str = "RoundReport") -> list[dict]:
        return [r for r in self.records() if r["event"] == "SEND" and r["record_type"] == kind]

    def payload(self, kind: str = "RoundReport") -> Path:
        return self.ledger / "payloads" / self.sends(kind)[0]["payload_sha256"]

    def receipts(self) -> list[Path]:
        return sorted((self.ledger / "receipts").iterdir())

    def put(self, data: bytes) -> str:
        """Lay bytes into the archive under their digest."""
        digest = sha256_hex(data)
        (self.ledger / "payloads" / digest).write_bytes(data)
        return digest

    def sign(self, records: list[dict], key: SigningKey | None = None) -> bytes:
        """Chain and sign these records; receipts of another past are thrown away."""
        log = chained(records)
        frontier = Frontier()
        roots = {}
        for line in log.split(b"\n")[:-1]:
            frontier.add(leaf_hash(line))
            roots[frontier.size] = frontier.root()
        for path in self.receipts():
            size, root = path.read_text().split("\n")[1:3]
            checkpoint = Checkpoint(ORIGIN, int(size), roots.get(int(size), b""))
            if f"\n{root}\n".encode() not in checkpoint.text():
                path.unlink()
        return sign_again(self.ledger, log, key or self.site_key)

    def together(self, records: list[dict]) -> None:
        """Site and aggregator sign it: the whole past, and the auditor's checkpoint."""
        self.note.write_bytes(cosign_note(self.sign(records), self.witness_key, datetime.now(UTC)))

    def audit(self):
        return audit(
            self.ledger,
            key_file=self.key,
            witness_file=self.witness,
            known_checkpoints=[self.note],
        )


@pytest.fixture
def copy(left, tmp_path) -> Copy:
    return Copy(left, tmp_path)


Attack = Callable[[Copy], object]


def longer(path: Path, tail: bytes) -> None:
    path.write_bytes(path.read_bytes() + tail)


def edit(old: bytes, new: bytes) -> Attack:
    return lambda c: c.log.write_bytes(c.log.read_bytes().replace(old, new, 1))


def relined(change: Callable[[list[bytes]], list[bytes]]) -> Attack:
    return lambda c: c.log.write_bytes(b"".join(change(c.lines())))


def cut_to_a_receipt(c: Copy, which: int = 1) -> None:
    """What needs no key: the site's own signature stands in every receipt and every proof."""
    note = c.receipts()[which].read_bytes()
    size = int(note.split(b"\n")[1])
    c.log.write_bytes(b"".join(c.lines()[:size]))
    (c.ledger / "checkpoint").write_bytes(b"\n".join(note.split(b"\n")[:5]) + b"\n")
    for path in c.receipts()[which + 1 :]:
        path.unlink()
    named = {
        r.get(name)
        for r in c.records()
        for name in ("payload_sha256", "plan_fingerprint", "policy_sha256", "order_sha256")
    }
    for path in (c.ledger / "payloads").iterdir():
        if path.name not in named:
            path.unlink()


def replaced_by(make: Callable[[Path], object], what: str = "payload") -> Attack:
    def attack(c: Copy) -> None:
        path = c.payload() if what == "payload" else c.ledger / what
        path.unlink()
        make(path)

    return attack


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def link_to_a_twin(c: Copy) -> None:
    """A link to the very same bytes elsewhere: today's content says nothing about tomorrow's."""
    path = c.payload()
    twin = c.ledger.parent / "twin"
    shutil.move(path, twin)
    path.symlink_to(twin)


def recoded(c: Copy, which: str) -> None:
    """The same JSON, spelt otherwise."""
    lines = c.lines()
    if which == "twice":
        lines[2] = lines[2].replace(b'{"', b'{"event":"SEND","', 1)
    elif which == "spaced":
        lines[2] = json.dumps(json.loads(lines[2])).encode() + b"\n"
    elif which == "surrogate":
        lines[2] = lines[2].replace(b'"site-a"', b'"\\ud800"')
    else:
        lines[2] = b'{"a":' + b"[" * 985 + b"]" * 985 + b"}\n"
    c.log.write_bytes(b"".join(lines))


NO_KEY: dict[str, tuple[Attack, Finding, str]] = {
    "a number in a record": (edit(b'"bytes":', b'"bytes":1'), BROKEN, "record #"),
    "two records change places": (
        relined(lambda x: [*x[:3], x[4], x[3], *x[5:]]),
        BROKEN,
        "record #3",
    ),
    "a record is taken out": (relined(lambda x: x[:5] + x[6:]), BROKEN, "record #5"),
    "a record stands twice": (relined(lambda x: [*x[:5], x[4], *x[5:]]), BROKEN, "record #5"),
    "the log ends early": (relined(lambda x: x[:-2]), BROKEN, "is missing"),
    "the log ends inside a line": (
        lambda c: c.log.write_bytes(c.log.read_bytes()[:-9]),
        BROKEN,
        "is missing",
    ),
    "cut to the first receipt": (lambda c: cut_to_a_receipt(c, 0), BROKEN, "known checkpoint"),
    "cut to a later receipt": (lambda c: cut_to_a_receipt(c, 2), BROKEN, "known checkpoint"),
    "one line appended": (relined(lambda x: [*x, x[-1]]), BROKEN, "no append leaves such a line"),
    "two lines appended": (relined(lambda x: [*x, x[-1], x[-1]]), BROKEN, "goes past"),
    "a newline appended": (relined(lambda x: [*x, b"\n"]), BROKEN, "no append leaves"),
    "a torn line appended": (relined(lambda x: [*x, b'{"bytes":']), UNWITNESSED, "unfinished"),
    "a torn line without end": (
        relined(lambda x: [*x, b"x" * (1 << 20) + b"x"]),
        BROKEN,
        "goes past",
    ),
    "a space behind a record": (relined(lambda x: [x[0][:-1] + b" \n", *x[1:]]), BROKEN, "#0"),
    "CRLF": (
        lambda c: c.log.write_bytes(c.log.read_bytes().replace(b"\n", b"\r\n")),
        BROKEN,
        "record #0",
    ),
    "a key twice": (lambda c: recoded(c, "twice"), BROKEN, "record #2"),
    "another spelling": (lambda c: recoded(c, "spaced"), BROKEN, "record #2"),
    "half a character": (lambda c: recoded(c, "surrogate"), BROKEN, "record #2"),
    "nested beyond reading": (lambda c: recoded(c, "nested"), BROKEN, "record #2"),
    "a terminal escape": (edit(b'"run":"', b'"run":"\x1b[2J'), BROKEN, "record #"),
    "the log is gone": (lambda c: c.log.unlink(), BROKEN, "is missing"),
    "the checkpoint is gone": (
        lambda c: (c.ledger / "checkpoint").unlink(),
        BROKEN,
        "checkpoint is missing",
    ),
    "a byte behind the checkpoint": (
        lambda c: longer(c.ledger / "checkpoint", b"\n"),
        BROKEN,
        "checkpoint does not",
    ),
    "one payload deleted": (lambda c: c.payload().unlink(), BROKEN, "no EXPIRE record"),
    "all payloads deleted": (lambda c: shutil.rmtree(c.ledger / "payloads"), BROKEN, "is missing"),
    "a bit of a payload": (
        lambda c: c.payload().write_bytes(b"\x01" + c.payload().read_bytes()[1:]),
        BROKEN,
        "altered",
    ),
    "a byte behind a payload": (
        lambda c: longer(c.payload(), b"x"),
        BROKEN,
        "payload is no such thing",
    ),
    "a payload for another": (
        lambda c: c.payload().write_bytes(c.payload("ModelUpdate").read_bytes()),
        BROKEN,
        "record #",
    ),
    "a policy for another": (
        lambda c: (c.ledger / "payloads" / c.sends()[0]["policy_sha256"]).write_bytes(b"{}"),
        BROKEN,
        "policy that it names was altered",
    ),
    "a plan is gone": (
        lambda c: (c.ledger / "payloads" / c.sends()[0]["plan_fingerprint"]).unlink(),
        BROKEN,
        "text of its plan is missing",
    ),
    "an order is gone": (
        lambda c: (c.ledger / "payloads" / c.sends()[0]["order_sha256"]).unlink(),
        BROKEN,
        "text of its order is missing",
    ),
    "a pipe for a payload": (replaced_by(os.mkfifo), BROKEN, "named pipe"),
    "a folder for a payload": (replaced_by(Path.mkdir), BROKEN, "a folder"),
    "a link for a payload": (link_to_a_twin, BROKEN, "a plain file"),
    "a device for a payload": (
        replaced_by(lambda p: p.symlink_to("/dev/zero")),
        BROKEN,
        "a plain file",
    ),
    "a terabyte for a payload": (replaced_by(sparse), BROKEN, "1099511627776 bytes"),
    "a pipe for the log": (replaced_by(os.mkfifo, "log.jsonl"), BROKEN, "named pipe"),
    "a terabyte for the log": (replaced_by(sparse, "log.jsonl"), BROKEN, "larger than any log"),
    "a pipe for the checkpoint": (replaced_by(os.mkfifo, "checkpoint"), BROKEN, "named pipe"),
    "a pipe for the site's key": (replaced_by(os.mkfifo, "ledger.pub"), BROKEN, "named pipe"),
    "a pipe for the lock": (replaced_by(os.mkfifo, "lock"), BROKEN, "named pipe"),
    "words in the lock": (lambda c: (c.ledger / "lock").write_bytes(b"x"), BROKEN, "lock"),
    "another key of the site": (
        lambda c: shutil.copy(c.other / "ledger.pub", c.ledger),
        BROKEN,
        "ledger.pub",
    ),
    "another key of the witness": (
        lambda c: shutil.copy(c.other / "ledger.pub", c.ledger / "witness.pub"),
        BROKEN,
        "witness.pub",
    ),
    "the site's key is gone": (lambda c: (c.ledger / "ledger.pub").unlink(), BROKEN, "ledger.pub"),
    "all receipts are gone": (
        lambda c: shutil.rmtree(c.ledger / "receipts"),
        BROKEN,
        "receipt it records is missing",
    ),
    "the newest receipt is gone": (
        lambda c: c.receipts()[-1].unlink(),
        BROKEN,
        "receipt it records is missing",
    ),
    "a receipt under another size": (
        lambda c: c.receipts()[0].rename(c.receipts()[0].with_name("0000000000000099.note")),
        BROKEN,
        "another size than its name",
    ),
    "another site's receipt": (
        lambda c: shutil.copy(sorted((c.other / "receipts").iterdir())[0], c.receipts()[0]),
        BROKEN,
        "about the ledger site-b/ledger",
    ),
    "a pipe among the receipts": (
        lambda c: os.mkfifo(c.ledger / "receipts" / "0000000000000098.note"),
        BROKEN,
        "named pipe",
    ),
    "another site's record": (
        lambda c: c.log.write_bytes(
            b"".join(
                [
                    *c.lines()[:4],
                    (c.other / "log.jsonl").read_bytes().splitlines(keepends=True)[4],
                    *c.lines()[5:],
                ]
            )
        ),
        BROKEN,
        "record #",
    ),
    "another site's ledger": (
        lambda c: (shutil.rmtree(c.ledger), shutil.copytree(c.other, c.ledger)),
        BROKEN,
        "site-b/ledger",
    ),
    "a file beside the log": (
        lambda c: (c.ledger / "history").write_bytes(b"x"),
        BROKEN,
        "no ledger leaves",
    ),
    "a file in the archive": (
        lambda c: (c.ledger / "payloads" / "README").write_bytes(b"x"),
        BROKEN,
        "another name",
    ),
    "a false digest in the archive": (
        lambda c: (c.ledger / "payloads" / ("e" * 64)).write_bytes(b"x"),
        BROKEN,
        "other bytes",
    ),
    "a true digest in the archive": (
        lambda c: c.put(b"hidden"),
        UNWITNESSED,
        "belong to no record",
    ),
    "another site's payload in the archive": (
        lambda c: c.put(
            next(
                p
                for p in sorted((c.other / "payloads").iterdir())
                if not (c.ledger / "payloads" / p.name).exists()
            ).read_bytes()
        ),
        UNWITNESSED,
        "belong to no record",
    ),
    "an older checkpoint is handed out": (
        lambda c: c.note.write_bytes(c.receipts()[0].read_bytes()),
        UNWITNESSED,
        "have no witness",
    ),
    "cut, and an older checkpoint is handed out": (
        lambda c: (c.note.write_bytes(c.receipts()[0].read_bytes()), cut_to_a_receipt(c, 1)),
        UNWITNESSED,
        "have no witness",
    ),
}


def edited(number: int, **words: object) -> Attack:
    def attack(c: Copy) -> None:
        records = c.records()
        records[number] |= words
        c.sign(records)

    return attack


def added(make: Callable[[Copy], dict]) -> Attack:
    return lambda c: c.sign([*c.records(), c.records()[-1] | make(c)])


def without(test: Callable[[dict], bool]) -> Attack:
    return lambda c: c.sign([r for r in c.records() if not test(r)])


def noise(c: Copy) -> dict:
    raw = os.urandom(5000)
    return {"payload_sha256": c.put(raw), "bytes": len(raw), "round": 9, "arrays": []}


def as_a_report(c: Copy) -> dict:
    """An update of a later round, recorded as a report without arrays."""
    data = c.payload("ModelUpdate").read_bytes()
    words = {"payload_sha256": sha256_hex(data), "bytes": len(data), "arrays": []}
    return words | {"record_type": "RoundReport"}


def expired(c: Copy) -> dict:
    """A fresh payload deleted, under a policy that deletes after a day."""
    send = c.sends("ModelUpdate")[0]
    data = (c.ledger / "payloads" / send["policy_sha256"]).read_bytes()
    policy = parse_policy(data)
    short = policy.model_copy(
        update={"retention": policy.retention.model_copy(update={"payload_days": 1})}
    )
    (c.ledger / "payloads" / send["payload_sha256"]).unlink()
    keep = {name: send[name] for name in ("payload_sha256", "bytes")}
    c.put(short.canonical())
    last = c.records()[-1]
    place = {n: last[n] for n in ("v", "site", "federation", "receiver", "receiver_key", "ts")}
    event = {"event": "EXPIRE", "policy_sha256": sha256_hex(short.canonical())}
    c.sign([*c.records(), place | event | keep])
    return {}


def under(c: Copy, change: Callable[[Policy], dict]) -> None:
    """All records name another policy, whose text lies there."""
    policy = parse_policy((c.ledger / "payloads" / c.sends()[0]["policy_sha256"]).read_bytes())
    digest = c.put(policy.model_copy(update=change(policy)).canonical())
    c.sign(
        [
            record | ({"policy_sha256": digest} if "policy_sha256" in record else {})
            for record in c.records()
            if record["event"] != "RECEIPT"
        ]
    )


def laxer_policy(c: Copy) -> None:
    """A policy that would have let nothing but reports out."""
    under(c, lambda p: {"records": p.records.model_copy(update={"allowed": ("RoundReport",)})})


def strict(c: Copy) -> None:
    """All records name a policy under which a person must approve every plan."""
    under(c, lambda p: {"plans": p.plans.model_copy(update={"approval": "each"})})


def bent_update(c: Copy) -> None:
    """The last report is swapped for one that says more, and its record agrees with it."""
    records = c.records()
    at = max(n for n, r in enumerate(records) if r["event"] == "SEND")
    envelope = decode((c.ledger / "payloads" / records[at]["payload_sha256"]).read_bytes())
    bent = envelope.record.model_copy(update={"images": 10**7})
    data = encode(Envelope(bent, {}))
    records[at] |= {"payload_sha256": c.put(data), "bytes": len(data)}
    c.sign(records)


SITE_KEY: dict[str, tuple[Attack, str]] = {
    "one record edited": (edited(4, round=9), ""),
    "the last record edited": (edited(-1, masked=True), "record #"),
    "GENESIS names another federation": (edited(0, federation="south"), ""),
    "all records name another federation": (
        lambda c: c.sign([r | {"federation": "south"} for r in c.records()]),
        "receipt it records is missing",
    ),
    "all records name another receiver": (
        lambda c: c.sign([r | {"receiver": "elsewhere:1"} for r in c.records()]),
        "receipt it records is missing",
    ),
    "the last release is dropped": (lambda c: c.sign(c.records()[:-1]), "known checkpoint"),
    "all sketches are dropped": (without(lambda r: r.get("record_type") == "SketchTable"), ""),
    "all receipts are dropped": (without(lambda r: r["event"] == "RECEIPT"), "known checkpoint"),
    "begun anew": (lambda c: c.sign(c.records()[:1]), "known checkpoint"),
    "noise as a sketch": (added(noise), "record #"),
    "an update as a report": (added(as_a_report), "record #"),
    "a release told twice": (added(lambda c: {}), "record #"),
    "a record six years back": (added(lambda _: {"ts": "2020-01-01T00:00:00Z"}), "went back"),
    "a fresh payload expired": (expired, "after the last release"),
    "a payload bent after the fact": (bent_update, ""),
    "a policy that did not allow it": (laxer_policy, ""),
    "nobody approved": (without(lambda r: r["event"] == "APPROVE"), ""),
}


def test_an_untouched_ledger_is_intact_and_witnessed(copy):
    assert copy.audit().verdict.finding is Finding.WITNESSED, copy.audit().verdict


@pytest.mark.parametrize("name", NO_KEY)
def test_nobody_without_a_key_alters_a_ledger_unseen(copy, name):
    attack, finding, says = NO_KEY[name]
    attack(copy)
    verdict = copy.audit().verdict
    assert verdict.finding is finding, verdict
    assert says in f"{verdict.broken} {verdict.all_doubts}"


@pytest.mark.parametrize("name", SITE_KEY)
def test_the_site_itself_does_not_rewrite_what_a_witness_has_seen(copy, name):
    attack, says = SITE_KEY[name]
    attack(copy)
    verdict = copy.audit().verdict
    assert verdict.finding is BROKEN, verdict
    assert says in str(verdict.broken)


@pytest.mark.parametrize("name", [n for n in SITE_KEY if "dropped" in n or "begun" in n])
def test_without_a_checkpoint_from_elsewhere_a_shorter_past_is_never_called_witnessed(copy, name):
    SITE_KEY[name][0](copy)
    copied = audit(copy.ledger, key_file=copy.key, witness_file=copy.witness)
    assert copied.verdict.finding is not Finding.WITNESSED


NOT_ALLOWED = {
    "noise as a sketch": "round",
    "an update as a report": "once in a round",
    "a payload bent after the fact": "images must be at most",
    "a fresh payload expired": "after the last release",
    "a policy that did not allow it": "record_type must be RoundReport",
    "a record six years back": "the clock went back",
    "nobody approved": "approved by a person before",
}


@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_site_and_aggregator_together_do_not_pass_off_what_was_not_allowed(copy, name):
    """What lies in the archive is opened, so that two signatures do not make it true."""
    SITE_KEY[name][0](copy)
    if name == "nobody approved":
        strict(copy)
    note = (copy.ledger / "checkpoint").read_bytes()
    copy.note.write_bytes(cosign_note(note, copy.witness_key, datetime.now(UTC)))
    verdict = copy.audit().verdict
    assert verdict.finding is BROKEN
    assert NOT_ALLOWED[name] in str(verdict.broken)


TOGETHER: dict[str, Attack] = {
    "site and aggregator sign another past": lambda c: c.together(
        [
            r
            for r in c.records()
            if r.get("record_type") != "SketchTable" and r["event"] != "RECEIPT"
        ]
    ),
    "cut to a receipt, and the aggregator hands out just that": lambda c: (
        c.note.write_bytes(c.receipts()[1].read_bytes()),
        cut_to_a_receipt(c, 1),
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_stays_undetected_needs_the_aggregator_too(copy, name):
    TOGETHER[name](copy)
    for path in (copy.ledger / "payloads").iterdir():
        named = {v for r in copy.records() for v in r.values() if isinstance(v, str)}
        if path.name not in named:
            path.unlink()
    assert copy.audit().verdict.finding is Finding.WITNESSED


def test_a_past_that_the_site_signs_twice_is_told_apart_by_its_own_checkpoint(copy):
    """A canonical record is what is hashed: the same words in another order are another past."""
    record = copy.records()[-1]
    assert canonical_json(record) + b"\n" == copy.lines()[-1]
    other = sign_checkpoint(Checkpoint(ORIGIN, len(copy.lines()), b"\1" * 32), copy.site_key)
    copy.note.write_bytes(cosign_note(other, copy.witness_key, datetime.now(UTC)))
    assert copy.audit().verdict.finding is BROKEN
