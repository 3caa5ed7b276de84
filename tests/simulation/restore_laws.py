"""What must hold of machines that were put back from backups, and of their lives before.

A life is what a machine's folder was between two restores. Nothing is asked here of a
machine that was never put back that the other laws do not ask already, with one exception:
whatever a site signs goes on from the checkpoint that came beside the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.events import (
    AggregatorRestored,
    Event,
    RoundFinished,
    RoundStarted,
    SiteReplied,
    SiteRestored,
    read_events,
)
from aggregator.rounds.store import RunStore
from common.ledger.notes import Checkpoint, ledger_origin
from common.ledger.proof import Proof
from common.wire.transport import PROOF_SUFFIX
from tests.simulation.departures import Departure
from tests.simulation.trees import Tree, checkpoint_of, lost_in
from tests.simulation.world import World


def a_site_signs_only_what_goes_on_from_what_it_was_shown(world: World) -> Iterator[str]:
    """A checkpoint beside an order that is answered, by a number even, is held or named as lost."""
    for name in with_own_past(world):
        trees = _trees(world, name)
        for departure in world.left[name].departures:
            shown = _shown(world, name, departure)
            size = checkpoint_of(next(iter(_proofs(departure).values())).checkpoint).size
            tree = trees[departure.life].first(size)
            if shown is not None and not tree.holds(shown) and not tree.names(shown):
                kinds = ", ".join(sorted(departure.envelopes.values()))
                yield f"{name}: {kinds} left beside a checkpoint of {shown.size} that is not held"


def a_site_that_waits_for_a_person_signs_nothing(world: World) -> Iterator[str]:
    back = _set_back(world)
    yield from (breach for breach in world.waited if breach.partition(":")[0] not in back)


def what_a_person_said_is_recorded(world: World) -> Iterator[str]:
    for name, life, digest in world.words:
        restores = _trees(world, name)[life].restores
        if digest not in [each.payload_sha256 for each in restores]:
            yield f"{name}: a person's yes to {digest[:12]} is not recorded"


def what_is_named_as_lost_was_there(world: World) -> Iterator[str]:
    """A restore invents no loss: an earlier life had that checkpoint, and this one has not."""
    for name in with_own_past(world):
        trees = _trees(world, name)
        for life, tree in enumerate(trees):
            for record in tree.restores:
                lost = lost_in(record, ledger_origin(name))
                if tree.first(record.seq).holds(lost):
                    yield f"{name}: #{record.seq} names {lost.size} records as lost that are there"
                if not any(each.holds(lost) for each in trees[:life]):
                    yield f"{name}: #{record.seq} names {lost.size} records that never were"


def what_was_taken_and_lost_is_covered_by_what_is_named(world: World) -> Iterator[str]:
    """Once the aggregator takes more of a site, all it had taken before is there, or named."""
    for name in with_own_past(world):
        trees = _trees(world, name)
        taken = [checkpoint_of(note) for note in world.receipts[-1][name] if note]
        for departure in world.left[name].departures:
            tree = trees[departure.life]
            for digest, proof in _proofs(departure).items():
                there = [tree.holds(c) for c in taken]
                covers = [c.size > proof.seq and held for c, held in zip(taken, there, strict=True)]
                if True not in covers or all(there[covers.index(True) :]):
                    continue  # never taken, or nothing since that does not hold it
                if not _is_in(trees[-1], digest) and not _is_named(trees, name, digest):
                    yield f"{name}: {digest[:12]} was taken, is lost, and nothing names it"


def the_aggregator_goes_on_from_every_checkpoint_or_says_why(world: World) -> Iterator[str]:
    """Where the next checkpoint does not continue one: an event, its record, and the old note."""
    folders = [*world.past_federations(), world.federation]
    for life, folder in enumerate(folders):
        told = [e for e in _events(world, folder) if isinstance(e, SiteRestored)]
        for name in with_own_past(world):
            trees = _trees(world, name)
            notes = world.receipts[life][name]
            for old, new in pairwise(notes):
                if not old:
                    continue
                lost, now = checkpoint_of(old), checkpoint_of(new)
                if any(tree.holds(lost) and tree.holds(now) for tree in trees):
                    continue
                of_it = [e for e in told if (e.site, e.lost_size) == (name, lost.size)]
                if not any(_is_recorded(event, lost, now, trees) for event in of_it):
                    yield f"{name}: {now.size} records after another {lost.size}, and no event"
                kept = (folder.sites / name).glob(f"checkpoint.lost-{lost.size}-*.note")
                if old not in [path.read_bytes() for path in kept]:
                    yield f"{name}: the checkpoint of {lost.size} records was not kept"


def an_aggregator_that_was_put_back_says_so(world: World) -> Iterator[str]:
    """For each site that shows, when it is heard next, a receipt that the backup lacks."""
    for life, folder in enumerate([*world.past_federations(), world.federation][1:], start=1):
        told = [e for e in _events(world, folder) if isinstance(e, AggregatorRestored)]
        for name in with_own_past(world):
            first, *heard = world.receipts[life][name]
            remembered = checkpoint_of(first).size if first else 0
            held, held_in = world.held[life - 1][name]
            size = checkpoint_of(held).size if held else 0
            if not heard or size <= remembered:
                continue
            heard_in = world.heard_in[life][name][0]
            if heard_in != held_in and world.began_with[name][heard_in] != held:
                continue  # the site was put back, too, and has lost that receipt
            # An old order that comes late may have brought it a newer one since.
            known = [e.cosigned for e in told if (e.site, e.remembered) == (name, remembered)]
            if max(known, default=0) < size:
                yield f"{name} showed a receipt for {size} records, and no event says so"


def repeated_rounds_come_to_the_same_bits(world: World) -> Iterator[str]:
    """As long as each repeated round counts the same sites as before."""
    now = _finished(world.events)
    for before in map(_finished, _lost_journals(world)):
        for number in sorted(before.keys() & now.keys()):
            if before[number].sites != now[number].sites:
                break
            if before[number].model_sha256 != now[number].model_sha256:
                yield f"round {number} came to other bits with the same sites"


def no_round_is_answered_again_after_a_restore(world: World) -> Iterator[str]:
    """Rounds before the one that was asked count as answered."""
    for name in with_own_past(world):
        for tree in _trees(world, name):
            for restore in tree.restores:
                for record in tree.records[restore.seq :]:
                    again = record.run == restore.run and (record.round or 0) < (restore.round or 0)
                    if again and record.event == "SEND" and record.record_type != "RoundReport":
                        yield f"{name}: round {record.round} was answered after its restore"


def has_an_excuse(world: World) -> bool:
    """Tell whether restores alone can end a run: too few sites speak, or others repeat a round."""
    waiting = sum(site.lost.exists() for site in world.sites.values())
    if len(world.sites) - waiting < world.template.plan.rounds.quorum:
        return True
    return any(_repeats_otherwise(world, events) for events in _lost_journals(world))


def _repeats_otherwise(world: World, before: list[Event]) -> bool:
    """Tell whether other sites have answered a round again than before, each for a fault's sake."""
    faulty = {fault.party for fault in world.faults}
    begun = {event.round for event in world.events if isinstance(event, RoundStarted)}
    finished, again = _finished(before), _finished(world.events)
    for number in sorted(begun & finished.keys()):
        others = set(again[number].sites) if number in again else _answering(world.events, number)
        others ^= set(finished[number].sites)
        if others and others <= faulty:
            return True
    return False


