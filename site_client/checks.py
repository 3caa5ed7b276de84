"""Facts about a site's readiness. One per line, each with what to do about it.

Reads only: no key is made, no record written, and unless the data are asked for
(``review_data``) no image opened beyond its landmark file. The server is asked for
its certificate, its clock, and whether it still admits this site.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.x509 import Certificate

from common.cli import counted, megabytes
from common.crypto.certificates import (
    certificate_fingerprint,
    read_certificate,
    read_node_key,
)
from common.crypto.identity import read_public_key, read_signing_key
from common.errors import CairnError, ExitCode, InputDataError, UnreachableError, UsageError
from common.extras import missing_extra
from common.ledger.layout import Layout
from common.ledger.notes import ledger_origin
from common.ledger.verify import verify_ledger
from common.plan import FederationPlan
from common.policy import check_plan, read_policy
from common.wire.pixel_rules import most_bytes
from site_client.budget import budget_fact
from site_client.confinement import confinement_facts, look, role, wall_facts
from site_client.facts import Fact, Level
from site_client.keys.directory import lost_promises, read_directory
from site_client.keys.ring import KeyRing
from site_client.keys.state import read_key_state
from site_client.plans.facts import approval_fact, waiting_fact
from site_client.probe import LARGEST_SKEW_S, probe
from site_client.site import SiteFolder
from site_client.trouble import trouble_fact
from site_client.witnesses.standing import witness_fact

if TYPE_CHECKING:
    from site_client.data_check.review import Progress, Review

LEAST_ROOM = 500_000_000
DAYS_TO_WARN = 60


def check_site(site: SiteFolder, plan: FederationPlan | None = None) -> Iterator[Fact]:
    """Every fact about a site, in the order in which a person would mend them.

    In a container only what that container has is looked at.

    Args:
        site: its folder.
        plan: also say whether this plan could be served, and how much it may send.
    """
    who = role()
    looks: dict[str, Callable[[SiteFolder], Fact]] = {"settings": _settings}
    if who != "courier":
        looks |= {
            "policy": _policy,
            "ledger key": _ledger_key,
            "witness key": _witness,
            "federation key": _federation_key,
            "peers": _peers,
            "images": _images,
            "held out": lambda folder: _held_out(folder, plan),
            "data": trouble_fact,
            "ledger": _ledger,
            "witnesses": witness_fact,
            "budget": lambda folder: budget_fact(folder, datetime.now(UTC)),
            "plans": waiting_fact,
        }
        if plan is not None:
            looks["plan"] = lambda folder: _plan(folder, plan)
            looks["approval"] = lambda folder: approval_fact(folder, plan)
    if who != "worker":
        looks |= {
            "node key": _node_key,
            "authority": _authority,
            "certificate": _certificate,
            "app": _app,
            "server": _server,
            "admission": _admission,
        }
    looks["disk"] = _disk
    for name, look_at in looks.items():
        try:
            yield look_at(site)
        except ModuleNotFoundError as error:
            missing = missing_extra(error.name or "", "cairn-site")
            if missing is None:
                raise
            yield Fact(name, "warning", f"not looked at: {missing.diagnosis}", missing.advice)
        except CairnError as error:
            yield Fact(name, "bad", error.diagnosis, error.advice, error.exit_code)
            if name == "settings":
                return
    yield from check_confinement(site)


def check_confinement(site: SiteFolder) -> Iterator[Fact]:
    """Look at what the kernel lets this process do, and at nothing else."""
    who = role()
    other = site.courier if who == "worker" else site.worker
    yield from confinement_facts(who, look(site.data(), other=other))
    if who != "courier":
        yield from wall_facts(site)


def _settings(site: SiteFolder) -> Fact:
    settings = site.settings()
    return Fact("settings", "ok", f"{settings.site} of {settings.federation}")


def _policy(site: SiteFolder) -> Fact:
    policy = read_policy(site.policy_file)
    kinds = ", ".join(policy.records.allowed)
    caps = policy.bytes
    return Fact(
        "policy",
        "ok",
        f"allows {kinds}; at most {megabytes(caps.per_round)} a round and "
        f"{megabytes(caps.per_run)} a run (digest {policy.sha256[:12]})",
    )


def _plan(site: SiteFolder, plan: FederationPlan) -> Fact:
    """Say whether the site's policy lets this plan be served, and its largest message."""
    from site_client.worker.study import weights_bytes

    weights = weights_bytes(plan)
    check_plan(read_policy(site.policy_file), plan, weights_bytes=weights)
    if plan.kind == "pixels":
        largest = most_bytes(plan.pixels)
    elif plan.kind == "embed":
        largest = 0
    else:
        largest = max(weights, plan.table_bytes)
    return Fact(
        "plan",
        "ok",
        f"{plan.name} ({plan.kind}) may be served; its largest message is {megabytes(largest)} "
        f"of at most {megabytes(plan.limits.max_envelope_bytes)}",
    )


