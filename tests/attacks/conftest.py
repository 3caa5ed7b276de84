"""One hospital as it is after `join`, its default policy untouched, and an aggregator that lies.

The liar has what an aggregator has: the witness key, every order and every answer, public
keys, and no federation key. ``Liar.ask`` puts an order into the site's inbox and returns
the number that came back, with what was released.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from common.crypto.identity import SigningKey, read_signing_key
from common.crypto.keyed import FederationKey
from common.plan import FederationPlan, parse_plan
from common.sums.addition import sum_digest
from common.wire import parcel
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope, decode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, RosterEntry, encode_order
from common.wire.transport import sum_part
from site_client.decisions.making import Decision, decide
from site_client.egress.policy import default_policy_text
from site_client.join import join
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.loop import Worker
from tests.aggregated import Past, ledger_key_of, roster_of
from tests.conftest import FEDERATION_KEY, write_case

OTHERS = ("east", "west")

HONEST_PLAN = {
    "name": "study",
    "seed": 5,
    "task": {"landmarks": ["A", "B"], "roi": 13},
    "ladder": {"scales": [2.0, 1.0], "steps_mm": [4.0, 1.0]},
    "network": {"width": 4},
    "learner": {
        "searches": 12,
        "episode_steps": 8,
        "updates": 40,
        "batch": 16,
        "warmup": 160,
        "replay_capacity": 1000,
        "replay": "rare-first",
    },
    "pose": {"shift_mm": 4.0},
    "evaluation": {"starts": 2},
    "experience": {"rows": 3, "columns": 64, "position_bins": 8},
    "rounds": {"training": 4},
}


def plan_of(**changes: object) -> FederationPlan:
    """The honest plan with sections changed or added to."""
    merged: dict[str, object] = {**HONEST_PLAN}
    for name, value in changes.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = {**before, **value} if both else value
    return parse_plan(merged)


@dataclass
class Heard:
    """What an aggregator hears of an order.

    Attributes:
        code: the number; None when nothing came at all.
        released: envelopes by record type.
    """

    code: ReplyCode | None
    released: dict[str, Envelope]


@dataclass
class Liar:
    """An aggregator without the federation key, and one hospital that it may ask anything."""

    site: SiteFolder
    witness: SigningKey
    answers: list[Heard] = field(default_factory=list)

    @property
    def own_key(self) -> str:
        return read_signing_key(self.site.ledger_key).public.fingerprint

    @property
    def roster(self) -> list[RosterEntry]:
        """The run's sites as an honest aggregator would name them."""
        return roster_of("north", self.own_key, OTHERS)

    def ask(
        self,
        plan: FederationPlan,
        round_: int = 0,
        phase: str = "begin",
        *,
        run: str = "run-1",
        sums: Mapping[int, bytes] | None = None,
        roster: Iterable[RosterEntry] | None = None,
        codec: str | None = None,
        deadline_s: int = 60,
        **parts: bytes,
    ) -> Heard:
        """One order, signed as the aggregator's always are."""
        sums = dict(sums or {})
        header = OrderHeader(
            run=run,
            round=round_,
            phase=phase,
            plan=plan.canonical().decode(),
            deadline_s=deadline_s,
            roster=tuple(self.roster if roster is None else roster),
            sum=sum_digest(sums[max(sums)]) if sums else None,
            codec=codec,
        )
        body = encode_order(header)
        return self.send(
            {"order": body, "signature": self.witness.sign(SIGNATURE_CONTEXT + body)}
            | {sum_part(number): data for number, data in sums.items()}
            | parts
        )

    def send(self, parts: Mapping[str, bytes]) -> Heard:
        """Any parcel at all."""
        spool = Spool(self.site.spool)
        digest = spool.put_order(parcel.wrap(parts))
        with Worker(self.site, threading.Event()) as worker:
            while worker.turn():
                continue
        reply = spool.read_reply(digest)
        if reply is None:
            return Heard(None, {})
        released = {
            name.removesuffix(".envelope"): decode(data)
            for name, data in parcel.unwrap(reply).items()
            if name.endswith(".envelope")
        }
        heard = Heard(released["RoundReport"].record.code, released)
        self.answers.append(heard)
        return heard

    def records(self) -> list[dict[str, object]]:
        """The site's ledger, as its auditor reads it."""
        from common.ledger.layout import Layout
        from common.ledger.records import parse_record

        lines = Layout(self.site.ledger).log.read_bytes().splitlines()
        return [parse_record(line).model_dump() for line in lines]

    def got_nothing(self) -> bool:
        """Whether no update, table, statistics or keys ever left the site."""
        kinds = {r["record_type"] for r in self.records() if r["event"] == "SEND"}
        return kinds <= {"RoundReport"}


def make_past(liar: Liar, plan: FederationPlan, run: str = "run-1") -> Past:
    """What honest sites came to: the liar sees every byte of it, and did not make a tag."""
    return Past(plan, run, liar.roster, FEDERATION_KEY)


def forge(data: bytes, change) -> bytes:
    """The bytes of a sum with ``change`` made to its arrays, the tags left as they were."""
    from common.wire.envelope import pack, unpack

    metadata, arrays = unpack(data)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    change(arrays)
    return pack(metadata, arrays)


@pytest.fixture
def hospital(tmp_path, invite_and_witness) -> Liar:
    """Joined, with three scans and the default policy; nobody has decided anything."""
    invite, witness = invite_and_witness
    data = tmp_path / "images"
    for number in range(3):
        write_case(data, f"case-{number}", number)
    folder = SiteFolder(tmp_path / "site")
    join(invite, folder, data, FEDERATION_KEY)
    assert folder.policy_file.read_text() == default_policy_text()
    return Liar(folder, witness)


def confirm(liar: Liar, *names: str) -> None:
    """The hospital's staff have telephoned these sites."""
    decide(
        liar.site,
        [
            Decision.made(
                event="CONFIRM",
                person="Ada",
                peer=name,
                peer_key=ledger_key_of(name).public.fingerprint,
            )
            for name in names
        ],
    )


def approve(liar: Liar, plan: FederationPlan) -> None:
    """They have read a plan and approved it."""
    words = {"event": "APPROVE", "person": "Ada", "plan_fingerprint": plan.fingerprint}
    decide(liar.site, [Decision.made(**words)])


@pytest.fixture
def trusting(hospital) -> Liar:
    """The same once its staff have confirmed both other sites, and approved the honest plan."""
    confirm(hospital, *OTHERS)
    approve(hospital, plan_of())
    return hospital


@pytest.fixture
def federation_key() -> FederationKey:
    return FEDERATION_KEY
