"""Whole runs with relays between the aggregator and its sites: real ledgers, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.relays.relay import Relay
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import RelayFailed, RoundFinished, RunFinished, SiteLate, SiteReplied
from aggregator.rounds.store import RunStore
from aggregator.rounds.transport import Arrival
from common.crypto.identity import read_public_key
from common.errors import RefusedError
from common.ledger.verify import verify_ledger
from common.plan import parse_plan
from common.sums.addition import Group, Sum, add_records, decode_sum, encode_sum
from common.sums.summand import Summand
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode
from common.wire.parcel import unwrap, wrap
from common.wire.relayed import HEAD_PREFIX, HEADS, SUM, Heads, read_heads, said_bytes
from site_client.worker import answering
from site_client.worker.noop import NoOpStudy
from tests.federation.conftest import Federation, MemoryTransport
from tests.federation.test_pixels_in_memory import PLAN as PIXELS
from tests.federation.test_pixels_in_memory import add_hospitals

SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
Groups = Mapping[str, Sequence[str]]
Bend = Callable[[bytes], bytes]
TWO: Groups = {"east": SITES[:3], "west": SITES[3:]}


class Above:
    """The aggregator's way to relays, and to the sites that are behind none.

    ``down`` relays get nothing; ``bend`` changes what a relay says, by its name.
    """

    def __init__(self, federation: Federation, groups: Groups, root: Path) -> None:
        behind = {site for sites in groups.values() for site in sites}
        below = dict(enumerate(federation.sites.values(), start=100))
        nodes = {site.root.name: node for node, site in below.items()}
        self.groups = {relay: frozenset(sites) for relay, sites in groups.items()}
        self.ways = {
            relay: MemoryTransport({nodes[name]: federation.sites[name] for name in sites})
            for relay, sites in groups.items()
        }
        witness = federation.folder.witness_key().public
        self.relays = {
            node: Relay(name, witness, root / name, self.ways[name], wait=lambda _: None)
            for node, name in enumerate(groups)
        }
        direct = {n: s for n, s in below.items() if s.root.name not in behind}
        self.direct = MemoryTransport(direct)
        self.down: set[str] = set()
        self.bend: dict[str, Bend] = {}
        self.errands: list[tuple[str, dict[str, bytes]]] = []
        self.up_bytes = 0
        self._waiting: dict[int, bytes] = {}

    def nodes(self) -> Mapping[int, str]:
        names = {node: relay.name for node, relay in self.relays.items()}
        return {n: r for n, r in names.items() if r not in self.down} | self.direct.nodes()

    def send(self, parcels: Mapping[int, bytes], deadline_s: float) -> None:
        self._waiting = {node: parcels[node] for node in parcels if node in self.relays}
        below = {node: parcels[node] for node in parcels if node not in self.relays}
        self.direct.send(below, deadline_s)

    def receive(self) -> Sequence[Arrival]:
        arrivals = list(self.direct.receive())
        for node, errand in self._waiting.items():
            name = self.relays[node].name
            self.errands.append((name, unwrap(errand)))
            if name in self.down:
                arrivals.append(Arrival(node, None, ReplyCode.NO_ANSWER))
                continue
            answer = self.bend.get(name, bytes)(self.relays[node].answer(errand))
            self.up_bytes += len(answer)
            arrivals.append(Arrival(node, answer))
        self._waiting = {}
        return arrivals


@pytest.fixture
def five(federation: Federation, moving) -> Federation:
    """Five sites that share one key and send small steps."""
    del moving
    for name in SITES:
        federation.add_site(name)
    return federation


def conduct(federation: Federation, store: RunStore, above: Above) -> RunFinished:
    return Conductor(
        federation.folder,
        store,
        above,
        federation.turn(),
        sleep=lambda _: None,
        relays=above.groups,
    ).run()


def relayed_run(
    federation: Federation, plan, groups: Groups = TWO, name: str = "run-1"
) -> tuple[RunStore, Above]:
    above = Above(federation, groups, federation.root / "relays")
    return federation.create_run(plan, name), above


def counted(federation: Federation, store: RunStore) -> dict[int, tuple[str, ...]]:
    return {e.round: e.sites for e in federation.events(store) if isinstance(e, RoundFinished)}


def failures(federation: Federation, store: RunStore) -> list[tuple[int, str, str]]:
    found = [e for e in federation.events(store) if isinstance(e, RelayFailed)]
    return [(e.round, e.relay, e.reason) for e in found]


def late(federation: Federation, store: RunStore) -> list[tuple[int, str]]:
    return [(e.round, e.site) for e in federation.events(store) if isinstance(e, SiteLate)]


GROUPINGS: list[Groups] = [
    {"only": SITES},
    TWO,
    {"one": SITES[4:], "other": (SITES[0], SITES[2])},  # b and d answer the aggregator itself
    {f"relay-{site[-1]}": (site,) for site in reversed(SITES)},
]


def test_any_grouping_of_sites_into_relays_gives_the_model_that_none_gives(five, no_op_plan):
    plain = five.create_run(no_op_plan, "plain")
    wanted = five.conduct(plain, five.transport())
    assert (wanted.verdict, counted(five, plain)[1]) == ("COMPLETED", SITES)
    for number, groups in enumerate(GROUPINGS):
        store, above = relayed_run(five, no_op_plan, groups, f"run-{number}")
        finished = conduct(five, store, above)
        assert (finished.verdict, finished.reason) == ("COMPLETED", "")
        assert finished.model_sha256 == wanted.model_sha256
        assert counted(five, store) == dict.fromkeys(range(4), SITES)
        assert store.load(2).facts == plain.load(2).facts, "what was usual is the same, too"
        assert store.sum_of(1) == sum_of_the_archives(store, above)
        told = [e for e in five.events(store) if isinstance(e, SiteReplied)]
        behind = {site: relay for relay, sites in groups.items() for site in sites}
        assert {(e.site, e.relay) for e in told} == {(s, behind.get(s, "")) for s in SITES}
    for site in five.sites.values():
        keys = [read_public_key(path) for path in (site.ledger / "ledger.pub", site.witness_key)]
        assert verify_ledger(site.ledger, *keys).intact


def sum_of_the_archives(store: RunStore, above: Above) -> bytes:
    """What an aggregator without relays makes of what the sites sent in round 1."""
    answers: dict[str, list[Envelope]] = {}
    for way in (*above.ways.values(), above.direct):
        for node, site in way.nodes().items():
            parts = unwrap(way.sent[node][1])
            kinds = ("ModelUpdate", "SketchTable")
            answers[site] = [decode(parts[f"{kind}.envelope"]) for kind in kinds]
    return encode_sum(add_records(store.name, 1, answers))


def test_a_site_is_sent_the_very_bytes_that_the_aggregator_would_send_it(
    five, no_op_plan, monkeypatch
):
    from aggregator.rounds.letters import Letters

    made: dict[tuple[str, int], bytes] = {}
    errand = Letters.errand

    def also_parcels(letters, relay, sites, *words):
        made.update({(site, letters.round): letters.parcel(site) for site in sites})
        return errand(letters, relay, sites, *words)

    monkeypatch.setattr(Letters, "errand", also_parcels)
    store, above = relayed_run(five, no_op_plan)
    got: dict[tuple[str, int], bytes] = {}
    for way in above.ways.values():
        honest = way.send

        def send(parcels, deadline_s, way=way, honest=honest):
            round_ = len(next(iter(way.sent.values())))
            got.update({(way.sites[n].root.name, round_): parcels[n] for n in parcels})
            honest(parcels, deadline_s)

        way.send = send
    assert conduct(five, store, above).verdict == "COMPLETED"
    assert len(got) == 4 * len(SITES)
    assert got == made


def test_only_heads_and_one_sum_come_up_and_the_archives_hold_who_sent_what(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    assert conduct(five, store, above).verdict == "COMPLETED"
    sent = sum(len(r) for way in above.ways.values() for each in way.sent.values() for r in each)
    assert above.up_bytes < sent, "five sites of small updates; the more, the less comes up"
    here, there = store.round_folder(1), five.root / "relays" / "east" / store.name
    kept = {path.suffix for path in (here / "east").iterdir()}
    assert kept == {".json", ".sum"}
    node = next(n for n, name in above.ways["east"].nodes().items() if name == "site-a")
    parts = unwrap(above.ways["east"].sent[node][1])
    archived = RunStore(there).round_folder(1) / "site-a"
    assert sorted(path.read_bytes() for path in archived.iterdir()) == sorted(parts.values())
    head = [data for name, data in parts.items() if name.startswith("RoundReport")]
    at_the_top = (here / "site-a").iterdir()
    assert sorted(path.read_bytes() for path in at_the_top) == sorted(head)


# A relay that lies.


def bent_sum(change: Callable[[Sum], Sum]) -> Bend:
    def bend(answer: bytes) -> bytes:
        parts = unwrap(answer)
        if SUM in parts:
            parts[SUM] = encode_sum(change(decode_sum(parts[SUM])))
        return wrap(parts)

    return bend


def changed(total: Sum, **changes: object) -> Sum:
    """The same in every group but for these."""
    groups = {kind: replace(group, **changes) for kind, group in total.groups.items()}
    return replace(total, groups=groups)


def one_unit_more(total: Sum) -> Sum:
    group = total.groups["ModelUpdate"]
    arrays = {name: array.copy() for name, array in group.summand.arrays.items()}
    first = min(arrays)
    arrays[first].reshape(-1)[0] -= np.sign(arrays[first].reshape(-1)[0]) or 1
    summand = Summand(group.summand.counts, arrays)
    return replace(total, groups=total.groups | {"ModelUpdate": replace(group, summand=summand)})


def in_other_form(total: Sum) -> Sum:
    group = total.groups["ModelUpdate"]
    arrays = dict(group.summand.arrays)
    arrays["one-more"] = np.zeros(3, np.int64)
    bent = Group(group.members, Summand(group.summand.counts, arrays), group.tag)
    return replace(total, groups=total.groups | {"ModelUpdate": bent})


def ten_times(total: Sum) -> Sum:
    group = total.groups["ModelUpdate"]
    arrays = {name: 10 * array for name, array in group.summand.arrays.items()}
    bent = replace(group, summand=Summand(group.summand.counts, arrays))
    return replace(total, groups=total.groups | {"ModelUpdate": bent})


SEEN = {
    "drops a member": (lambda s: changed(s, members=("site-d",)), "sites that were asked for"),
    "names another": (lambda s: changed(s, members=("site-d", "site-f")), "asked for"),
    "names one of another relay": (
        lambda s: changed(s, members=("site-a", "site-d", "site-e")),
        "asked for",
    ),
    "of another round": (lambda s: replace(s, round=s.round + 1), "run, round"),
    "in another form": (in_other_form, "names and shapes"),
    "longer than it told": (ten_times, "no longer than the lengths"),
    "a kind too few": (
        lambda s: replace(s, groups={"SketchTable": s.groups["SketchTable"]}),
        "groups",
    ),
}


@pytest.mark.parametrize("lie", SEEN)
def test_a_relay_whose_sum_cannot_be_is_named_and_costs_its_sites_the_round(five, no_op_plan, lie):
    change, words = SEEN[lie]
    store, above = relayed_run(five, no_op_plan)
    above.bend["west"] = bent_sum(change)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    told = failures(five, store)
    assert [(round_, relay) for round_, relay, _ in told] == [(1, "west"), (2, "west")]
    assert all(words in reason for _, _, reason in told)
    assert counted(five, store) == {0: SITES, 1: SITES[:3], 2: SITES[:3], 3: SITES}
    assert decode_sum(store.sum_of(1)).groups["ModelUpdate"].members == SITES[:3]


def test_a_relay_that_alters_a_sum_unseen_is_found_by_the_sites_and_left_out(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    above.bend["west"] = bent_sum(one_unit_more)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    for site in ("site-d", "site-e"):
        spoils = f"{site} was rejected: what west added of it and others spoils the sum"
        assert f"{spoils} (rounds 1-2)" in finished.reason
    assert not any(f"{site} was rejected" in finished.reason for site in SITES[:3])
    assert counted(five, store) == {0: SITES} | dict.fromkeys(range(1, 4), SITES[:3])
    told = [e for e in five.events(store) if isinstance(e, SiteReplied)]
    assert ReplyCode.FORGED_SUM in {e.code for e in told}, "the sites said so themselves"


def test_a_relay_that_doubles_a_summand_is_refused_by_the_sites(five, no_op_plan):
    """Short updates doubled stay within the lengths that were told; the tags show it."""
    store, above = relayed_run(five, no_op_plan, {"west": SITES})

    def doubled(total: Sum) -> Sum:
        group = total.groups["SketchTable"]
        table = group.summand.arrays["table"]
        summand = Summand(group.summand.counts, {"table": table + np.sign(table)})
        bent = replace(group, summand=summand)
        return replace(total, groups=total.groups | {"SketchTable": bent})

    above.bend["west"] = bent_sum(doubled)
    finished = conduct(five, store, above)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 4)
    assert "no single site to blame" in finished.reason


def bent_heads(change: Callable[[Heads, dict[str, bytes]], Heads]) -> Bend:
    def bend(answer: bytes) -> bytes:
        parts = unwrap(answer)
        if HEADS not in parts:
            return answer
        words, _ = read_heads(answer)
        beside = {name: data for name, data in parts.items() if name != HEADS}
        return wrap({HEADS: said_bytes(change(words, beside)), **beside})

    return bend


def without_d(words: Heads, beside: dict[str, bytes]) -> Heads:
    beside.pop(f"{HEAD_PREFIX}site-d", None)
    rest = tuple(said for said in words.sites if said.site != "site-d")
    return words.model_copy(update={"sites": rest})


def test_a_relay_that_drops_a_site_costs_that_site_its_rounds_and_no_other(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    above.bend["west"] = bent_heads(without_d)
    finished = conduct(five, store, above)
    assert finished.reason == "site-d was absent or late (rounds 0-3)"
    assert set(counted(five, store).values()) == {tuple(s for s in SITES if s != "site-d")}


def speaks_for_a(words: Heads, beside: dict[str, bytes]) -> Heads:
    mine = words.sites[0]
    beside[f"{HEAD_PREFIX}site-a"] = beside.pop(HEAD_PREFIX + mine.site)
    stolen = mine.model_copy(update={"site": "site-a"})
    return words.model_copy(update={"sites": (stolen, *words.sites[1:])})


def swapped(words: Heads, beside: dict[str, bytes]) -> Heads:
    """The head of one of its sites under the name of the other."""
    d, e = (f"{HEAD_PREFIX}{site}" for site in SITES[3:])
    beside[d], beside[e] = beside[e], beside[d]
    return words


def without_length(words: Heads, beside: dict[str, bytes]) -> Heads:
    del beside
    bare = tuple(said.model_copy(update={"norm": None}) for said in words.sites)
    return words.model_copy(update={"sites": bare})


def in_another_name(words: Heads, beside: dict[str, bytes]) -> Heads:
    del beside
    return words.model_copy(update={"relay": "east"})


@pytest.mark.parametrize("lie", [speaks_for_a, in_another_name])
def test_a_relay_that_speaks_for_others_is_named_and_not_heard(five, no_op_plan, lie):
    store, above = relayed_run(five, no_op_plan)
    above.bend["west"] = bent_heads(lie)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert {(relay, r) for r, relay, _ in failures(five, store)} == {("west", r) for r in range(4)}
    assert all("a relay speaks" in reason for _, _, reason in failures(five, store))
    assert set(counted(five, store).values()) == {SITES[:3]}


@pytest.mark.parametrize(
    ("lie", "rounds", "words"),
    [(swapped, range(4), "does not hold"), (without_length, (1, 2), "how long an update is")],
)
def test_a_head_that_its_site_did_not_prove_or_that_lacks_its_length_is_refused(
    five, no_op_plan, lie, rounds, words
):
    store, above = relayed_run(five, no_op_plan)
    above.bend["west"] = bent_heads(lie)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert finished.reason.count("what west passed on of it does not hold") >= 2
    assert words in finished.reason
    assert all(counted(five, store)[number] == SITES[:3] for number in rounds)


def test_a_relay_that_hides_a_length_moves_the_sum_no_further_than_it_told(
    five, no_op_plan, monkeypatch
):
    longer(monkeypatch, "site-d", 300)
    store, above = relayed_run(five, no_op_plan)

    def short(words: Heads, beside: dict[str, bytes]) -> Heads:
        del beside
        usual = min((said.norm or 0.0) for said in words.sites)
        told = tuple(said.model_copy(update={"norm": usual or None}) for said in words.sites)
        return words.model_copy(update={"sites": told})

    above.bend["west"] = bent_heads(short)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert all("no longer than the lengths" in reason for _, _, reason in failures(five, store))
    assert counted(five, store)[1] == SITES[:3]


# Sites that lie, behind honest relays.


def longer(monkeypatch, site: str, times: int) -> None:
    """Have one site send an update so many times as long."""
    honest = NoOpStudy.answer

    def answer(study, asked):
        envelopes = honest(study, asked)
        first = envelopes[0]
        if asked.header.phase != "train" or first.record.site != site:
            return envelopes
        arrays = {name: times * array for name, array in first.arrays.items()}
        return [Envelope(first.record, arrays), *envelopes[1:]]

    monkeypatch.setattr(NoOpStudy, "answer", answer)


def test_an_update_that_is_too_long_is_left_out_of_its_relays_sum(five, no_op_plan, monkeypatch):
    longer(monkeypatch, "site-b", 20)
    plain = five.create_run(no_op_plan, "plain")
    wanted = five.conduct(plain, five.transport())
    store, above = relayed_run(five, no_op_plan)
    finished = conduct(five, store, above)
    assert (finished.verdict, finished.reason) == (wanted.verdict, wanted.reason)
    assert "site-b was rejected: its update is" in finished.reason
    assert finished.model_sha256 == wanted.model_sha256
    rest = tuple(site for site in SITES if site != "site-b")
    assert counted(five, store)[1] == rest
    assert decode_sum(store.sum_of(1)).groups["ModelUpdate"].members == rest


def lie_about_tags(monkeypatch, sites: Iterable[str], rounds: Iterable[int]) -> None:
    honest = answering.tagged
    liars, when = set(sites), set(rounds)

    def wrong(envelope: Envelope) -> Envelope:
        tag = getattr(envelope.record, "tag", None)
        if tag is None or envelope.record.site not in liars or envelope.record.round not in when:
            return envelope
        bent = f"{int(tag, 16) ^ 1:016x}"
        return Envelope(envelope.record.model_copy(update={"tag": bent}), envelope.arrays)

    monkeypatch.setattr(
        answering, "tagged", lambda es, key, link: [wrong(e) for e in honest(es, key, link)]
    )


@pytest.mark.parametrize(("liar", "its"), [("site-b", SITES[:3]), ("site-e", SITES[3:])])
def test_a_site_whose_tags_are_wrong_is_found_behind_its_relay_and_the_rest_goes_on(
    five, no_op_plan, monkeypatch, liar, its
):
    """First its relay's sites lose a round; when it lies again, it is found by itself."""
    lie_about_tags(monkeypatch, [liar], [1, 2])
    store, above = relayed_run(five, no_op_plan)
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert f"{liar} was rejected: its tag spoils the sum" in finished.reason
    rest = tuple(site for site in SITES if site != liar)
    others = tuple(site for site in SITES if site not in its)
    assert counted(five, store) == {0: SITES, 1: others, 2: rest, 3: rest}
    added = [parts for _, parts in above.errands if set(parts) == {"note"}]
    assert len(added) > 4, "relays were asked for sums without a suspect"


