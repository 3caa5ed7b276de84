"""A whole run of pixels without Flower: what is named, what never is, and who spoils nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pytest

from aggregator.report.extras import ReportExtras
from aggregator.report.html import render
from aggregator.report.live import plain_line, status_json, status_table
from aggregator.report.state import fold
from aggregator.rounds import pixels
from aggregator.rounds.events import RoundFinished, SiteRejected, SiteReplied
from aggregator.rounds.store import RunOptions, RunStore
from common.canonical import sha256_hex
from common.crypto.identity import read_public_key
from common.crypto.keyed import FederationKey
from common.errors import SketchError
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import read_codec
from common.ledger.layout import Layout
from common.ledger.records import parse_record
from common.ledger.verify import verify_ledger
from common.plan import parse_plan
from common.sketching import CountSketch, SketchSpec
from common.sums.addition import decode_sum
from common.sums.pixels import survey_of
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode
from common.wire.parcel import unwrap, wrap
from site_client.egress.policy import default_policy_text
from site_client.worker.embedding import EmbedStudy
from site_client.worker.pixels import PixelStudy
from tests.conftest import loosen

BANDS = ("dna", "keratin", "vimentin", "cd3", "cd20", "ki67")
SIDE = 64
PRESENT = 10  # the plan's default: pixels that a key needs at a site to count as present
PLAN = {
    "name": "tissue",
    "kind": "pixels",
    "seed": 1,
    "pixels": {
        "bands": BANDS,
        "components": 4,
        "bins": 9,
        "rows": 5,
        "columns": 512,
        "top": 200,
        "key_pixels": 50,
        "min_slides": 2,
        "min_pixels": 1000,
    },
    "rounds": {"quorum": 2, "deadline_s": 60.0},
}
COMMON = np.array(  # tissues that every site has
    [[9, 1, 1, 1, 1, 1], [1, 9, 1, 1, 1, 1], [2, 1, 9, 1, 1, 1], [1, 1, 1, 9, 8, 1]], np.float64
)
MIXED = np.random.default_rng(7).integers(1, 10, (30, len(BANDS))).astype(np.float64)
ONLY_C = np.array([1, 1, 1, 1, 1, 9], np.float64)
RUNS = count(1).__next__
RARE = np.array([[9, 9, 1, 1, 1, 1], [1, 1, 9, 9, 1, 1]], np.float64)


def slide(seed: int, *, own: bool) -> np.ndarray:
    """uint16[SIDE, SIDE, bands]: a dim background, common tissues, mixtures, a few rare pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(2, 7, (SIDE * SIDE, len(BANDS))).astype(np.float64)
    kinds = [*COMMON, ONLY_C] if own else list(COMMON)
    at = 0
    for number, kind in enumerate(kinds):
        many = 300 + 20 * number
        pixels[at : at + many] = kind * rng.integers(40, 400, (many, 1))
        at += many
    for kind in MIXED:
        pixels[at : at + 30] = kind * rng.integers(40, 400, (30, 1))
        at += 30
    for kind in RARE:  # 7 pixels a slide: 42 in the federation
        pixels[at : at + 7] = kind * 100
        at += 7
    return rng.permutation(pixels).astype(np.uint16).reshape(SIDE, SIDE, len(BANDS))


def allow(site, *, strict: bool = False) -> None:
    """What a hospital types to have plans about slides served; ``strict``: and nothing else."""
    text = default_policy_text()
    records = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'
    text = text.replace('"RoundReport"]', records)
    text = text.replace('"no-op"]', '"no-op", "pixels", "embed"]').replace("10_000", "1_000")
    site.policy_file.write_text(text)
    if not strict:
        loosen(site)


def add_hospitals(federation, *, strict: bool = False):
    """Three sites with two slides each; one has a tissue that the others do not have."""
    for number, name in enumerate(("site-a", "site-b", "site-c")):
        site = federation.add_site(name, images=0, strict=strict)
        allow(site, strict=strict)
        data = federation.root / "data" / name
        (data / "bands.txt").write_text("\n".join(BANDS))
        for which in range(2):
            np.save(data / f"s{which}.npy", slide(10 * number + which, own=name == "site-c"))
    return federation


