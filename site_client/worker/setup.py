"""Everything a worker needs before it can answer: keys, the gate's context, a study for a plan.

Shared by the loop and by ``dry_run``, so that a rehearsal is measured by exactly
what an answer would be measured by.
"""

from __future__ import annotations

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
from common.schedule import Phase
from common.sketching import SketchSpec
from site_client.agent.keys import experience_codec
from site_client.egress.gate import Context
from site_client.egress.policy import Policy
from site_client.keys.ring import KeyRing
from site_client.site import SiteFolder
from site_client.worker.embedding import EmbedStudy
from site_client.worker.experience import (
    experience_spec,
    public_key_id,
    sketch_secret,
)
from site_client.worker.noop import NoOpStudy
from site_client.worker.pixels import PixelStudy
from site_client.worker.study import Study, Subject
from site_client.worker.training import TrainingStudy

if TYPE_CHECKING:
    from site_client.agent.learner import Watch

_PIXELS = "pixel sketch"
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


@dataclass(frozen=True)
class OrderTerms:
    """The words of an order that decide what its answer is measured by.

    Attributes:
        codec: canonical JSON of the codec of pixels that the order carries, or None.
        samples: most that this site may count as, by the order's roster.
    """

    site: str
    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    codec: str | None = None
    samples: int = 1_000_000

    @property
    def identity(self) -> str:
        """The codec that the answer's records must name."""
        match self.plan.kind:
            case "pixels":
                text = self.codec
                return family(self.plan) if text is None else sha256_hex(text.encode("utf-8"))
            case "embed":
                return self.plan.embed.codec
            case "training" | "no-op":
                return experience_codec(self.plan).identity


def make_context(terms: OrderTerms, policy: Policy, key: FederationKey | None) -> Context:
    """Collect what the gate measures an answer against.

    A site that lacks the key has no key id, so that no sketch of its can pass; its
    number still can.
    """
    try:
        key_id = sketch_spec(terms.plan, key).key_id
    except InputDataError:
        key_id = ""
    return Context(
        site=terms.site,
        run=terms.run,
        round=terms.round,
        phase=terms.phase,
        plan=terms.plan,
        policy=policy,
        shapes=shared_shapes(terms.plan) if terms.plan.trains else {},
        key_id=key_id,
        codec=terms.identity,
        public_key_id=public_key_id(),
        samples=terms.samples,
    )


def sketch_spec(plan: FederationPlan, key: FederationKey | None) -> SketchSpec:
    """Dimensions and key of a plan's sketches.

    Raises:
        InputDataError: the plan asks for a secret key and the site has none.
    """
    match plan.kind:
        case "training" | "no-op":
            return experience_spec(plan, key)
        case "pixels":
            section, secret = plan.pixels, sketch_secret(plan, key, _PIXELS)
            return SketchSpec(section.rows, section.columns, secret, domain=family(plan))
        case "embed":  # nothing is sketched; the key names the federation
            secret = sketch_secret(plan, key, _PIXELS)
            return SketchSpec(rows=1, columns=1, key=secret, domain=plan.embed.codec)


def make_study(
    terms: OrderTerms,
    key: FederationKey | None,
    data: Path,
    progress: Progress | None = None,
    folder: Path | None = None,
    watch: Watch | None = None,
    least: int = 1,
    data_file: Path | None = None,
) -> Study:
    """Make a fresh study; for a training plan this reads every image.

    Args:
        terms: what the order is about.
        key: the federation's.
        data: folder of images.
        progress: told what is being done.
        folder: folder of the worker for what a study leaves at the site; None in a rehearsal.
        watch: shown the transitions of every gradient step; None but in a rehearsal.
        data_file: how what is known of the images is read, if the site says so.
        least: labelled images that must be left where others are left out.

    Raises:
        InputDataError: the images, the landmarks or the federation key cannot be used.
    """
    spec = sketch_spec(terms.plan, key)
    subject = Subject(terms.site, terms.run, terms.plan, spec, terms.samples)
    if terms.plan.kind == "no-op":
        return NoOpStudy(subject, data)
    if terms.plan.kind == "pixels":
        return PixelStudy(subject, data, folder, progress)
    if terms.plan.kind == "embed":
        return EmbedStudy(subject, data, folder, progress)
    from site_client.worker.site_cases import read_site_cases

    cases = read_site_cases(
        data,
        terms.plan,
        progress or _silent,
        settings=data_file,
        least=least,
    )
    return TrainingStudy(subject, cases, _named(progress, "training"), watch)


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
