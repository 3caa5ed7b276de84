"""Sums that an aggregator could make, each of which a site must refuse.

Every maker is given the site, the honest sum of round 1 and what the site sent for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.crypto.keyed import FederationKey
from common.sums.addition import Group, Sum, add_records, decode_sum, encode_sum
from common.sums.summand import Summand, summand_of
from common.sums.tags import add_tags
from common.wire.envelope import Envelope, pack, unpack
from common.wire.records import PixelStatistics
from site_client.worker.tagging import tagged
from tests.aggregated import OTHERS, Past, roster_of
from tests.site_client.worker.asking import RUN, SKETCH, UPDATE, elsewhere


def rebuilt(data: bytes, kind: str, change: Callable[[Group], Group]) -> bytes:
    total = decode_sum(data)
    return encode_sum(replace(total, groups={**total.groups, kind: change(total.groups[kind])}))


def altered(site, honest, reply):
    """One unit more in one coordinate."""
    del site, reply
    metadata, arrays = unpack(honest)
    bent = {name: array.copy() for name, array in arrays.items()}
    bent[f"{UPDATE}/fc1.weight"].reshape(-1)[7] += 1
    return pack(metadata, bent)


def altered_table(site, honest, reply):
    del site, reply
    metadata, arrays = unpack(honest)
    bent = {name: array.copy() for name, array in arrays.items()}
    bent[f"{SKETCH}/table"].reshape(-1)[0] -= 1
    return pack(metadata, bent)


def with_counts(group, by):
    counts = {name: count + by for name, count in group.summand.counts.items()}
    return replace(group, summand=Summand(counts, group.summand.arrays))


def one_sample_more(site, honest, reply):
    del site, reply
    return rebuilt(honest, UPDATE, lambda group: with_counts(group, 1))


def one_key_fewer(site, honest, reply):
    del site, reply
    return rebuilt(honest, SKETCH, lambda group: with_counts(group, -1))


def doubled(site, honest, reply):
    """The site's own records twice, under the names of the honest set."""
    del site
    for kind in (UPDATE, SKETCH):
        own = summand_of(reply[kind])
        tag = int(reply[kind].record.tag, 16)

        def twice(group, own=own, tag=tag):
            counts = {n: c + own.counts[n] for n, c in group.summand.counts.items()}
            arrays = {n: a + own.arrays[n] for n, a in group.summand.arrays.items()}
            return Group(group.members, Summand(counts, arrays), add_tags([group.tag, tag]))

        honest = rebuilt(honest, kind, twice)
    return honest


def alone_as_everybody(site, honest, reply):
    """The site's own records as the sum of all."""
    del honest
    own = {"north": [reply[UPDATE], reply[SKETCH]]}
    total = add_records(RUN, 1, own)
    claimed = {k: replace(g, members=("east", "north")) for k, g in total.groups.items()}
    del site
    return encode_sum(replace(total, groups=claimed))


def alone(site, honest, reply):
    """The site's own records, as what they are; fewer than the quorum."""
    del site, honest
    return encode_sum(add_records(RUN, 1, {"north": [reply[UPDATE], reply[SKETCH]]}))


def fewer_than_named(site, honest, reply):
    """West's summand is missing, and west is named."""
    del honest
    past = elsewhere(site)
    past.add({"north": reply.values(), "east": past.training_records("east", 1)})
    total = decode_sum(past.sums[1])
    claimed = {
        kind: replace(group, members=("east", "north", "west"))
        for kind, group in total.groups.items()
    }
    return encode_sum(replace(total, groups=claimed))


def fewer_named(site, honest, reply):
    """West's summand is there, and west is not named."""
    del site, reply
    for kind in (UPDATE, SKETCH):
        honest = rebuilt(honest, kind, lambda g: replace(g, members=("east", "north")))
    return honest


def other_sets(site, honest, reply):
    """Both records hold, but are of different sites."""
    past = elsewhere(site)
    past.add({"north": reply.values(), "east": past.training_records("east", 1)})
    two, three = decode_sum(past.sums[1]), decode_sum(honest)
    return encode_sum(replace(three, groups={**three.groups, SKETCH: two.groups[SKETCH]}))


def without_table(site, honest, reply):
    del site, reply
    total = decode_sum(honest)
    return encode_sum(replace(total, groups={UPDATE: total.groups[UPDATE]}))


