"""Backups: folders as they were, put back in the middle of a run, and the people who say so.

A backup holds a machine's whole folder, made between two exchanges while nobody works
there. What was in its place is put aside: an earlier life of that machine, which the laws
compare with what came after. Of the spool, which needs no backup, see ``Fault.spool``.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from site_client.cli import cli
from site_client.decisions.making import Decision, decide
from site_client.restoring import read_lost
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.loop import Worker
from tests.simulation.faults import AGGREGATOR, RESTORES, Fault

PERSON = "Ada Byron"


class Backups:
    """The backups that a schedule needs, and the folders that they took the place of.

    Args:
        folder: where both are kept.
        roots: of the machines.
        faults: the whole schedule.

    Attributes:
        was: folders that were put aside, oldest first, by machine.
        used: faults that have happened.
    """

    def __init__(self, folder: Path, roots: Mapping[str, Path], faults: Sequence[Fault]) -> None:
        self._folder = folder
        self._roots = roots
        self._wanted = {(f.party, f.backup_of) for f in faults if f.kind in RESTORES}
        self._taken: set[tuple[str, int]] = set()
        self.was: dict[str, list[Path]] = {name: [] for name in roots}
        self.used: set[Fault] = set()

    def take(self, exchange: int) -> None:
        """Copy the folders that a later fault wants as they are now."""
        for party, when in self._wanted - self._taken:
            if when == exchange:
                shutil.copytree(self._roots[party], self._copy(party, when), symlinks=True)
                self._taken.add((party, when))

    def has(self, fault: Fault) -> bool:
        """Tell whether the backup was made that a fault puts back."""
        return (fault.party, fault.backup_of) in self._taken

    def put_back(self, fault: Fault) -> None:
        """Put a machine's folder back; what was there is put aside."""
        root, was = self._roots[fault.party], self.was[fault.party]
        aside = self._folder / f"{fault.party}-was-{len(was)}"
        root.rename(aside)
        shutil.copytree(self._copy(fault.party, fault.backup_of), root, symlinks=True)
        was.append(aside)
        self.used.add(fault)
        if fault.party != AGGREGATOR and fault.spool != "as it was":
            shutil.rmtree(SiteFolder(root).spool)
            if fault.spool == "kept":
                shutil.copytree(SiteFolder(aside).spool, SiteFolder(root).spool)
            Spool(SiteFolder(root).spool).prepare()

    def _copy(self, party: str, exchange: int) -> Path:
        return self._folder / f"{party}-at-{exchange}"


@dataclass
class People:
    """The people of a site that was put back.

    Attributes:
        patience: exchanges from when the site waits for them until they speak; None: nobody
            ever tells them.
        beside: whether the worker runs while they speak, and records it itself.
        since: exchange in which the site began to wait; None while it does not.
    """

    patience: int | None
    beside: bool
    since: int | None = None

    @classmethod
    def of(cls, fault: Fault) -> People:
        """Those whom a fault makes speak, or not."""
        return cls(fault.patience, fault.beside)

    def is_time(self, exchange: int) -> bool:
        """Tell whether they speak now."""
        if self.since is None or self.patience is None:
            return False
        return exchange >= self.since + self.patience


def speak(site: SiteFolder, *, beside: bool) -> None:
    """Say yes to what a site has lost: what a person's ``cairn-site restore`` does.

    Raises:
        CairnError, OSError: as the command does.
    """
    if beside:
        with Worker(site, threading.Event()) as worker:
            lost = read_lost(site)
            if lost is not None:
                yes = Decision.made(event="RESTORE", person=PERSON, lost_size=lost.size)
                decide(site, [yes], sleep=lambda _: worker.turn())
        return
    words = ["restore", "--site-dir", str(site.root), "--by", PERSON, "--yes"]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    if result.exit_code:
        raise RuntimeError(result.output)