def _app(site: SiteFolder) -> Fact:
    digest = site.settings().app_sha256
    return Fact("app", "ok", f"only {digest[:16]}… is served; any other is refused and recorded")


def _ledger_key(site: SiteFolder) -> Fact:
    key = read_signing_key(site.ledger_key)
    return Fact("ledger key", "ok", f"fingerprint {key.public.fingerprint}")


def _node_key(site: SiteFolder) -> Fact:
    read_node_key(site.node_key)
    return Fact("node key", "ok", "private to its owner")


def _witness(site: SiteFolder) -> Fact:
    key = read_public_key(site.witness_key)
    return Fact("witness key", "ok", f"fingerprint {key.fingerprint[:16]}")


def _federation_key(site: SiteFolder) -> Fact:
    """Say whether the key is here, which one, who else has it; or what it waits for."""
    held, state = KeyRing(site).newest(), read_key_state(site)
    if state is not None and state.trouble:
        return Fact(
            "federation key",
            "bad",
            f"refused: {state.trouble}",
            "It stands in the ledger; compare key ids and fingerprints with the other sites",
            ExitCode.VERIFICATION_FAILED,
        )
    if held is None:
        says = "not here; plans of privacy tier 1 cannot be served"
        if (
            site.settings().enrolment is None
            or read_policy(site.policy_file).sharing.share == "never"
        ):
            fix = (
                "Get it from another site, never from the aggregator, and save it as "
                f"{site.federation_key} with mode 600"
            )
        elif state is not None and state.person:
            fix = "Then it comes by itself while this site and one that has it are up"
        else:
            fix = "It comes by itself while this site and one that has it are up: cairn-site up"
        waiting = f" (waits for {state.waiting})" if state is not None and state.waiting else ""
        return Fact("federation key", "warning", says + waiting, fix)
    if state is None or state.key_id != held.key.key_id:
        return Fact("federation key", "ok", f"id {held.key.key_id}, brought by hand")
    return Fact("federation key", "ok", state.says)


def _peers(site: SiteFolder) -> Fact:
    """Say whether enough of the other sites are confirmed, and what the policy gives away."""
    directory = read_directory(site)
    if directory.named("changed"):
        failed = ExitCode.VERIFICATION_FAILED
        return Fact("peers", "bad", directory.says, directory.fix, failed)
    lost = lost_promises(directory.policy)
    says = "; ".join([directory.says, *lost])
    stricter = "Unless you mean it, set what policy.toml has by default" if lost else ""
    fix = ". ".join(text for text in (directory.fix, stricter) if text)
    return Fact("peers", "warning" if fix else "ok", says, fix)


def _images(site: SiteFolder) -> Fact:
    """Slides where the policy serves pixels and the folder holds some; scans otherwise."""
    from site_client.worker.slide_folder import find_slides

    try:
        if {"pixels", "embed"} & set(read_policy(site.policy_file).plans.kinds):
            return Fact("images", "ok", f"{len(find_slides(site.data()))} slides")
    except InputDataError:
        # An unreadable policy has a line of its own; a folder without slides may hold scans.
        return _scans(site)
    return _scans(site)