def with_pixels(site, honest, reply):
    """A record more than a round of training has, whose tags hold."""
    del reply
    sent = {}
    for name in ("east", "north", "west"):
        record = PixelStatistics(
            plan_fingerprint=site.plan.fingerprint,
            site=name,
            run=RUN,
            round=1,
            subject="survey",
            codec="0" * 64,
            slides=1,
            pixels=4,
        )
        envelope = Envelope(record, {"histogram": np.ones(4, np.int64)})
        sent[name] = tagged([envelope], site.key, site.past().links[0])
    more, total = add_records(RUN, 1, sent), decode_sum(honest)
    return encode_sum(replace(total, groups={**total.groups, **more.groups}))


def with_a_stranger(site, honest, reply):
    """A holder of the key that is not of the run."""
    del honest
    past = elsewhere(site)
    return past.add({"north": reply.values(), "mallory": past.training_records("mallory", 1)})


def next_rounds(site, honest, reply):
    """The sum of another round, and says so."""
    del reply
    past = elsewhere(site)
    past.sums[1], past.links[1:] = honest, site.past().links[1:2]
    return past.until(3)[2]


def next_rounds_renamed(site, honest, reply):
    total = decode_sum(next_rounds(site, honest, reply))
    return encode_sum(Sum(RUN, 1, total.groups))


def another_runs(site, honest, reply):
    del honest, reply
    return elsewhere(site, run="run-2").until(2)[1]


def another_runs_renamed(site, honest, reply):
    total = decode_sum(another_runs(site, honest, reply))
    return encode_sum(Sum(RUN, 1, total.groups))


def another_historys(site, honest, reply):
    """Of the same sites, run and round, that began elsewhere."""
    del honest, reply
    return elsewhere(site, start="ab" * 32).until(2)[1]


def another_rosters(site, honest, reply):
    """Of sites that were told of other sites."""
    del honest, reply
    roster = roster_of("north", "ab" * 32)
    return Past(site.plan, RUN, roster, site.key).until(2)[1]


def another_keys(site, honest, reply):
    """Of somebody who knows everything but the federation key."""
    del honest, reply
    return elsewhere(site, key=FederationKey(bytes(16))).until(2)[1]


def bent_summand(name, change):
    """A sum whose tags hold, of an update that is not of the plan's form."""

    def make(site, honest, reply):
        del honest, reply
        past = elsewhere(site)
        sent = {}
        for other in OTHERS:
            update, sketch = past.training_records(other, 1)
            records = {UPDATE: update, SKETCH: sketch}
            kind = SKETCH if name == "table" else UPDATE
            arrays = dict(records[kind].arrays)
            arrays[name] = change(arrays[name])
            records[kind] = Envelope(records[kind].record, arrays)
            sent[other] = list(records.values())
        return past.add(sent)

    return make


def as_floats(site, honest, reply):
    """Weights in place of whole numbers, not all of them finite."""
    del site, reply
    metadata, arrays = unpack(honest)
    name = f"{UPDATE}/fc1.bias"
    return pack(metadata, arrays | {name: np.full(arrays[name].shape, np.nan, np.float32)})


def one_more_array(site, honest, reply):
    del site, reply
    metadata, arrays = unpack(honest)
    return pack(metadata, arrays | {"weights": np.zeros(4, np.int64)})


FORGERIES = {
    "altered": altered,
    "altered table": altered_table,
    "one sample more": one_sample_more,
    "one key fewer": one_key_fewer,
    "a doubled site": doubled,
    "alone as everybody": alone_as_everybody,
    "alone": alone,
    "a missing site": fewer_than_named,
    "a site that is not named": fewer_named,
    "records of other sets": other_sets,
    "without the table": without_table,
    "with pixels": with_pixels,
    "with a stranger": with_a_stranger,
    "another round's": next_rounds,
    "another round's, renamed": next_rounds_renamed,
    "another run's": another_runs,
    "another run's, renamed": another_runs_renamed,
    "another history's": another_historys,
    "another roster's": another_rosters,
    "another key's": another_keys,
    "another network's": bent_summand("fc1.bias", lambda a: a[:-1]),
    "another shape's": bent_summand("fc1.weight", np.transpose),
    "a table of another shape": bent_summand("table", lambda a: a[:, :-1]),
    "no whole numbers": as_floats,
    "one more array": one_more_array,
    "not a sum": lambda *_: b"junk",
    "nothing": lambda *_: b"",
}