@pytest.fixture
def hospitals(federation):
    """Three sites of this test's own."""
    return add_hospitals(federation)


@dataclass
class Exact:
    """Every key of every slide, counted in the clear."""

    pooled: Counter[int]
    sites: Counter[int]

    @classmethod
    def of(cls, federation, codec) -> Exact:
        pooled, sites = Counter(), Counter()
        for name in federation.sites:
            here = Counter()
            for path in sorted((federation.root / "data" / name).glob("*.npy")):
                keys, _ = codec.encode(np.load(path).reshape(-1, len(BANDS)))
                here.update(keys.tolist())
            pooled.update(here)
            sites.update(key for key, many in here.items() if many >= PRESENT)
        return cls(pooled, sites)


def released(store) -> KeyCounts:
    return KeyCounts.from_bytes(store.load(4).documents["keys.safetensors"])


def codec_of(store):
    return read_codec(store.load(2).documents["codec.json"].decode())


def tables_of(store) -> dict[str, np.ndarray]:
    """The sum of the sites' tables, as the aggregator has it and sends it back."""
    return dict(decode_sum(store.load(3).sum).group("PixelSketches").summand.arrays)


def reasons(federation, store) -> dict[str, str]:
    events = federation.events(store)
    return {e.site: e.reason for e in events if isinstance(e, SiteRejected)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, federation_at):
    """A run of all three that went well, and the way its messages took; shared, to be read."""
    federation = add_hospitals(federation_at(tmp_path_factory.mktemp("pixels")))
    store, transport = federation.create_run(parse_plan(PLAN), min_sites=3), federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert finished.rounds == 4
    return federation, store, transport


def test_the_named_keys_are_those_of_all_slides_together_that_pass_the_gate(run):
    federation, store, _ = run
    exact, keys = Exact.of(federation, codec_of(store)), released(store)
    passing = {k for k, n in exact.pooled.items() if n >= 50 and exact.sites[k] >= 2}
    assert set(keys.keys.tolist()) == passing
    assert len(passing) >= len(COMMON)
    for key, many in zip(keys.keys.tolist(), keys.counts.tolist(), strict=True):
        assert abs(many - exact.pooled[key]) <= 8
    rare = {k for k, n in exact.pooled.items() if n < 50}
    assert rare, "some keys are too rare to be named"
    assert not rare & set(keys.keys.tolist())


def test_keys_of_all_bands_are_named_by_the_same_gate_without_a_round_for_ranges(
    federation_at, tmp_path
):
    federation = add_hospitals(federation_at(tmp_path))
    section = {n: v for n, v in PLAN["pixels"].items() if n not in ("components", "bins")}
    plan = parse_plan(PLAN | {"pixels": section | {"codec": "all-bands", "columns": 2048}})
    store, transport = federation.create_run(plan, "all-bands", min_sites=3), federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.reason, finished.rounds) == ("COMPLETED", "", 3)
    codec = read_codec(store.load(3).documents["codec.json"].decode())
    assert (codec.bands, codec.levels) == (BANDS, 3)
    keys = KeyCounts.from_bytes(store.load(3).documents["keys.safetensors"])
    exact = Exact.of(federation, codec)
    passing = {k for k, n in exact.pooled.items() if n >= 50 and exact.sites[k] >= 2}
    assert set(keys.keys.tolist()) == passing
    assert len(passing) >= len(COMMON)
    kept_back = {k for k, n in exact.pooled.items() if k not in passing}
    assert kept_back, "some keys are too rare, or of a single site"
    codes = {e.code for e in federation.events(store) if isinstance(e, SiteReplied)}
    assert codes == {ReplyCode.OK}


