"""An honest aggregator and two other hospitals, for the tests of one site.

``Past`` makes the sums that an order of a later round needs, under the real federation
key, out of what the made-up sites ``east`` and ``west`` send; a test may say what they
sent, the site's own records among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.keys.pixel_agreement import family
from common.model import initial_weights, weight_shapes, weights_digest
from common.plan import FederationPlan
from common.schedule import schedule
from common.sums.addition import add_records, encode_sum, sum_digest
from common.sums.chain import first_link, next_link
from common.wire.envelope import Envelope
from common.wire.orders import RosterEntry
from common.wire.records import ErrorTables, ModelUpdate, SketchTable
from common.wire.rules import SUMMED, summed_of
from site_client.worker.tagging import tagged

OTHERS = ("east", "west")
SAMPLES = 1000


def ledger_key_of(site: str) -> SigningKey:
    """The ledger key of a made-up site; the same in every test."""
    return SigningKey.from_seed(site.encode().ljust(32, b"."))


def roster_of(site: str, ledger_key: str, others: Iterable[str] = OTHERS) -> list[RosterEntry]:
    """A run's sites: the real one, and made-up ones."""
    keys = {name: ledger_key_of(name).public.fingerprint for name in others}
    return [
        RosterEntry(site=name, ledger_key=key, samples=SAMPLES)
        for name, key in sorted((keys | {site: ledger_key}).items())
    ]


def as_if_of(site: str, envelopes: Iterable[Envelope]) -> list[Envelope]:
    """The same records as another site would send them; without tags that would hold."""
    return [Envelope(e.record.model_copy(update={"site": site}), e.arrays) for e in envelopes]


class Past:
    """The sums of one run, as far as a test needs them.

    Args:
        plan, run, roster: of the run.
        key: of the federation.
        start: digest of what the run starts from; default: the plan's own start.
    """

    def __init__(
        self,
        plan: FederationPlan,
        run: str,
        roster: list[RosterEntry],
        key: FederationKey,
        start: str = "",
    ) -> None:
        self.plan, self.run, self.key = plan, run, key
        if not start and plan.kind in ("training", "no-op"):
            start = weights_digest(initial_weights(plan))
        if not start:
            start = plan.embed.codec if plan.kind == "embed" else family(plan)
        self.links = [first_link(run, plan.fingerprint, roster, start)]
        self.sums: dict[int, bytes] = {}

    def add(self, answers: Mapping[str, Iterable[Envelope]]) -> bytes:
        """The next round's sum, of these records; tags are made here."""
        round_, link = len(self.links), self.links[-1]
        kinds = {kind.__name__ for kind in summed_of(self.plan, schedule(self.plan)[round_])}
        told = {
            site: tagged((e for e in es if e.record.record_type in kinds), self.key, link)
            for site, es in answers.items()
        }
        data = encode_sum(add_records(self.run, round_, told))
        self.sums[round_] = data
        self.links.append(next_link(link, sum_digest(data)))
        return data

    def until(self, round_: int) -> dict[int, bytes]:
        """The sums before ``round_``; what no test has said comes from the made-up sites."""
        phases = schedule(self.plan)
        wanted = sum(phase in SUMMED for phase in phases[:round_])
        while len(self.links) <= wanted:
            number = len(self.links)
            self.add({site: self.training_records(site, number) for site in OTHERS})
        return {number: self.sums[number] for number in range(1, wanted + 1)}

    def training_records(self, site: str, round_: int, scale: int = 3000) -> list[Envelope]:
        """A small random step of the model and a few counts."""
        rng = np.random.default_rng([round_, *site.encode()])
        common = {
            "plan_fingerprint": self.plan.fingerprint,
            "site": site,
            "run": self.run,
            "round": round_,
        }
        update = ModelUpdate(**common, images=3, samples=3, transitions=200, updates=10)
        arrays = {
            name: rng.integers(-scale, scale + 1, shape).astype(np.int32)
            for name, shape in weight_shapes(self.plan).items()
        }
        if self.plan.counts is None:
            return [Envelope(update, arrays)]
        cells = self.plan.experience
        shape = (cells.rows, cells.columns)
        form = {"rows": shape[0], "columns": shape[1], "key_id": self.key.key_id}
        about = common | form | {"codec": "0" * 64, "total": 200}
        table = rng.integers(-3, 4, shape).astype(np.int64)
        if self.plan.counts == "experience":
            return [Envelope(update, arrays), Envelope(SketchTable(**about), {"table": table})]
        tables = {"replays": table, "errors": rng.integers(-14, 15, shape).astype(np.int64)}
        return [
            Envelope(update, arrays),
            Envelope(ErrorTables(**about, errors=900), tables),
        ]
