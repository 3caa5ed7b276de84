"""The sections of ``policy.toml``, and reading it.

An unknown key is an error, never a default. ``[bounds]``, ``[budget]``, ``[peers]``,
``[held_out]``, ``[receipts]``, ``[witnesses]`` and ``[retention]`` may be left out, as a whole
or by key: what is left out has the safe value that the default file writes. Values only; what
they forbid is decided in ``bounds``, ``site_client.egress.gate``,
``site_client.egress.history`` and ``site_client.witnesses.rule``.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.arrivals.files import read_bounded
from common.arrivals.texts import MOST_TEXT_BYTES, toml_of
from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import InputDataError, VerificationError
from common.plan import Kind
from common.policy.ranges import Bounds, Budget
from common.settings import Frozen, LandmarkName, TaskName, describe_validation
from common.wire.records import Digest, SiteName

RecordName = Literal[
    "ModelUpdate",
    "SketchTable",
    "ErrorTables",
    "RoundReport",
    "PixelStatistics",
    "PixelSketches",
    "HeavyHitters",
    "GroupCounts",
]
Bytes = Annotated[int, Field(ge=1, lt=2**53)]


class Records(Frozen):
    """``[records]``: what kinds of record may leave at all."""

    allowed: Annotated[tuple[RecordName, ...], Field(min_length=1, strict=False)]


class ByteCaps(Frozen):
    """``[bytes]``: envelope bytes that may leave, whatever the plan says."""

    per_round: Bytes
    per_run: Bytes

    @model_validator(mode="after")
    def _run_holds_a_round(self) -> Self:
        if self.per_run < self.per_round:
            raise ValueError("per_run must be at least per_round")
        return self


class Floors(Frozen):
    """``[floors]``: the least that must stand behind a release; the stricter of plan and site."""

    images: Annotated[int, Field(ge=1)]
    transitions: Annotated[int, Field(ge=1)]
    sketch_fill: Annotated[float, Field(ge=0, le=1)]


class Privacy(Frozen):
    """``[privacy]``: tier 0 lets anybody query a sketch, tier 1 only holders of the key."""

    least_tier: Annotated[int, Field(ge=0, le=1)]


class PixelBounds(Frozen):
    """``[pixels]``: bounds on plans about slides; without this section none is served.

    Attributes:
        slides, pixels: least that must stand behind a record; the stricter of plan and site.
        key_pixels, key_sites: a plan that lets rarer keys be named is refused, for other
            sites would name them.
        group_pixels: a plan that lets smaller groups be counted is refused.
    """

    slides: Annotated[int, Field(ge=1)]
    pixels: Annotated[int, Field(ge=1)]
    key_pixels: Annotated[int, Field(ge=2)]
    key_sites: Annotated[int, Field(ge=2)]
    group_pixels: Annotated[int, Field(ge=1)]


class KeySharing(Frozen):
    """``[keys]``: how the federation key may travel by way of the aggregator.

    Attributes:
        share: ``listed``: to and from the sites that a person here has confirmed, and those
            in ``peers``; ``admitted``: to and from every site that the aggregator names as
            admitted; ``never``: a person carries it.
        peers: fingerprint of the ledger key of each further site.
    """

    share: Literal["admitted", "listed", "never"]
    peers: Annotated[dict[SiteName, Digest], Field(max_length=256)] = {}  # noqa: RUF012

    @model_validator(mode="after")
    def _a_list_that_counts(self) -> Self:
        if self.peers and self.share != "listed":
            raise ValueError('peers count only with share = "listed"')
        return self

    def allows(self, site: str, fingerprint: str, confirmed: Mapping[str, str]) -> bool:
        """Tell whether the key may go to, or come from, the site with this ledger key.

        Args:
            site: its name.
            fingerprint: of the ledger key that it shows.
            confirmed: fingerprint by name, as people of this site confirmed them. Where the
                policy names another key than they did, nobody is that site.
        """
        match self.share:
            case "admitted":
                return True
            case "listed":
                named = {names[site] for names in (self.peers, confirmed) if site in names}
                return named == {fingerprint}
            case "never":
                return False


class Peers(Frozen):
    """``[peers]``: beside whom this site takes part.

    Attributes:
        least_known: of the other sites of a run, how many must be confirmed by a person
            of this site. 0 takes the aggregator's word for who takes part.
        least_in_sum: how many confirmed others must stand behind every sum.
    """

    least_known: Annotated[int, Field(ge=0, le=1000)] = 2
    least_in_sum: Annotated[int, Field(ge=0, le=1000)] = 1


class Plans(Frozen):
    """``[plans]``: which plans may be served; ``any`` must be said, an empty list allows none.

    Attributes:
        approval: ``each``: a person approves every plan; ``bounded``: plans within the
            bounds of this file are served without one.
        start_models: digests of weights that a plan may start from, beside the models
            that this site has computed itself.
    """

    kinds: Annotated[tuple[Kind, ...], Field(strict=False)]
    tasks: Annotated[tuple[TaskName, ...], Field(strict=False)]
    landmarks: Literal["any"] | Annotated[tuple[LandmarkName, ...], Field(strict=False)]
    fingerprints: Literal["any"] | Annotated[tuple[Digest, ...], Field(strict=False)]
    approval: Literal["each", "bounded"] = "each"
    start_models: Annotated[tuple[Digest, ...], Field(max_length=256, strict=False)] = ()


class HeldOut(Frozen):
    """``[held_out]``: which subjects are kept out of training; no plan can ask for others.

    Attributes:
        share: of the subjects, chosen at random, once.
        subjects: not empty: exactly these instead.
        subject: regular expression that says a case's subject; empty for BIDS's ``sub-…``,
            or else the whole name.
    """

    share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    subjects: Annotated[tuple[str, ...], Field(strict=False)] = ()
    subject: str = ""

    def without_names(self) -> HeldOut:
        """Return as many subjects, by number, and not how their names are formed."""
        numbers = tuple(str(number) for number in range(1, len(self.subjects) + 1))
        return HeldOut(share=self.share, subjects=numbers, subject=self.subject and "its own")


class Witnesses(Frozen):
    """``[witnesses]``: what third witnesses do to releases; those in site.toml, if any.

    Attributes:
        contradicted: when a witness says that it has seen another history: ``stop``
            releases, stop only if that is ``proven`` by our own signature, or ``tell``.
        unwitnessed: releases stop when so many wait for a quorum; 0: they never do.
    """

    contradicted: Literal["stop", "proven", "tell"] = "stop"
    unwitnessed: Annotated[int, Field(ge=0, le=100_000)] = 100


class Receipts(Frozen):
    """``[receipts]``: how long the aggregator may withhold its cosignature.

    Attributes:
        due_within: answers that may leave without a receipt for any of them; then nothing
            but the number of that refusal leaves, until a receipt comes. Its proof is what
            the aggregator needs to write one.
    """

    due_within: Annotated[int, Field(ge=1, le=1000)] = 8


class Retention(Frozen):
    """``[retention]``: how long the archive keeps what was released.

    Attributes:
        payload_days: days after its last release that a payload is kept; then an EXPIRE
            record says so, and it is deleted. 0 keeps it for ever. Records, orders, plans
            and policies are kept.
    """

    payload_days: Annotated[int, Field(ge=0, le=36_500)] = 400


class Policy(Frozen):
    """One site's ``policy.toml``.

    Without ``[pixels]`` no plan about slides is served, without ``[keys]`` no key is shared;
    ``[peers]``, ``[held_out]``, ``[receipts]``, ``[witnesses]``, ``[retention]``, ``[bounds]``
    and ``[budget]`` have safe values; the others must be present.
    """

    version: Literal[1]
    records: Records
    bytes: ByteCaps
    floors: Floors
    privacy: Privacy
    plans: Plans
    pixels: PixelBounds | None = None
    keys: KeySharing | None = None
    peers: Peers = Peers()
    witnesses: Witnesses = Witnesses()
    held_out: HeldOut = HeldOut()
    receipts: Receipts = Receipts()
    retention: Retention = Retention()
    bounds: Bounds = Bounds()
    budget: Budget = Budget()

    @property
    def sharing(self) -> KeySharing:
        """``[keys]``; a policy that does not speak of it shares nothing."""
        return self.keys or KeySharing(share="never")

    @cached_property
    def sha256(self) -> str:
        """Digest of the canonical form: spelling and comments of the file do not matter."""
        return sha256_hex(self.canonical())

    def canonical(self) -> builtins.bytes:
        """Canonical JSON with every default: the text that the ledger's archive keeps.

        A ledger is read outside of the site, and says of nobody that they were its patient:
        subjects who are held out are numbered, and the form of their names is left out.
        """
        nameless = self.model_copy(update={"held_out": self.held_out.without_names()})
        return canonical_json(nameless.model_dump(mode="json", exclude_none=True))


def parse_policy(data: bytes) -> Policy:
    """Read what ``Policy.canonical`` made.

    Raises:
        VerificationError: anything else, or a policy of another release.
    """
    try:
        policy = Policy.model_validate(parse_canonical_json(data, "policy"))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise VerificationError(
            "an archived policy is not valid", field=field, expected=expected, got=got
        ) from error
    if policy.canonical() != data:
        raise VerificationError(
            "an archived policy is not whole", expected="its canonical form", got="another"
        )
    return policy


@lru_cache(maxsize=4)
def _policy_of(text: builtins.bytes) -> Policy:
    """Validate a policy's words; three places ask for the same ones in every round."""
    return Policy.model_validate(toml_of(text))


def read_policy(path: Path) -> Policy:
    """Read and validate ``policy.toml``.

    Raises:
        InputDataError: missing, not TOML, or an unknown, absent or wrong field.
    """
    try:
        return _policy_of(read_bounded(path, MOST_TEXT_BYTES, "policy.toml"))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the site's policy is not valid",
            field=field,
            expected=expected,
            got=got,
            advice=f"Correct {path.name}; nothing is released until then",
        ) from error
    except (OSError, ValueError) as error:
        raise InputDataError(
            "cannot read the site's policy",
            field=str(path),
            got=type(error).__name__,
            advice="Restore it, or take the default that `cairn-site join` writes",
        ) from error