def test_sites_of_the_default_policy_name_the_same_keys_once_people_have_decided(
    run, federation_at, tmp_path
):
    plan, federation = parse_plan(PLAN), add_hospitals(federation_at(tmp_path), strict=True)
    federation.acquaint(plan=plan)
    store = federation.create_run(plan, min_sites=3)
    finished = federation.conduct(store, federation.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    _, loose, _ = run
    assert released(store).to_bytes() == released(loose).to_bytes()


def test_a_codec_that_does_not_follow_from_the_sums_is_refused_by_every_site(
    hospitals, monkeypatch
):
    """An aggregator that lies about the survey: its own directions instead of the sites'."""

    def bent(asked, total):
        survey = survey_of(asked, total)
        return replace(survey, gram=survey.gram[::-1, ::-1].copy())

    monkeypatch.setattr(pixels, "survey_of", bent)
    store, transport = hospitals.create_run(parse_plan(PLAN), min_sites=3), hospitals.transport()
    finished = hospitals.conduct(store, transport)
    assert finished.verdict == "FAILED"
    codes = {e.code for e in hospitals.events(store) if isinstance(e, SiteReplied)}
    assert codes == {ReplyCode.OK, ReplyCode.FORGED_SUM}
    sent = [name for replies in transport.sent.values() for r in replies for name in unwrap(r)]
    assert "PixelSketches.envelope" not in sent


def test_a_frequent_key_of_a_single_site_is_never_named(run):
    federation, store, _ = run
    codec = codec_of(store)
    mine, _ = codec.encode((ONLY_C * 105).astype(np.uint16)[None])
    exact = Exact.of(federation, codec)
    assert exact.pooled[int(mine[0])] > 500
    assert exact.sites[int(mine[0])] == 1
    assert int(mine[0]) not in released(store).keys.tolist()


def test_the_aggregator_has_the_sum_of_the_tables_and_cannot_query_it(run):
    _, store, transport = run
    parts = [p for replies in transport.sent.values() for r in replies for p in [unwrap(r)]]
    sent = [decode(p["PixelSketches.envelope"]) for p in parts if "PixelSketches.envelope" in p]
    assert len(sent) == 3
    state, tables = store.load(3), tables_of(store)
    for name in ("full", "prefix", "presence", "prefix_counts"):
        whole = sum(np.asarray(envelope.arrays[name]) for envelope in sent)
        np.testing.assert_array_equal(tables[name], whole)
    assert state.facts["cells_filled"] == np.count_nonzero(tables["full"])
    spec = SketchSpec.public(5, 512, state.agreement.key_id, codec_of(store).identity)
    merged = CountSketch.from_table(spec, tables["full"])
    with pytest.raises(SketchError, match="cannot query"):
        merged.estimate(released(store).keys)


def test_the_aggregator_does_not_see_which_prefix_a_count_belongs_to(run):
    federation, store, _ = run
    exact = Exact.of(federation, codec_of(store))
    plain = np.zeros(9, np.int64)
    for key, many in exact.pooled.items():
        plain[key // 9**3] += many
    hidden = tables_of(store)["prefix_counts"]
    assert sorted(hidden.tolist()) == sorted(plain.tolist())
    assert federation.key.secret not in b"".join(
        path.read_bytes() for path in federation.folder.root.rglob("*") if path.is_file()
    )


def test_every_record_of_a_pixels_run_stands_in_the_senders_ledger(run):
    _, store, transport = run
    for node, site in transport.sites.items():
        sent = {
            sha256_hex(part)
            for reply in transport.sent[node]
            for name, part in unwrap(reply).items()
            if name.endswith(".envelope")
        }
        verdict = verify_ledger(
            site.ledger,
            read_public_key(site.ledger / "ledger.pub"),
            read_public_key(site.witness_key),
        )
        assert verdict.intact
        lines = Layout(site.ledger).log.read_bytes().splitlines()
        recorded = [
            record.payload_sha256
            for record in map(parse_record, lines)
            if record.event == "SEND" and record.run == store.folder.name
        ]
        assert sorted(recorded) == sorted(sent)
        assert len(recorded) == 1 + 4 * 2


def test_the_reports_of_a_pixels_run_show_what_there_is(run):
    federation, store, _ = run
    events = federation.events(store)
    state = fold(events)
    page = render(state, ReportExtras())
    assert "4 of 4 rounds" in page
    assert "landmark" not in page.lower()
    assert status_json(state)["verdict"] == "COMPLETED"
    assert status_table(state) is not None
    assert any("phase=recover" in plain_line(event) for event in events)


def bend(monkeypatch, phase: str, change, site: str = "site-b") -> None:
    """Make one site's worker lie in one phase, before its door."""
    honest = PixelStudy.answer

    def answer(study, order):
        envelopes = honest(study, order)
        if study._subject.site == site and order.header.phase == phase:
            record, arrays = envelopes[0].record, dict(envelopes[0].arrays)
            envelopes[0] = Envelope(*change(record, arrays))
        return envelopes

    monkeypatch.setattr(PixelStudy, "answer", answer)


def poisoned_gram(record, arrays):
    return record, arrays | {"gram": arrays["gram"] * 1000}


def lopsided_gram(record, arrays):
    gram = arrays["gram"].copy()
    gram[0, 1] += 1
    return record, arrays | {"gram": gram}


def gram_of_floats(record, arrays):
    gram = arrays["gram"].astype(np.float32)
    gram[0, 0] = np.nan
    return record, arrays | {"gram": gram}


def oversized_table(record, arrays):
    return record, arrays | {"full": np.pad(arrays["full"], ((0, 0), (0, 100_000)))}


def wrong_codec(record, arrays):
    return record.model_copy(update={"codec": "0" * 64}), arrays


def other_slides_than_reported(record, arrays):
    return record.model_copy(update={"slides": record.slides + 1}), arrays


def more_than_counted(record, arrays):
    return record, arrays | {"full": arrays["full"] * 9}


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("survey", poisoned_gram),
        ("survey", lopsided_gram),
        ("survey", gram_of_floats),
        ("survey", wrong_codec),
        ("sketch", oversized_table),
        ("sketch", wrong_codec),
        ("sketch", more_than_counted),
        ("sketch", other_slides_than_reported),
    ],
)
def test_what_a_broken_worker_says_stops_at_its_door_and_the_others_go_on(
    hospitals, monkeypatch, phase, change
):
    bend(monkeypatch, phase, change)
    store, transport = hospitals.create_run(parse_plan(PLAN), min_sites=3), hospitals.transport()
    finished = hospitals.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    codes = [e.code for e in hospitals.events(store) if isinstance(e, SiteReplied)]
    assert codes.count(ReplyCode.REFUSED_AT_DOOR) == 1
    assert released(store).keys.size >= len(COMMON)


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("survey", poisoned_gram),
        ("survey", other_slides_than_reported),
        ("sketch", more_than_counted),
        ("sketch", wrong_codec),
    ],
)
def test_a_site_whose_door_is_broken_too_is_rejected_at_intake(
    hospitals, monkeypatch, phase, change
):
    from site_client.egress import gate

    bend(monkeypatch, phase, change)
    # One process: the door of every site is open, and intake's own copy of the rules holds.
    monkeypatch.setattr(gate, "check_record", lambda *_: None)
    monkeypatch.setattr(gate, "check_together", lambda *_: None)
    store, transport = hospitals.create_run(parse_plan(PLAN), min_sites=3), hospitals.transport()
    finished = hospitals.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert set(reasons(hospitals, store)) == {"site-b"}
    rounds = {e.phase: e.sites for e in hospitals.events(store) if isinstance(e, RoundFinished)}
    assert rounds[phase] == ("site-a", "site-c")
    assert rounds["recover"] == ("site-a", "site-b", "site-c")


