"""One simulation from an empty folder to its figures: found, invite, join, admit, conduct."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.admin.enrol import admit, create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
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
    """

    plan: FederationPlan
    sites: int
    learner: Learner = "none"
    images: int = 4
    seed: int = 1
    processes: int = 1


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
        InputDataError: fewer sites than the plan's quorum, or more than a run may have.
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
        transport = FolderTransport(hubs, post, names)
        meter = RoundMeter(transport)
        _conduct(simulation, folder, transport, meter, progress)
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
    transport: FolderTransport,
    meter: RoundMeter,
    progress: Progress,
) -> None:
    """Conduct the run, by a clock that stands still while sites work."""
    waited = 0.0
    done = 0

    def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    def hear(event: Event) -> None:
        nonlocal done
        meter(event)
        if isinstance(event, SiteReplied | SiteRejected):
            done += 1
            progress(f"answers to round {event.round}", done, simulation.sites)
        else:
            done = 0

    options = RunOptions(min_sites=simulation.plan.rounds.quorum, wait_s=0, approval_s=0)
    made = RunStore.create(folder.runs / _RUN, simulation.plan, options)
    store = WatchedRun(made.folder, hear)
    Conductor(folder, store, transport, 1, clock=lambda: waited, sleep=sleep).run()
