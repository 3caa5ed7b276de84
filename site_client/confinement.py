"""A look whether worker and courier are really separated, here, in this process.

Asks the kernel and believes no configuration: what a process cannot do is what
confines it. Run it inside the container (``podman exec``), or in the unit of
deploy/systemd, which does so before it starts; outside of both the two processes are
kept apart by their programs alone, which is said and not hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import ExitCode
from site_client.facts import Fact, Level
from site_client.sandbox import Walls
from site_client.sandbox.trial import Trial, try_walls
from site_client.site import SiteFolder

Role = Literal["worker", "courier"]
ROLE_VARIABLE = "CAIRN_ROLE"
_ADVICE = "Start it as deploy/README.md says"
# Loopback reaches nothing but this container; tunnels nobody brought up carry nothing.
_HARMLESS = frozenset({"lo"})
_IFF_UP = 1


@dataclass(frozen=True)
class Confinement:
    """The kernel's word about this process.

    Attributes:
        uid: effective user.
        capabilities: effective set, as a bit mask.
        no_new_privileges: whether no program it starts can gain any.
        seccomp: whether system calls are filtered.
        read_only_root: whether ``/`` is mounted read-only.
        interfaces: network interfaces that are up, loopback aside.
        routes: whether there is a route to anywhere.
        writable_data: whether the data folder can be written, or None if it is absent.
        other_half: whether the folder of the site's other process is here.
    """

    uid: int
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    read_only_root: bool
    interfaces: tuple[str, ...]
    routes: bool
    writable_data: bool | None
    other_half: bool = False


def role() -> Role | None:
    """Say which of the two this is, as its image or unit says; None outside of both."""
    value = os.environ.get(ROLE_VARIABLE, "")
    return value if value in ("worker", "courier") else None  # type: ignore[return-value]


def look(
    data: Path,
    proc: Path = Path("/proc"),
    net: Path = Path("/sys/class/net"),
    other: Path | None = None,
) -> Confinement:
    """Read it.

    Args:
        data: the site's data folder.
        proc: where the kernel tells of processes; another place in tests.
        net: where it tells of network interfaces; another place in tests.
        other: the folder of the site's other process.
    """
    status = dict(
        line.split(":\t", 1)
        for line in (proc / "self" / "status").read_text(encoding="ascii").splitlines()
        if ":\t" in line
    )
    return Confinement(
        uid=int(status["Uid"].split()[1]),
        capabilities=int(status["CapEff"], 16),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp=status.get("Seccomp", "0") != "0",
        read_only_root=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        interfaces=tuple(sorted(_up(proc, net))),
        routes=_has_routes(proc),
        writable_data=os.access(data, os.W_OK) if _is_there(data) else None,
        other_half=other is not None and _is_there(other),
    )


def confinement_facts(who: Role | None, state: Confinement) -> Iterator[Fact]:
    """The facts of a container or unit, or the one fact that there is none."""
    if who is None:
        yield Fact(
            "confinement",
            "warning",
            "worker and courier are two ordinary processes of this machine",
            "Their programs keep them apart; containers, or the units of deploy/systemd, make "
            "the kernel do it: deploy/README.md",
        )
        return
    yield _fact(
        "user",
        ok=state.uid != 0 and state.capabilities == 0 and state.no_new_privileges,
        says=f"user {state.uid}, capabilities {state.capabilities:#x}, "
        f"new privileges {'impossible' if state.no_new_privileges else 'POSSIBLE'}, "
        f"system calls {'filtered' if state.seccomp else 'not filtered'}",
    )
    yield _fact(
        "root file system",
        ok=state.read_only_root,
        says="read-only" if state.read_only_root else "writable",
    )
    yield _network(who, state)
    yield _images(who, state)
    other = "courier" if who == "worker" else "worker"
    says = f"the {other}'s folder is {'HERE' if state.other_half else 'absent'}"
    yield _fact("other half", ok=not state.other_half, says=says)


def wall_facts(site: SiteFolder) -> Iterator[Fact]:
    """The worker's own walls, tried by a child process that puts them up."""
    yield wall_fact(*try_walls(site))


def wall_fact(walls: Walls, trials: list[Trial]) -> Fact:
    """Say what held of the worker's own walls, and what did not."""
    due = [trial for trial in trials if _is_due(trial, walls)]
    holes = ", ".join(trial.name for trial in due if not trial.prevented)
    if holes:
        return _fact("walls", ok=False, says=f"the worker got through: {holes}")
    if not walls.seccomp or not walls.landlock:
        return Fact("walls", "warning", f"{walls}", "A newer kernel, or a container, holds more")
    return Fact("walls", "ok", f"{walls}; {len(due)} ways out tried, none open")


def _is_due(trial: Trial, walls: Walls) -> bool:
    return walls.landlock > 0 if trial.needs == "Landlock" else walls.seccomp


def _network(who: Role, state: Confinement) -> Fact:
    reach = ", ".join(state.interfaces) or "no interface"
    if who == "worker":
        return _fact(
            "network", ok=not state.interfaces and not state.routes, says=f"{reach}; none is wanted"
        )
    return _fact(
        "network", ok=bool(state.interfaces), says=f"{reach}; what it may reach: deploy/README.md"
    )


def _images(who: Role, state: Confinement) -> Fact:
    if who == "courier":
        absent = state.writable_data is None
        return _fact("image mount", ok=absent, says="absent" if absent else "images can be SEEN")
    if state.writable_data is None:
        return _fact("image mount", ok=False, says="absent; the worker needs it")
    says = "read-only" if not state.writable_data else "images can be CHANGED"
    return _fact("image mount", ok=not state.writable_data, says=says)


def _fact(name: str, *, ok: bool, says: str) -> Fact:
    level: Level = "ok" if ok else "bad"
    if ok:
        return Fact(name, level, says)
    return Fact(name, level, says, _ADVICE, ExitCode.VERIFICATION_FAILED)


def _is_there(folder: Path) -> bool:
    """Say whether a folder is in sight; one that may not even be looked for is not."""
    try:
        return folder.exists()
    except PermissionError:
        return False


def _up(proc: Path, net: Path) -> Iterator[str]:
    """Interfaces that are up, of those that this process's own network has.

    ``net`` may show another network: it is the one of whoever mounted it, e.g. the
    machine's in a unit of an older systemd. What it does not know counts as up.
    """
    table = proc / "self" / "net" / "dev"
    if table.exists():
        lines = table.read_text(encoding="ascii").splitlines()
        interfaces = [line.partition(":")[0].strip() for line in lines if ":" in line]
    else:
        interfaces = [interface.name for interface in net.iterdir()] if net.is_dir() else []
    for name in interfaces:
        if name not in _HARMLESS and _is_up(net / name / "flags"):
            yield name


def _is_up(flags: Path) -> bool:
    try:
        return bool(int(flags.read_text(encoding="ascii"), 16) & _IFF_UP)
    except (OSError, ValueError):
        return True


def _has_routes(proc: Path) -> bool:
    """Tell whether any IPv4 route exists, or an IPv6 one that does not end at loopback."""
    lines: list[str] = []
    for name, head in (("route", 1), ("ipv6_route", 0)):
        path = proc / "self" / "net" / name
        if path.exists():
            lines += path.read_text(encoding="ascii").splitlines()[head:]
    return any(line.split()[-1] not in _HARMLESS and line.split()[0] != "lo" for line in lines)
