"""No message, however bent, makes a reader raise what it does not declare."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import CairnError
from tests.fuzz.campaign import run
from tests.fuzz.decoders import Decoder, all_decoders

ROOT = Path(__file__).resolve().parents[2]
READS = re.compile(
    r"_?(decode|parse|read|open|load|unwrap|views|carried|from_bytes|from_dict|from_archive)(_|$)"
)
OWN = {
    "site_client.imaging": "the site's own images and tables, which no other party wrote",
    "site_client.pixels": "the site's own slides",
    "site_client.agent": "arrays of this process, and files that a person of the site names",
    "site_client.agent_app": "configurations and checkpoints that a person of the site names",
    "site_client.worker.slide_folder.Slides.open": "the site's own slides",
    "site_client.exposure": "arrays of this process",
    "site_client.data_check": "the site's own images",
    "aggregator.report": "what the run's journal came to, read by aggregator.rounds.events",
    "aggregator.embedding": "files that the coordinator names; the codebook's reader is listed",
    "common.audit": "a copy of a ledger; what the auditor's commands say of it has its own tests",
    "common.page": "templates of the release",
    "common.keys.mixed_radix": "integers to digits",
    "common.keys.experience": "integers to digits",
    "common.keys.pixel_bands.BandCodec.decode": "integers to digits",
    "common.keys.pixels.PixelCodec.decode": "integers to digits",
    "common.extras": "what is installed here",
    "common.sums.fixed_point": "arrays of this process",
    "common.journal.counters": "the kernel's own figures",
    "common.journal.meters": "the kernel's own figures",
    "common.journal.scales": "figures of this machine; what the balance says has its own tests",
    "common.journal.identity": "the courier's own certificate; PEM is listed, tests are its own",
    "common.witness.store": "the witness's own notes, by their listed reader",
    "site_client.second_door": "bytes only; what it lets pass goes through listed readers",
    "site_client.courier.wire": "bytes only",
    "site_client.restoring": "the site's own ledger and notes, by listed readers",
    "common.ledger": "the site's own ledger, read by the listed readers of its lines and notes",
}
"""Rooms, and single functions, whose readers meet nothing that another party sends, and why."""
OF_THIS_PROCESS = {
    "load_state": "arrays that were just read",
    "load_optimizer": "arrays that were just read",
    "load_before": "the worker's own state, by common.checkpoint's reader",
    "load_within": "the worker's own state within a round; what is damaged is not used",
    "read_keys": "goes through the listed readers of keys",
    "read_shared_key": "goes through the key ring",
    "read_federation_key": "a secret of 16 bytes of the site's own",
    "read_signing_key": "a secret of the owner's",
    "read_opening_key": "a secret of the owner's",
    "read_tls_key": "a secret of the owner's",
    "read_node_key": "a secret of the owner's",
    "read_certificate": "parse_certificate of a file",
    "open_folder": "a path",
    "open_pass": "what is asked, or files that a person of the site names, by listed readers",
    "open_journal": "the site's own journal, by the listed reader of its entries",
    "read_journal": "line by line, by the listed reader of entries",
    "read_postquantum_key": "a secret of the owner's",
    "read_policy": "a file, by listed readers of its text",
    "read_text": "a file, by the listed reader of its text",
    "open_channel": "a connection to an address that was looked at",
    "open_ledger": "the site's own ledger, by its listed readers",
    "open_news": "arguments that were read; the box's reader is listed",
    "from_file": "read_credential of a path",
    "from_table": "arrays of this process",
    "from_seed": "32 bytes of the owner's",
    "from_fixed_point": "arrays of this process",
    "read_courier_file": "the courier's own key and certificate",
    "read_typed": "what a person types at a terminal, word by word",
    "read_standing": "the ledger, by its listed readers",
    "read_roster": "the roster of orders that held",
    "read_directory": "key news that were read, and the ledger",
    "read_history": "the ledger, by its listed readers",
    "read_status": "files of ours whose readers are listed",
    "read_reply": "bytes that nothing decodes",
    "read_tables": "arrays of an envelope that was decoded",
    "read_brought": "files that a person of the site names; the codebook's reader is listed",
    "read_site_cases": "the site's own images",
    "load": "the worker's chain of sums, by the listed reader of sums",
    "decode_again": "what was decoded when it came, out of the archive and by its digest",
    "read_line": "messages of processes that this one started",
}
"""Readers elsewhere that meet bytes only through a listed one."""


@pytest.fixture(scope="module")
def decoders() -> list[Decoder]:
    return all_decoders()


def readers() -> Iterator[tuple[str, str]]:
    """Module and qualified name of every function whose name says that it reads."""
    for room in ("common", "site_client", "aggregator"):
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = module.removesuffix(".__init__")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                for inner in ast.iter_child_nodes(node):
                    if isinstance(inner, ast.FunctionDef) and READS.match(inner.name):
                        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                        yield module, owner + inner.name


def test_every_function_that_reads_is_fuzzed_or_says_why_not(decoders):
    listed = {name for decoder in decoders for name in decoder.covers}
    missing = [
        f"{module}.{name}"
        for module, name in readers()
        if f"{module}.{name}" not in listed
        and not any(f"{module}.{name}.".startswith(f"{room}.") for room in OWN)
        and name.rpartition(".")[2] not in OF_THIS_PROCESS
        and not name.rpartition(".")[2].startswith("_")
    ]
    assert missing == [], "list them in tests/fuzz"


def test_no_listed_reader_is_gone(decoders):
    there = {f"{module}.{name}" for module, name in readers()}
    listed = {name for decoder in decoders for name in decoder.covers}
    assert {n for n in listed if READS.match(n.rpartition(".")[2])} <= there


def test_every_grammar_starts_from_a_message_that_is_accepted(decoders):
    drawn = {"box", "box's signature"}  # nobody's key has made them
    for decoder in decoders:
        if decoder.name in drawn:
            continue
        try:
            decoder.read(decoder.seeds[0])
        except CairnError as error:
            pytest.fail(f"{decoder.name}: {error}")


def test_a_few_thousand_bent_messages_raise_nothing_undeclared(decoders):
    outcome = run(decoders, seed=20_260_101, cases=40 * len(decoders))
    assert {k: why for k, (_, _, why) in outcome.failures.items()} == {}
    assert not outcome.failed, f"memory grew by {outcome.grown_mib} MiB"


def test_the_same_seed_bends_the_same_way(decoders):
    few = [d for d in decoders if d.name in ("parcel", "note", "plan", "TOML")]
    first, second = (run(few, seed=5, cases=200) for _ in range(2))
    assert (first.refused, first.accepted) == (second.refused, second.accepted)


@pytest.mark.slow
def test_a_hundred_thousand_bent_messages_raise_nothing_undeclared(decoders):
    """`make fuzz` tries a million; its outcome lies in deploy/results/fuzz.md."""
    outcome = run(decoders, seed=2, cases=100_000)
    assert {k: why for k, (_, _, why) in outcome.failures.items()} == {}
    assert not outcome.failed
