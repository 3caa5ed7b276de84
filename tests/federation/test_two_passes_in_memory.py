"""A round is merged from the archive: few replies in memory, and the same bits as ever."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from aggregator.intake.reply import Reply
from aggregator.rounds.answers import AcceptedAnswer, records
from aggregator.rounds.course import Step
from aggregator.rounds.events import RunFinished
from aggregator.rounds.letters import LetterBook, Parcels
from aggregator.rounds.receiving import Receiving
from aggregator.rounds.store import RunOptions, RunStore
from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.errors import InputDataError, RefusedError
from common.plan import parse_plan
from common.wire.envelope import Envelope, encode
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.parcel import unwrap
from common.wire.records import RoundReport
from common.wire.transport import ORDER, SIGNATURE, sum_part
from tests.federation.conftest import Federation

LEAST = {"name": "p", "seed": 1, "task": {"landmarks": ["AC"], "roi": 9}, "network": {"width": 4}}


@pytest.fixture
def store(tmp_path) -> RunStore:
    plan, options = parse_plan(LEAST), RunOptions(min_sites=1, wait_s=1.0)
    return RunStore.create(tmp_path / "run", plan, options)


def archived(store: RunStore, site: str, round_: int = 1) -> AcceptedAnswer:
    """An answer whose one record lies in the archive."""
    report = RoundReport(plan_fingerprint="0" * 64, site=site, run="run", round=round_, code=0)
    data = encode(Envelope(report, {}))
    store.archive(round_, site, {"RoundReport.envelope": data, "RoundReport.proof": b"{}"})
    digests = {"RoundReport": sha256_hex(data)}
    return AcceptedAnswer(store, round_, site, None, None, None, None, digests)


def test_records_come_from_the_archive_in_order_of_the_sites_names(store):
    answers = {site: archived(store, site) for site in ("south", "east", "north")}
    sites = [(site, envelope.record.site) for site, envelope in records(answers, "RoundReport")]
    assert sites == [("east", "east"), ("north", "north"), ("south", "south")]


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(b"other")])
def test_what_is_no_longer_in_the_archive_is_not_merged(store, harm):
    answer = archived(store, "north")
    harm(store.round_folder(1) / "north" / f"{answer.digests['RoundReport']}.envelope")
    with pytest.raises(InputDataError, match="north"):
        answer.record("RoundReport")


def test_a_parcel_is_made_when_it_is_asked_for_and_not_before():
    made: list[str] = []

    def make(site: str) -> bytes:
        made.append(site)
        return site.encode()

    parcels = Parcels({1: "north", 2: "south"}, make)
    assert (len(parcels), list(parcels), 1 in parcels, 3 in parcels) == (2, [1, 2], True, False)
    assert made == []
    assert dict(parcels) == {1: b"north", 2: b"south"}
    assert made == ["north", "south"]


def test_a_site_that_lacks_too_much_is_refused_before_its_parcel_is_made(three, monkeypatch):
    from aggregator.rounds import letters

    witness = SigningKey.from_seed(b"w" * 32)
    store = three.create_run(parse_plan(LEAST | {"kind": "no-op"}))
    folder = store.round_folder(1)
    folder.mkdir(parents=True)
    (folder / "sum.cairn").write_bytes(b"s" * 5000)
    book = LetterBook(store, three.folder.admitted(), witness, 1, answered={"site-b": 2})
    sent = book.letters(Step(2, "train"), b"order", {}, stop=False)
    parts = unwrap(sent.parcel("site-a"))
    assert parts[sum_part(1)] == b"s" * 5000
    assert sum_part(1) not in unwrap(sent.parcel("site-b")), "it has answered since"
    witness.public.verify(parts[SIGNATURE], SIGNATURE_CONTEXT + parts[ORDER])
    exactly = len(sent.parcel("site-a"))
    monkeypatch.setattr(letters, "MAX_PARCEL_BYTES", exactly)
    sent.require_fits("site-a")
    monkeypatch.setattr(letters, "MAX_PARCEL_BYTES", exactly - 1)
    sent.require_fits("site-b")
    with pytest.raises(RefusedError, match="site-a"):
        sent.require_fits("site-a")


@pytest.mark.parametrize("sites", [3, 7])
def test_no_more_than_two_replies_are_held_however_many_sites_there_are(
    tmp_path, no_op_plan, monkeypatch, sites
):
    """Looked for among all that Python holds, each time that one more has been taken."""
    held: list[int] = []
    take = Receiving.take

    def counting(*words):
        answer = take(*words)
        held.append(sum(type(each) is Reply for each in gc.get_objects()))
        return answer

    monkeypatch.setattr(Receiving, "take", counting)
    finished = run_of(tmp_path, no_op_plan, sites)
    assert finished.verdict == "COMPLETED"
    assert len(held) == 4 * sites
    assert max(held) <= 2


def run_of(root, plan, sites: int) -> RunFinished:
    federation = Federation(root / "all")
    for number in range(sites):
        federation.add_site(f"site-{number}")
    return federation.conduct(federation.create_run(plan), federation.transport())


def test_the_archive_gives_back_the_very_numbers_that_were_accepted(three, no_op_plan, moving):
    store = three.create_run(no_op_plan)
    transport = three.transport()
    assert three.conduct(store, transport).verdict == "COMPLETED"
    from common.sums.addition import add_records, decode_sum, encode_sum
    from common.wire.envelope import decode

    kinds = ("ModelUpdate", "SketchTable")
    answers = {}
    for node, site in transport.nodes().items():
        parts = unwrap(transport.sent[node][1])
        answers[site] = [decode(parts[f"{kind}.envelope"]) for kind in kinds]
    data = store.sum_of(1)
    assert encode_sum(add_records(store.name, 1, answers)) == data
    update = decode_sum(data).group("ModelUpdate").summand
    assert any(np.any(array) for array in update.arrays.values())