def test_a_site_that_lied_once_costs_its_relays_sites_that_round_only(
    five, no_op_plan, monkeypatch
):
    lie_about_tags(monkeypatch, ["site-e"], [1])
    store, above = relayed_run(five, no_op_plan)
    assert conduct(five, store, above).verdict == "DEGRADED"
    assert counted(five, store) == {0: SITES, 1: SITES[:3], 2: SITES, 3: SITES}


def test_a_liar_is_found_where_too_few_would_be_left_without_its_whole_relay(
    five, no_op_plan, monkeypatch
):
    lie_about_tags(monkeypatch, ["site-c"], [1, 2])
    asked = no_op_plan.model_dump(mode="json")
    plan = parse_plan(asked | {"rounds": asked["rounds"] | {"quorum": 4}})
    store, above = relayed_run(five, plan)
    finished = conduct(five, store, above)
    assert finished.reason.startswith("site-c was rejected: its tag spoils the sum")


# A relay that is lost.


def test_a_relay_that_is_lost_costs_its_sites_that_round_only(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    honest = above.send

    def send(parcels, deadline_s):
        honest(parcels, deadline_s)
        above.down = {"west"} if 1 in rounds_of(above, parcels) else set()

    above.send = send
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert set(late(five, store)) == {(1, "site-d"), (1, "site-e")}
    assert counted(five, store) == {0: SITES, 1: SITES[:3], 2: SITES, 3: SITES}
    assert {(r, relay) for r, relay, _ in failures(five, store)} == {(1, "west")}


def rounds_of(above: Above, parcels: Mapping[int, bytes]) -> set[int]:
    """Rounds of the gather errands among these."""
    from common.wire.orders import decode_order

    parts = [unwrap(parcels[node]) for node in parcels]
    return {decode_order(p["order"]).header.round for p in parts if "order" in p}


def test_a_relay_that_is_lost_between_heads_and_sums_costs_that_round_only(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    lost: list[bytes] = []

    def gone_once(answer: bytes) -> bytes:
        if SUM in unwrap(answer) and not lost:
            lost.append(answer)
            return b""
        return answer

    above.bend["east"] = gone_once
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    assert counted(five, store) == {0: SITES, 1: SITES[3:], 2: SITES, 3: SITES}
    assert set(late(five, store)) == {(1, site) for site in SITES[:3]}


def test_where_too_few_are_left_without_a_lost_relay_the_run_fails_and_can_be_resumed(
    five, no_op_plan
):
    store, above = relayed_run(five, no_op_plan, {"only": SITES})
    above.bend["only"] = lambda answer: b"" if SUM in unwrap(answer) else answer
    finished = conduct(five, store, above)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 5)
    assert store.finished_rounds() == [0]
    again = Above(five, {"only": SITES}, five.root / "relays")
    finished = conduct(five, store, again)
    assert (finished.verdict, finished.rounds) == ("DEGRADED", 2)


def test_a_relay_that_was_started_anew_adds_what_lies_in_its_archive(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    honest = above.receive

    def receive() -> Sequence[Arrival]:
        arrivals = honest()
        for node, relay in above.relays.items():  # nothing but its archive is left of each
            fresh = Relay(
                relay.name,
                five.folder.witness_key().public,
                relay.archive,
                relay.transport,
                wait=lambda _: None,
            )
            above.relays[node] = fresh
        return arrivals

    above.receive = receive
    assert conduct(five, store, above).verdict == "COMPLETED"


def test_a_relay_that_lost_its_archive_says_so_and_costs_that_round(five, no_op_plan):
    import shutil

    store, above = relayed_run(five, no_op_plan)
    times: list[int] = []

    def forget(answer: bytes) -> bytes:
        if HEADS in unwrap(answer):
            times.append(1)
            if len(times) == 2:  # after the heads of round 1
                shutil.rmtree(five.root / "relays" / "west")
        return answer

    above.bend["west"] = forget
    finished = conduct(five, store, above)
    assert finished.verdict == "DEGRADED"
    ((round_, relay, reason),) = failures(five, store)
    assert (round_, relay) == (1, "west")
    assert "can no longer be read from the archive" in reason
    assert counted(five, store)[2] == SITES


def test_a_run_that_is_stopped_is_recorded_at_the_sites_behind_relays(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    store.ask_to_stop("ada")
    finished = conduct(five, store, above)
    assert finished.verdict == "STOPPED"
    assert f"recorded at {', '.join(SITES)}" in finished.reason


def test_a_relays_word_that_its_sites_refuse_a_sum_is_no_word_of_theirs(five, no_op_plan):
    """A courier may say a number unproved; that a sum does not hold is none of them."""
    store, above = relayed_run(five, no_op_plan)
    for way in above.ways.values():
        honest = way.receive

        def receive(honest=honest) -> list[Arrival]:
            return [Arrival(a.node, None, ReplyCode.FORGED_SUM) for a in honest()]

        way.receive = receive
    finished = conduct(five, store, above)
    assert (finished.verdict, finished.exit_code) == ("FAILED", 5)
    assert "turned its reply away" in finished.reason
    assert "no number that a courier says" in finished.reason


def test_keys_of_pixels_are_named_from_the_same_sums_behind_relays(federation):
    """Phases without a sum pass whole replies; all others only their heads."""
    add_hospitals(federation)
    plan = parse_plan(PIXELS)
    plain = federation.create_run(plan, "plain")
    wanted = federation.conduct(plain, federation.transport())
    groups = {"east": ("site-a", "site-c"), "west": ("site-b",)}
    store, above = relayed_run(federation, plan, groups)
    finished = conduct(federation, store, above)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert finished.model_sha256 == wanted.model_sha256
    assert len(wanted.model_sha256) == 64


# What a relay does for others than its aggregator: nothing.


def test_a_relay_does_no_errand_that_its_aggregator_has_not_signed(five, no_op_plan):
    store, above = relayed_run(five, no_op_plan)
    assert conduct(five, store, above).verdict == "COMPLETED"
    name, parts = above.errands[0]
    relay = next(relay for relay in above.relays.values() if relay.name == name)
    other = next(relay for relay in above.relays.values() if relay.name != name)
    bent = bytearray(parts["note"])
    bent[-2] ^= 1
    cases = [
        (relay, {**parts, "note": bytes(bent)}, "signature"),
        (relay, {k: v for k, v in parts.items() if k != "note"}, ""),
        (relay, {**parts, "order": parts["order"] + b" "}, "the one that the note names"),
        (other, parts, "relay"),
    ]
    for asked, errand, words in cases:
        with pytest.raises(RefusedError, match=f"does not do its errand.*{words}"):
            read_heads(asked.answer(wrap(errand)))


@pytest.mark.parametrize("groups", [{"site-a": SITES[1:]}, {"one": SITES[:3], "two": SITES[2:]}])
def test_relays_that_share_a_site_or_are_called_like_one_are_refused(five, no_op_plan, groups):
    store = five.create_run(no_op_plan)
    with pytest.raises(RefusedError, match=r"called like a site|behind two relays"):
        Conductor(
            five.folder,
            store,
            five.transport(),
            1,
            relays={name: frozenset(sites) for name, sites in groups.items()},
        )
