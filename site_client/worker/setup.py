"""Everything a worker needs before it can answer: keys, what is expected, a study for a plan.

Shared by the loop and by ``dry_run``, so that a rehearsal is measured by exactly
what an answer would be measured by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey, SigningKey, read_public_key, read_signing_key
from common.crypto.keyed import FederationKey
from common.errors import InputDataError
from common.keys.pixel_agreement import family
from common.model import shared_shapes
from common.plan import FederationPlan
from common.sketching import SketchSpec
from common.wire.orders import Order
from site_client.agent.keys import experience_codec
from site_client.egress.gate import SiteExpected
from site_client.egress.policy import Policy
from site_client.heldout.parts import Parts
from site_client.keys.ring import KeyRing
from site_client.site import SiteFolder
from site_client.worker.embedding import EmbedStudy
from site_client.worker.experience import public_key_id, sketch_secret
from site_client.worker.noop import NoOpStudy
from site_client.worker.pixels import PixelStudy
from site_client.worker.study import Study, Subject
from site_client.worker.training import TrainingStudy

if TYPE_CHECKING:
    from site_client.agent.learner import Watch
    from site_client.worker.site_cases import SiteCases

LOG = logging.getLogger("cairn.worker")
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many); may raise ``StoppedError``."""


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


def codec_identity(order: Order) -> str:
    """Name the codec that the records of an order's answer must name."""
    plan = order.plan
    match plan.kind:
        case "pixels":
            text = order.header.codec
            return family(plan) if text is None else sha256_hex(text.encode("utf-8"))
        case "embed":
            return plan.embed.codec
        case "training" | "no-op":
            return experience_codec(plan).identity


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
        codec=codec_identity(order),
        public_key_id=public_key_id(),
        samples=order.samples_of(site),
    )


def sketch_spec(plan: FederationPlan, key: FederationKey | None) -> SketchSpec:
    """Dimensions and key of a plan's sketches.

    Raises:
        InputDataError: the plan asks for a secret key and the site has none.
    """
    secret = sketch_secret(plan, key)
    match plan.kind:
        case "training" | "no-op":
            cells, identity = plan.experience, experience_codec(plan).identity
            return SketchSpec(cells.rows, cells.columns, secret, domain=identity)
        case "pixels":
            section = plan.pixels
            return SketchSpec(section.rows, section.columns, secret, domain=family(plan))
        case "embed":  # nothing is sketched; the key names the federation
            return SketchSpec(rows=1, columns=1, key=secret, domain=plan.embed.codec)


def make_study(
    order: Order,
    site: str,
    key: FederationKey | None,
    data: Path,
    parts: Parts,
    progress: Progress | None = None,
    folder: Path | None = None,
    watch: Watch | None = None,
    data_file: Path | None = None,
) -> Study:
    """Make a fresh study; for a training plan this reads every image.

    Args:
        order: any of the run's.
        site: our name.
        key: the federation's.
        data: folder of images.
        parts: which of its cases are not trained on; so many images as its floor must be
            left to train on.
        progress: told what is being done.
        folder: folder of the worker for what a study leaves at the site; None in a rehearsal.
        watch: shown the transitions of every gradient step; None but in a rehearsal.
        data_file: how what is known of the images is read, if the site says so.

    Raises:
        InputDataError: the images, the landmarks, the memory of who is held out, or the
            federation key cannot be used.
    """
    plan = order.plan
    spec = sketch_spec(plan, key)
    subject = Subject(site, order.header.run, plan, spec, order.samples_of(site))
    if plan.kind == "no-op":
        return NoOpStudy(subject, data)
    if plan.kind == "pixels":
        return PixelStudy(subject, data, folder, progress)
    if plan.kind == "embed":
        return EmbedStudy(subject, data, folder, progress)
    cases, held_out = _read_parts(plan, data, parts, progress or _silent, data_file)
    return TrainingStudy(subject, cases, _named(progress, "training"), watch, held_out)


def _read_parts(
    plan: FederationPlan, data: Path, parts: Parts, progress: Progress, data_file: Path | None
) -> tuple[SiteCases, SiteCases | None]:
    """Read every case; those to train on, and the held-out ones whose errors may be told.

    Nobody is chosen before all images could be read: who is chosen is remembered.
    """
    from site_client.worker.site_cases import read_site_cases

    cases = read_site_cases(data, plan, progress, settings=data_file, least=parts.least)
    names = cases.names
    division = parts.divide(names)
    LOG.info("held out: %s", division.says)
    training = [number for number, name in enumerate(names) if name not in division.held_out]
    held_out = [number for number, name in enumerate(names) if name in division.held_out]
    if held_out and len(training) < parts.least:
        raise InputDataError(
            "too few images are left to train on",
            field=str(data),
            expected=f"at least {parts.least} that are not held out",
            got=str(len(training)),
            advice="Add scans, or hold fewer subjects out in policy.toml",
        )
    least = max(parts.least, plan.limits.min_images)
    trained = cases.part(training).with_enough_of_each(least)
    if not held_out:
        return trained, None
    try:
        apart = cases.part(held_out).with_enough_of_each(least)
    except InputDataError:  # of no label are there enough
        apart = cases.part([])
    if len(apart) < least:
        LOG.warning("no held-out errors are told: they would rest on fewer than %d images", least)
        return trained, None
    return trained, apart


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