def review_data(
    site: SiteFolder, plan: FederationPlan | None = None, progress: Progress | None = None
) -> Review:
    """Open every image of a site's folder and judge it; what cannot be opened becomes a fault.

    Args:
        site: its folder.
        plan: also compare with what this plan asks for.
        progress: told what is being done.

    Raises:
        InputDataError: not a site folder.
        UsageError: in a courier's container, which sees no image.
    """
    if role() == "courier":
        raise UsageError(
            "the courier sees no image", advice="Look at the data in the worker's container"
        )
    from site_client.data_check.review import Review, empty_review, review_scans
    from site_client.data_check.slides import review_slides
    from site_client.heldout.parts import parts_or_none

    data = site.data()
    wanted = plan.task.landmarks if plan is not None and plan.kind == "training" else ()
    try:
        slides = _slides(site, plan)
        if slides:
            bands = plan.pixels.bands if plan is not None and plan.kind == "pixels" else ()
            return Review(data, slides=review_slides(slides, bands, progress))
        parts = parts_or_none(site)
        held_out = frozenset[str]() if parts is None else parts.held_out
        return replace(review_scans(data, wanted, progress), held_out=held_out)
    except InputDataError as error:
        return empty_review(data, error)


def _slides(site: SiteFolder, plan: FederationPlan | None) -> list[Path]:
    """The slides, where the plan or else the policy is about pixels and there are some."""
    from site_client.worker.slide_folder import find_slides

    try:
        kinds = [plan.kind] if plan is not None else read_policy(site.policy_file).plans.kinds
        return find_slides(site.data()) if {"pixels", "embed"} & set(kinds) else []
    except InputDataError:
        return []


def _scans(site: SiteFolder) -> Fact:
    from site_client.imaging.folders import list_folder, usable_cases
    from site_client.imaging.landmarks import read_landmarks

    try:
        listing = list_folder(site.data())
        cases = usable_cases(listing)
    except InputDataError as error:
        return _labelled_images(site, error)
    names = [set(read_landmarks(landmarks)) for _, _, landmarks in cases]
    everywhere, anywhere = set.intersection(*names), set.union(*names)
    says = f"{len(cases)} scans, {len(everywhere)} landmarks in every one"
    if listing.unlabelled:
        first = ", ".join(name for name, _ in listing.unlabelled[:5])
        more = ", …" if len(listing.unlabelled) > 5 else ""
        says += f"; {len(listing.unlabelled)} without landmarks are left out ({first}{more})"
    if len(cases) < (least := _least_images(site)):
        fix = f"Add scans, or lower floors.images in {site.policy_file}"
        return Fact("images", "warning", f"{says}; nothing leaves below {least} scans", fix)
    if everywhere == anywhere:
        level: Level = "warning" if listing.unlabelled else "ok"
        fix = "Which ones: cairn-site check --data" if listing.unlabelled else ""
        return Fact("images", level, says, fix)
    lacking = [
        f"{case} lacks {len(anywhere - found)}"
        for (case, _, _), found in zip(cases, names, strict=True)
        if found != anywhere
    ]
    return Fact(
        "images",
        "warning",
        f"{says}; {'; '.join(lacking[:5])}" + (" …" if len(lacking) > 5 else ""),
        "A plan can only ask for landmarks that every scan has",
    )


def _labelled_images(site: SiteFolder, error: InputDataError) -> Fact:
    """Count the pictures with landmarks, or the images with boxes, of a folder without scans.

    Raises:
        InputDataError: ``error``, where there are none of these either.
    """
    from site_client.heldout.parts import names_of_site

    try:
        count = len(names_of_site(site))
    except InputDataError:
        raise error from None
    says = counted(count, "labelled image")
    if count < (least := _least_images(site)):
        fix = f"Add images, or lower floors.images in {site.policy_file}"
        return Fact("images", "warning", f"{says}; nothing leaves below {least}", fix)
    return Fact("images", "ok", says)


def _held_out(site: SiteFolder, plan: FederationPlan | None) -> Fact:
    """Say how many subjects are kept out of training, and where that is set.

    Raises:
        InputDataError: the memory of it is lost or damaged, or the setting cannot be kept.
    """
    from site_client.heldout.memory import read_memory
    from site_client.heldout.parts import Parts, names_of_site

    read_memory(site.held_out)
    parts = Parts.of(site, read_policy(site.policy_file))
    try:
        names = names_of_site(site) if plan is None else _names_for(site, plan)
    except InputDataError:  # a folder of slides, or the line above says what is wrong
        return Fact("held out", "ok", "no scans here to hold out of training")
    return Fact("held out", "ok", parts.divide(names).says)


def _names_for(site: SiteFolder, plan: FederationPlan) -> list[str]:
    """Name the images that a plan would train on."""
    from site_client.heldout.parts import names_of_site
    from site_client.worker.site_cases import names_for

    return names_of_site(site, names_for(plan)) if plan.trains else names_of_site(site)