def _answering(events: list[Event], number: int) -> set[str]:
    """Sites whose answers to a round were taken when it was asked last."""
    sites: set[str] = set()
    for event in events:
        if isinstance(event, RoundStarted) and event.round == number:
            sites = set()
        if isinstance(event, SiteReplied) and event.round == number and event.accepted:
            sites.add(event.site)
    return sites


def _set_back(world: World) -> set[str]:
    return {fault.party for fault in world.faults if fault.kind == "ledger set back"}


def with_own_past(world: World) -> list[str]:
    """Sites that did not set their own disk back: such a one has no past that it answers for."""
    return sorted(world.sites.keys() - _set_back(world))


def _trees(world: World, name: str) -> list[Tree]:
    return [Tree.read(site.ledger) for site in world.lives(name)]


def _proofs(departure: Departure) -> dict[str, Proof]:
    """Digest of every envelope of a reply -> its proof."""
    parts = departure.parts.items()
    proofs = {n: Proof.from_bytes(d) for n, d in parts if n.endswith(PROOF_SUFFIX)}
    digests = {kind: digest for digest, kind in departure.envelopes.items()}
    return {digests[name.removesuffix(PROOF_SUFFIX)]: proof for name, proof in proofs.items()}


def _shown(world: World, name: str, departure: Departure) -> Checkpoint | None:
    """Return the checkpoint that came beside the order which a reply answers."""
    note = world.left[name].orders.get(departure.order)
    return None if note is None else checkpoint_of(note)


def _is_in(tree: Tree, digest: str) -> bool:
    return any(r.event == "SEND" and r.payload_sha256 == digest for r in tree.records)


def _is_named(trees: list[Tree], name: str, digest: str) -> bool:
    """Tell whether some life names a checkpoint as lost whose tree, in another, has the payload."""
    for tree in trees:
        for record in tree.restores:
            lost = lost_in(record, ledger_origin(name))
            if any(t.holds(lost) and _is_in(t.first(lost.size), digest) for t in trees):
                return True
    return False


def _is_recorded(event: SiteRestored, lost: Checkpoint, now: Checkpoint, trees: list[Tree]) -> bool:
    """Tell whether an event speaks of the record that stands in the tree which goes on."""
    for tree in trees:
        if tree.holds(now) and event.seq < now.size:
            record = tree.records[event.seq]
            said = (record.event, record.lost_size, record.lost_root, record.person)
            if said == ("RESTORE", lost.size, lost.root.hex(), event.person):
                return True
    return False


def _events(world: World, folder: FederationFolder) -> list[Event]:
    """Every journal in an aggregator's folder: a run that was begun anew has one of its own."""
    journals = (RunStore(path).journal for path in sorted(folder.runs.iterdir()))
    return [event for journal in journals for _, event in read_events(journal)]


def _lost_journals(world: World) -> list[list[Event]]:
    """The run's journals in the folders that a backup took the place of."""
    stores = [RunStore(each.runs / world.run_name) for each in world.past_federations()]
    return [[event for _, event in read_events(store.journal)] for store in stores]


def _finished(events: list[Event]) -> dict[int, RoundFinished]:
    return {event.round: event for event in events if isinstance(event, RoundFinished)}


RESTORE_LAWS = (
    a_site_signs_only_what_goes_on_from_what_it_was_shown,
    a_site_that_waits_for_a_person_signs_nothing,
    what_a_person_said_is_recorded,
    what_is_named_as_lost_was_there,
    what_was_taken_and_lost_is_covered_by_what_is_named,
    the_aggregator_goes_on_from_every_checkpoint_or_says_why,
    an_aggregator_that_was_put_back_says_so,
    repeated_rounds_come_to_the_same_bits,
    no_round_is_answered_again_after_a_restore,
)
