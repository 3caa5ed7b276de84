"""Everything a worker needs before it can answer: keys, what is expected, a study for a plan.

Shared by the loop and by ``dry_run``, so that a rehearsal is measured by exactly
what an answer would be measured by.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.crypto.identity import PublicKey, SigningKey, read_public_key, read_signing_key
from common.crypto.keyed import FederationKey
from common.errors import InputDataError
from common.model import shared_shapes
from common.plan import FederationPlan
from common.policy import Policy
from common.sketching import SketchSpec
from common.wire.orders import Order
from site_client.egress.gate import SiteExpected
from site_client.keys.ring import KeyRing
from site_client.site import SiteFolder
from site_client.worker.experience import public_key_id, sketch_secret
from site_client.worker.study import Given, Study, Subject, room_of


@dataclass(frozen=True)
class Keys:
    """The worker's keys beside the federation's; the ledger key never leaves it."""

    ledger: SigningKey
    witness: PublicKey


def read_keys(site: SiteFolder) -> Keys:
    """Return the keys in ``worker/``.

    Raises:
        InputDataError: absent, malformed, or open to others.
    """
    return Keys(
        ledger=read_signing_key(site.ledger_key),
        witness=read_public_key(site.witness_key),
    )


def read_shared_key(site: SiteFolder) -> FederationKey | None:
    """Return the newest federation key, or None where none has come yet.

    Raises:
        InputDataError: malformed, or open to others.
    """
    newest = KeyRing(site).newest()
    return None if newest is None else newest.key


def expect(order: Order, site: str, policy: Policy, key: FederationKey | None) -> SiteExpected:
    """Collect what the gate measures an answer against.

    A site that lacks the key has no key id, so that no sketch of its can pass; its
    number still can.
    """
    header, plan = order.header, order.plan
    try:
        key_id = sketch_spec(plan, key).key_id
    except InputDataError:
        key_id = ""
    return SiteExpected(
        site=site,
        run=header.run,
        round=header.round,
        phase=header.phase,
        plan=plan,
        policy=policy,
        shapes=shared_shapes(plan) if plan.trains else {},
        key_id=key_id,
        codec=room_of(plan).codec(order),
        public_key_id=public_key_id(),
        samples=order.samples_of(site),
    )


def sketch_spec(plan: FederationPlan, key: FederationKey | None) -> SketchSpec:
    """Dimensions and key of a plan's sketches.

    Raises:
        InputDataError: the plan asks for a secret key and the site has none.
    """
    return room_of(plan).spec(plan, sketch_secret(plan, key))


def make_study(order: Order, site: str, key: FederationKey | None, given: Given) -> Study:
    """Make a fresh study; for a training plan this reads every image.

    Args:
        order: any of the run's.
        site: our name.
        key: the federation's.
        given: the site's data, and who looks on.

    Raises:
        InputDataError: the images, the landmarks, the memory of who is held out, or the
            federation key cannot be used.
    """
    plan = order.plan
    spec = sketch_spec(plan, key)
    subject = Subject(site, order.header.run, plan, spec, order.samples_of(site))
    return room_of(plan).make(subject, given)