def _least_images(site: SiteFolder) -> int:
    """Read how few images nothing leaves below; an unreadable policy has a line of its own."""
    try:
        return read_policy(site.policy_file).floors.images
    except InputDataError:
        return 1


def _authority(site: SiteFolder) -> Fact:
    certificate = read_certificate(site.authority)
    says = f"fingerprint {certificate_fingerprint(certificate)[:16]}…"
    return _expiry("authority", certificate, says, "Ask the coordinator for a new invite")


def _certificate(site: SiteFolder) -> Fact:
    if not site.has_certificate:
        return Fact("certificate", "ok", "none; this site joined by mail and needs none")
    certificate = read_certificate(site.tls_certificate)
    fact = _expiry("certificate", certificate, "ours", "Renew it: cairn-site renew")
    # What has expired cannot ask for itself.
    again = "Ask the coordinator for a new invite and join with it; the keys stay"
    return replace(fact, fix=again) if fact.level == "bad" else fact


def _expiry(name: str, certificate: Certificate, says: str, fix: str) -> Fact:
    """Say how long a certificate is still good for."""
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    if days < 0:
        says = f"{says}, expired {-days} days ago"
        return Fact(name, "bad", says, fix, ExitCode.VERIFICATION_FAILED)
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    # A short-lived certificate warns in the last third of its life, a long one two months ahead.
    if days < min(DAYS_TO_WARN, span.days / 3):
        return Fact(name, "warning", f"{says}, expires in {days} days", fix)
    return Fact(name, "ok", f"{says}, {days} days left")


def _ledger(site: SiteFolder) -> Fact:
    layout = Layout(site.ledger)
    signed = layout.checkpoint.exists() or layout.receipt_files()
    if not signed and not _size(layout.log):
        # The folder may be there: a full disk can stop the first record, and nothing was signed.
        return Fact("ledger", "ok", "not begun; the worker begins it")
    verdict = verify_ledger(
        site.ledger,
        read_signing_key(site.ledger_key).public,
        read_public_key(site.witness_key),
        expected_origin=ledger_origin(site.settings().site),
    )
    if verdict.broken is not None:
        return Fact(
            "ledger",
            "bad",
            str(verdict.broken),
            "Stop the worker, keep the folder as it is, and call the auditor",
            ExitCode.VERIFICATION_FAILED,
        )
    return Fact(
        "ledger",
        "ok",
        f"{verdict.totals.records} records, chain intact, "
        f"{megabytes(verdict.totals.bytes_out)} out, witnessed to {verdict.witnessed_size}",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _disk(site: SiteFolder) -> Fact:
    room = shutil.disk_usage(site.root).free
    if room < LEAST_ROOM:
        return Fact(
            "disk",
            "bad",
            f"{megabytes(room)} free",
            f"Free some space; without {megabytes(LEAST_ROOM)} the ledger may stop recording",
            ExitCode.BAD_INPUT,
        )
    return Fact("disk", "ok", f"{megabytes(room)} free")


def _server(site: SiteFolder) -> Fact:
    settings = site.settings()
    ahead = probe(settings.address, str(site.authority))
    if ahead is None:
        return Fact("server", "ok", f"{settings.receiver} answers; it does not tell the time")
    if abs(ahead) > LARGEST_SKEW_S:
        return Fact(
            "server",
            "bad",
            f"{settings.receiver} answers, but the clocks differ by {abs(ahead):.0f} s",
            "Set this machine's clock (NTP); node authentication signs the time",
            ExitCode.VERIFICATION_FAILED,
        )
    return Fact("server", "ok", f"{settings.receiver} answers; clocks agree")


def _admission(site: SiteFolder) -> Fact:
    """Ask, as the courier would, whether the desk knows this site and did not revoke it."""
    if site.settings().enrolment is None:
        return Fact("admission", "ok", "not asked: this site joined by mail")
    if not site.has_certificate:
        advice = "The coordinator has to admit it: cairn-aggregator admit"
        return Fact("admission", "warning", "this site waits", advice)
    from site_client.enrol import list_peers

    try:
        admitted = len(list_peers(site).peers)
    except UnreachableError as error:
        return Fact("admission", "warning", error.diagnosis, error.advice)
    return Fact("admission", "ok", f"admitted, as one of {admitted} sites")