def test_a_site_that_names_other_keys_than_the_rest_is_rejected(hospitals, monkeypatch):
    def one_less(record, arrays):
        return record, {name: array[1:] for name, array in arrays.items()}

    bend(monkeypatch, "recover", one_less)
    store, transport = hospitals.create_run(parse_plan(PLAN), min_sites=3), hospitals.transport()
    finished = hospitals.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert reasons(hospitals, store) == {"site-b": "it names other keys than most sites do"}
    exact = Exact.of(hospitals, codec_of(store))
    passing = {k for k, n in exact.pooled.items() if n >= 50 and exact.sites[k] >= 2}
    assert set(released(store).keys.tolist()) == passing


def test_two_sites_that_contradict_each_other_end_the_run_and_nothing_is_kept(
    hospitals, monkeypatch
):
    def one_less(record, arrays):
        return record, {name: array[1:] for name, array in arrays.items()}

    bend(monkeypatch, "recover", one_less)
    store, transport = hospitals.create_run(parse_plan(PLAN)), hospitals.transport()
    transport.down.add(102)
    finished = hospitals.conduct(store, transport)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 3)
    assert "do not name the same keys" in finished.reason
    assert not list(store.folder.rglob("keys.safetensors"))


def test_a_site_with_another_federation_key_takes_no_part(hospitals):
    site = hospitals.add_site("site-d", images=0, key=FederationKey.generate())
    allow(site)
    data = hospitals.root / "data" / "site-d"
    for which in range(2):
        np.save(data / f"s{which}.npy", slide(which, own=False))
    store = hospitals.create_run(parse_plan(PLAN), min_sites=4)
    finished = hospitals.conduct(store, hospitals.transport())
    assert finished.verdict == "DEGRADED"
    assert "another key or quantiser" in reasons(hospitals, store)["site-d"]
    assert released(store).keys.size >= len(COMMON)


