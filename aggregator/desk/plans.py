"""A plan as a coordinator reads it before it starts: what, how often, how large, how private."""

from __future__ import annotations

from aggregator.admin import sealed
from aggregator.admin.folder import FederationFolder
from common.plan import FederationPlan
from common.schedule import schedule
from common.wire.rules import ANSWERS


def facts_of(plan: FederationPlan, admitted: int) -> list[tuple[str, str]]:
    """Name and value of everything worth a look, in order.

    Args:
        plan: a valid one.
        admitted: how many sites the federation has.
    """
    limits = plan.limits
    most = max(len(ANSWERS[phase]) for phase in schedule(plan))
    return [
        ("plan", f"{plan.name} ({plan.kind}), fingerprint {plan.fingerprint[:16]}"),
        *about_kind(plan),
        ("quorum", f"{plan.rounds.quorum} of {admitted} admitted sites"),
        ("deadline", f"{plan.rounds.deadline_s:g} s a round"),
        ("a site sends", f"at most {most * limits.max_envelope_bytes / 1e6:.1f} MB a round"),
    ]


def key_fact(folder: FederationFolder, plan: FederationPlan) -> list[tuple[str, str]]:
    """Which sites lack the newest federation key, where a plan needs it; nothing when none does.

    Sites whose key a person carries are not known here; round 0 asks all of them.
    """
    newest = sealed.newest(folder)
    if newest.generation == 0 or plan.limits.privacy_tier == 0:
        return []
    has = {name: sealed.fetch(folder, name) for name in folder.admitted()}
    lacking = [
        name for name, box in has.items() if box is None or box.generation < newest.generation
    ]
    says = f"generation {newest.generation}, id {newest.key_id}"
    if sealed.must_renew(folder):
        says += "; a site was revoked: another is being made"
    if lacking:
        says += f"; not yet at {_few(tuple(lacking))}, for which the run waits a while (--wait)"
    return [("federation key", says)]


def _few(names: tuple[str, ...], shown: int = 8) -> str:
    """All names, or the first few and how many there are: a plan may have 256."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[: shown - 2])}, … ({len(names)} in all)"


def about_kind(plan: FederationPlan) -> list[tuple[str, str]]:
    """What the plan's own sections say, one line each."""
    limits, tier = plan.limits, f"privacy tier {plan.limits.privacy_tier}"
    if plan.kind == "pixels":
        asked = plan.pixels
        words = {"reduced": ("components", "bins"), "all-bands": ("bands", "levels")}
        (count, radix), (digit, value) = asked.digits, words[asked.codec]
        return [
            ("bands", _few(asked.bands)),
            ("codec", f"{count} {digit} of {radix} {value}"),
            ("rounds", ", ".join(schedule(plan)[1:])),
            ("sketches", f"{len(asked.tables)} of {asked.rows} x {asked.columns} cells, {tier}"),
            ("named", f"keys of {asked.key_pixels} pixels or more at {asked.key_sites} sites"),
        ]
    if plan.kind == "embed":
        return [
            ("codebook", plan.embed.codebook[:16]),
            ("groups", ", ".join(plan.embed.groups)),
            ("told", f"groups of {plan.embed.group_pixels} pixels or more"),
        ]
    sketch, momentum = plan.experience, plan.rounds.server_momentum
    return [
        ("landmarks", ", ".join(plan.task.landmarks)),
        ("rounds", f"{plan.rounds.training} of {plan.agent.updates} updates, then an evaluation"),
        *([("server momentum", f"{momentum:g}")] if momentum else []),
        ("sketch", f"{sketch.rows} x {sketch.columns} cells, {tier}"),
        ("update norm", f"at most {limits.update_l2:g}"),
    ]
