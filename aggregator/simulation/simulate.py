"""One simulation from an empty folder to its figures: found, invite, join, admit, conduct."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from aggregator.admin.enrol import admit, create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from aggregator.relays.relay import Relay
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import Event, SiteRejected, SiteReplied
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.simulation.figures import (
    RoundMeter,
    SimulationResult,
    WatchedRun,
    disk_bytes,
    peak_memory,
)
from aggregator.simulation.hubs import Hubs, SitesWanted
from aggregator.simulation.relays import RelayTransport
from aggregator.simulation.transport import FolderTransport
from common.enrolment import read_request
from common.errors import InputDataError
from common.plan import FederationPlan, parse_plan
from common.simulation import Learner, Post
from common.sums.addition import MOST_SITES

Progress = Callable[[str, int, int], None]
_NO_APP: Final = "0" * 64
_RUN: Final = "simulated"


@dataclass(frozen=True)
class Simulation:
    """What shall be simulated.

    Attributes:
        plan: as ``plan_for`` made it.
        sites: how many.
        learner: what answers for a site.
        images: of each site.
        seed: of all that is drawn: images, the federation key.
        processes: that hold the sites.
        relays: between the aggregator and its sites; 0 for none.
    """

    plan: FederationPlan
    sites: int
    learner: Learner = "none"
    images: int = 4
    seed: int = 1
    processes: int = 1
    relays: int = 0


def plan_for(plan: FederationPlan, learner: Learner, rounds: int | None) -> FederationPlan:
    """Return the plan as it is simulated: of another kind where nothing learns.

    Args:
        plan: of a real federation.
        learner: ``none`` asks the same of the sites but for the learning itself.
        rounds: of training, in place of the plan's.

    Raises:
        InputDataError: a plan that trains nothing, or one that starts from a model.
    """
    if not plan.trains:
        raise InputDataError(
            "only plans that train can be simulated",
            field="kind",
            expected="training or no-op",
            got=plan.kind,
            advice="Try a plan about slides with a few sites: make demo-pixels",
        )
    if plan.start is not None:
        raise InputDataError(
            "a plan that starts from a model cannot be simulated",
            field="start",
            expected="none",
            got="a digest",
            advice="Leave `start` out: what a run costs does not depend on its first weights",
        )
    words = plan.model_dump(mode="json", exclude_unset=True)
    words["kind"] = "no-op" if learner == "none" else "training"
    if rounds is not None:
        words["rounds"] = {**words.get("rounds", {}), "training": rounds}
    return parse_plan(words)


def simulate(simulation: Simulation, root: Path, progress: Progress) -> SimulationResult:
    """Carry a plan out with made-up sites.

    Args:
        simulation: how many sites, of which kind, and the plan.
        root: an empty folder, for everything of it.
        progress: called with what is done, how many of how many.

    Raises:
        InputDataError: fewer sites than the plan's quorum, or more than a run may have; more
            relays than sites.
        CairnError: a site could not be made.
    """
    quorum = simulation.plan.rounds.quorum
    if not quorum <= simulation.sites <= MOST_SITES:
        raise InputDataError(
            "a run of this plan cannot have so many sites",
            field="--sites",
            expected=f"{quorum} (rounds.quorum) to {MOST_SITES}",
            got=f"{simulation.sites}",
        )
    if not 0 <= simulation.relays <= simulation.sites:
        raise InputDataError(
            "a relay needs a site behind it",
            field="--relays",
            expected=f"0 to {simulation.sites} (--sites)",
            got=f"{simulation.relays}",
        )
    load, began = os.getloadavg()[0], time.monotonic()
    folder, post, homes = FederationFolder(root / "federation"), Post(root / "post"), root / "sites"
    for made in (post.root, homes):
        made.mkdir(parents=True)
    plan_file = root / "plan.json"
    plan_file.write_bytes(simulation.plan.canonical())
    settings = FederationSettings(name="simulated", address="127.0.0.1:9443", port=9443)
    create_federation(folder, settings, ["127.0.0.1"])
    names = [f"site-{number:04d}" for number in range(1, simulation.sites + 1)]
    made_up = SitesWanted(
        plan_file, homes, post.root, simulation.learner, simulation.images, simulation.seed
    )
    with Hubs(made_up, simulation.processes, root / "sites.log") as hubs:
        _join(folder, post, hubs, names, progress)
        made_s = time.monotonic() - began
        meter = _conduct(simulation, folder, hubs, post, names, progress)
        sites_peak = hubs.peak_bytes
    end = meter.finished
    return SimulationResult(
        sites=simulation.sites,
        seed=simulation.seed,
        processes=simulation.processes,
        learner=simulation.learner,
        plan=simulation.plan.name,
        fingerprint=simulation.plan.fingerprint,
        verdict=end.verdict if end else "FAILED",
        reason=end.reason if end else "",
        exit_code=end.exit_code if end else 0,
        model_sha256=end.model_sha256 if end else "",
        made_s=made_s,
        phases=tuple(meter.phases),
        aggregator_peak_bytes=peak_memory(),
        sites_peak_bytes=sites_peak,
        federation_bytes=disk_bytes(folder.root),
        site_bytes=disk_bytes(homes) // simulation.sites,
        load=load,
        relays=simulation.relays,
        relay_bytes=disk_bytes(folder.root.with_name("relays")) // max(1, simulation.relays),
    )


def _join(
    folder: FederationFolder, post: Post, hubs: Hubs, names: list[str], progress: Progress
) -> None:
    """Invite every site, have it join, and admit it."""
    hubs.ask("join", enumerate(names))
    done = 0
    while done < len(names):
        for question in hubs.ready():
            invite = make_invite(folder, question.site, _NO_APP, by_mail=True)
            post.invite(question.site).write_bytes(invite_toml(invite))
        for message in hubs.told():
            admit(folder, read_request(post.request(message.site)))
            post.request(message.site).unlink()
            post.invite(message.site).unlink()
            done += 1
            progress("sites that joined", done, len(names))


def _conduct(
    simulation: Simulation,
    folder: FederationFolder,
    hubs: Hubs,
    post: Post,
    names: list[str],
    progress: Progress,
) -> RoundMeter:
    """Conduct the run, by a clock that stands still while sites work."""
    waited = 0.0
    done = 0

    def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    def clock() -> float:
        return waited

    def hear(event: Event) -> None:
        nonlocal done
        meter(event)
        if isinstance(event, SiteReplied | SiteRejected):
            done += 1
            progress(f"answers to round {event.round}", done, simulation.sites)
        else:
            done = 0

    groups = _groups(names, simulation.relays)
    ways = [FolderTransport(hubs, post, sites) for sites in groups]
    key, archives = folder.witness_key().public, folder.root.with_name("relays")
    relays = [
        Relay(name, key, archives / name, way, clock, sleep)
        for name, way in zip(_relay_names(simulation.relays), ways, strict=False)
    ]
    above = RelayTransport(relays) if relays else None
    meter = RoundMeter(ways, above)
    options = RunOptions(min_sites=simulation.plan.rounds.quorum, wait_s=0, approval_s=0)
    made = RunStore.create(folder.runs / _RUN, simulation.plan, options)
    store = WatchedRun(made.folder, hear)
    sites_of = {r.name: frozenset(w.sites.values()) for r, w in zip(relays, ways, strict=False)}
    Conductor(folder, store, above or ways[0], 1, clock=clock, sleep=sleep, relays=sites_of).run()
    return meter


def _relay_names(count: int) -> list[str]:
    return [f"relay-{number:04d}" for number in range(1, count + 1)]


def _groups(names: list[str], relays: int) -> list[dict[int, str]]:
    """Return the sites behind each relay by number, as evenly as can be; all where there is none.

    Neighbours by number are behind the same relay: they are held by different processes.
    """
    each = len(names) / max(1, relays)
    cuts = [round(each * n) for n in range(max(1, relays) + 1)]
    numbered = list(enumerate(names))
    return [dict(numbered[begin:end]) for begin, end in pairwise(cuts)]