def test_an_interrupted_run_goes_on_after_its_last_round_to_the_same_keys(run, hospitals):
    federation, (_, straight, _) = hospitals, run
    store = federation.create_run(parse_plan(PLAN), min_sites=3)
    transport = federation.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        honest(parcels, deadline_s)
        if len(transport.sent[100]) == 3:
            transport.silent.update({101, 102})

    transport.send = send
    failed = federation.conduct(store, transport)
    assert (failed.verdict, failed.exit_code, failed.rounds) == ("FAILED", 5, 2)
    transport.send = honest
    transport.silent.clear()
    resumed = federation.conduct(store, transport)
    assert resumed.rounds == 4
    assert store.finished_rounds() == [0, 1, 2, 3, 4]
    ours, theirs = released(store), released(straight)
    assert ours.to_bytes() == theirs.to_bytes()


def test_a_hospital_that_has_not_allowed_pixels_says_so_by_number(hospitals):
    hospitals.sites["site-b"].policy_file.write_text(default_policy_text())
    loosen(hospitals.sites["site-b"])
    store, transport = hospitals.create_run(parse_plan(PLAN), min_sites=3), hospitals.transport()
    finished = hospitals.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    replies = [e for e in hospitals.events(store) if isinstance(e, SiteReplied)]
    assert {e.code for e in replies if e.site == "site-b"} == {ReplyCode.REFUSED_BY_POLICY}
    sends = [p for r in transport.sent[101] for p in unwrap(r)]
    assert {name for name in sends if name.endswith(".envelope")} == {"RoundReport.envelope"}


def test_when_no_key_may_be_named_the_run_says_so(hospitals):
    section = PLAN["pixels"] | {"key_pixels": 10_000}
    store = hospitals.create_run(parse_plan(PLAN | {"pixels": section}), min_sites=3)
    finished = hospitals.conduct(store, hospitals.transport())
    assert (finished.verdict, finished.exit_code) == ("FAILED", 3)
    assert "no key may be named" in finished.reason


# The codebook goes back to the sites.


@pytest.fixture
def embedding(run):
    """A run that embeds the slides with a codebook of the named keys."""
    federation, first_run, _ = run
    codec, keys = codec_of(first_run), released(first_run)
    first = codec.encode((COMMON[:1] * 105).astype(np.uint16))[0][0]
    clusters = (keys.keys != first).astype(np.int32)
    book = Codebook.make(codec.digits, keys.keys, clusters, codec.identity)
    book = book.label({0: "epithelium", 1: "other"})
    plan = parse_plan(
        {
            "name": "maps",
            "kind": "embed",
            "seed": 1,
            "embed": {
                "codec": codec.identity,
                "codebook": book.digest,
                "groups": book.group_names,
                "min_pixels": 1000,
                "group_pixels": 100,
            },
            "rounds": {"quorum": 2, "deadline_s": 60.0},
        }
    )
    documents = {
        "codec.json": first_run.load(2).documents["codec.json"],
        "codebook.json": book.to_bytes(),
    }
    options = RunOptions(min_sites=3, wait_s=0)
    store = RunStore.create(federation.folder.runs / f"maps-{RUNS()}", plan, options, documents)
    return federation, store, book


def test_sites_embed_their_slides_and_tell_counts_per_group_only(embedding):
    federation, store, _ = embedding
    transport = federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    told = json.loads(store.load(1).documents["groups.json"])["sites"]
    assert set(told) == {"site-a", "site-b", "site-c"}
    for said in told.values():
        groups = said["groups"]
        assert groups["epithelium"] == 2 * 300
        assert sum(groups.values()) == said["pixels"] == 2 * SIDE * SIDE
    names = {name for r in transport.sent[100] for name in unwrap(r)}
    assert {n for n in names if n.endswith(".envelope")} == {
        "RoundReport.envelope",
        "GroupCounts.envelope",
    }
    maps = sorted((federation.sites["site-a"].worker / "maps" / store.name).iterdir())
    assert [path.name for path in maps] == ["s0.npy.mha", "s1.npy.mha"]


def test_a_codebook_changed_on_its_way_is_not_used(embedding, monkeypatch):
    federation, store, book = embedding
    transport = federation.transport()
    honest = transport.send

    def send(parcels, deadline_s):
        bent = {}
        for node, parcel in parcels.items():
            parts = unwrap(parcel)
            if node == 101 and "codebook" in parts:
                other = book.label({0: "other", 1: "epithelium"})
                parts["codebook"] = other.to_bytes()
            bent[node] = wrap(parts)
        honest(bent, deadline_s)

    transport.send = send
    embedded = []
    honest_answer = EmbedStudy.answer
    monkeypatch.setattr(
        EmbedStudy,
        "answer",
        lambda s, o: embedded.append((s._subject.site, o.header.phase)) or honest_answer(s, o),
    )
    finished = federation.conduct(store, transport)
    assert finished.verdict == "DEGRADED"
    assert ("site-b", "embed") not in embedded
    rounds = {e.round: e.sites for e in federation.events(store) if isinstance(e, RoundFinished)}
    assert rounds[1] == ("site-a", "site-c")


def test_a_group_of_a_few_pixels_is_told_as_none(embedding):
    federation, store, _ = embedding
    plan = store.plan()
    section = plan.embed.model_copy(update={"group_pixels": 700})
    documents = {name: store.attached(name) for name in ("codec.json", "codebook.json")}
    again = RunStore.create(
        federation.folder.runs / f"maps-{RUNS()}",
        parse_plan(
            plan.model_dump(mode="json", exclude_unset=True) | {"embed": section.model_dump()}
        ),
        store.options(),
        documents,
    )
    assert federation.conduct(again, federation.transport()).verdict == "COMPLETED"
    told = json.loads(again.load(1).documents["groups.json"])["sites"]
    assert {said["groups"]["epithelium"] for said in told.values()} == {0}


def test_nothing_of_the_aggregators_road_imports_torch_or_compiles_a_kernel():
    modules = "aggregator.rounds.conduct, aggregator.rounds.pixels, aggregator.rounds.embedding"
    heavy = "('torch', 'SimpleITK', 'numba', 'umap')"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "[]"
