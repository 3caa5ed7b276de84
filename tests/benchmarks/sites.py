"""What many sites cost, and what the aggregator holds: ``python -m tests.benchmarks.sites``.

Each count of sites is simulated twice, in processes of their own, one after the other: as the
aggregator works, which merges in two passes from its archive and makes each parcel as it is
sent; and by the peer, which this was before: every parcel is made at once, and every decoded
reply with its raw parts is kept until all are added together. After each run the other way
adds up what the archive holds, and must come to the very bytes that the sites were sent.
From a hundred sites on there is a third run, with relays between.

Seconds are of this machine with the sites on it, and say little beside a load; processor time
and memory say more. Folders lie in memory where ``--folder`` says so.

    python -m tests.benchmarks.sites [--sites 10 100 1000] [--folder /dev/shm] [-o FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np

from aggregator.intake.reply import Reply
from aggregator.rounds import merging
from aggregator.rounds.receiving import Receiving
from aggregator.rounds.store import RunStore
from aggregator.simulation.simulate import Simulation, plan_for, simulate
from aggregator.simulation.transport import FolderTransport
from common.plan import read_plan
from common.sums.addition import Addition, Group, Sum, encode_sum
from common.sums.summand import Summand, is_summed, summand_of
from common.sums.tags import add_tags
from common.wire.envelope import Envelope, decode
from tests.benchmarks.markdown import table

ROOT = Path(__file__).resolve().parents[2]
PLAN = ROOT / "deploy" / "plans" / "no-op.toml"
WAYS = ("two passes", "kept")
RELAYS = 4
RELAYED = f"{RELAYS} relays"
RELAYED_FROM = 100
"""Sites from which on relays stand between, in a third run."""


class KeptUntilTheMerge:
    """The peer: what the aggregator held before it merged in two passes."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.parcels: Mapping[int, bytes] = {}
        self._open, self._begin, self._send = (
            Receiving._open,
            Receiving.begin,
            FolderTransport.send,
        )

    def begin(self, receiving: Receiving) -> None:
        self.replies.clear()
        self._begin(receiving)

    def open(self, receiving: Receiving, step, site, parcel, terms, passed) -> Reply:
        reply = self._open(receiving, step, site, parcel, terms, passed)
        self.replies[site] = reply
        return reply

    def send(self, transport: FolderTransport, parcels, deadline_s: float) -> None:
        self.parcels = dict(parcels)
        self._send(transport, self.parcels, deadline_s)

    def records(self, answers: Mapping[str, object], kind: str) -> Iterator[tuple[str, Envelope]]:
        for site in sorted(answers):
            yield site, self.replies[site].envelopes[kind]


class AllAtOnce:
    """The peer's sum: every summand first, then one addition over all of them."""

    def __init__(self, run: str, round_: int) -> None:
        self._run, self._round = run, round_
        self._records: dict[str, dict[str, Envelope]] = {}

    def add(self, site: str, envelope: Envelope) -> None:
        self._records.setdefault(envelope.record.record_type, {})[site] = envelope

    def total(self) -> Sum:
        return Sum(
            self._run,
            self._round,
            {kind: self._group(found) for kind, found in sorted(self._records.items())},
        )

    def _group(self, envelopes: Mapping[str, Envelope]) -> Group:
        summands = [summand_of(envelope) for envelope in envelopes.values()]
        counts = {name: sum(s.counts[name] for s in summands) for name in summands[0].counts}
        arrays = {
            name: np.sum([s.arrays[name] for s in summands], axis=0, dtype=np.int64)
            for name in summands[0].arrays
        }
        tags = add_tags(int(envelope.record.tag, 16) for envelope in envelopes.values())
        return Group(tuple(envelopes), Summand(counts, arrays), tags)


def one(way: str, sites: int, place: Path | None, seed: int) -> dict[str, object]:
    """Simulate once, in this process."""
    plan = plan_for(read_plan(PLAN), "none", 1)
    relays = RELAYS if way == RELAYED else 0
    processes = min(sites, os.cpu_count() or 1)
    wanted = Simulation(plan, sites, seed=seed, processes=processes, relays=relays)
    root = Path(tempfile.mkdtemp(prefix="cairn-sites-", dir=place))
    peer = KeptUntilTheMerge()
    changes = [] if way != WAYS[1] else [
        mock.patch.object(Receiving, "begin", lambda *w: peer.begin(*w)),
        mock.patch.object(Receiving, "_open", lambda *w: peer.open(*w)),
        mock.patch.object(FolderTransport, "send", lambda *w: peer.send(*w)),
        mock.patch.object(merging, "records", peer.records),
        mock.patch.object(merging, "Addition", AllAtOnce),
    ]  # fmt: skip
    try:
        for change in changes:
            change.start()
        outcome = simulate(wanted, root, lambda *_: None)
        store = RunStore(root / "federation" / "runs" / "simulated")
        other = AllAtOnce if way == WAYS[0] else Addition
        # What is added lies in the relays' archives: the models are compared, and must be one.
        alike = bool(relays) or encode_sum(from_archive(store, other)) == store.sum_of(1)
    finally:
        mock.patch.stopall()
        shutil.rmtree(root)
    return outcome.as_dict() | {"way": way, "same_bits": alike}


def from_archive(store: RunStore, adding: type[AllAtOnce | Addition]) -> Sum:
    """Add up what sites sent in the first round of training, by one of the two ways."""
    addition = adding(store.name, 1)
    for folder in sorted(path for path in store.round_folder(1).iterdir() if path.is_dir()):
        for path in sorted(folder.glob("*.envelope")):
            envelope = decode(path.read_bytes())
            if is_summed(envelope.record.record_type):
                addition.add(folder.name, envelope)
    return addition.total()


def in_a_process(way: str, sites: int, place: Path | None, seed: int) -> dict[str, object]:
    """Simulate once, in a process whose memory nothing else has touched."""
    words = ["--one", way, "--sites", str(sites), "--seed", str(seed)]
    words += ["--folder", str(place)] if place else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.sites", *words],
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def page(found: Iterable[dict[str, object]], seed: int) -> str:
    """The figures as markdown."""
    runs = list(found)
    rows = []
    for run in runs:
        phases = {each["phase"]: each for each in run["phases"]}
        sites, came = run["sites"], "up_bytes" if run["relays"] else "reply_bytes"
        rows.append(
            [
                f"{sites:,}",
                run["way"],
                " · ".join(f"{phases[name]['seconds']:.1f}" for name in phases),
                " · ".join(f"{1e3 * p['aggregator_s'] / sites:.1f}" for p in phases.values()),
                " · ".join(f"{1e3 * p['sites_s'] / sites:.1f}" for p in phases.values()),
                f"{run['aggregator_peak_bytes'] / 1e6:.1f}",
                f"{run['sites_peak_bytes'] / 1e6:.0f}",
                f"{phases['train'][came] / sites / 1e3:.1f}",
                f"{run['load']:.1f}",
            ]
        )
    heads = (
        "sites", "way", "seconds: begin · train · evaluate", "aggregator, CPU ms a site",
        "a site, CPU ms", "aggregator's peak, MB", "a process of sites, MB",
        "aggregator's kB in a site, train", "load before",
    )  # fmt: skip
    ours = [run for run in runs if run["way"] == WAYS[0]]
    growth = ours[-1]["aggregator_peak_bytes"] / ours[0]["aggregator_peak_bytes"] - 1
    train = next(each for each in ours[-1]["phases"] if each["phase"] == "train")
    return "\n".join(
        [
            "# Many sites on one machine",
            "",
            f"`python -m tests.benchmarks.sites`, {datetime.now(UTC):%Y-%m-%d}, seed {seed}: "
            f"deploy/plans/no-op.toml with one round of training, "
            f"{train['reply_bytes'] // ours[-1]['sites']:,} bytes a reply, {os.cpu_count()} "
            f"processors, {ours[-1]['processes']} processes of sites. Real doors, ledgers and "
            "merges; folders in memory, so no wait for a disk. Each row is one run in processes "
            "of its own; `kept` is the way before, in the same hour. With relays these work in the "
            "aggregator's process, one after the other: its figures hold theirs.",
            "",
            table(heads, rows),
            "",
            f"From {ours[0]['sites']} to {ours[-1]['sites']:,} sites the aggregator's memory grows "
            f"by {100 * growth:.1f} %. At every count all ways came to the same model, to the bit.",
            "",
        ]
    )


def main() -> int:
    """Print the figures; 1 if two ways differ in a bit."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sites", description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", choices=(*WAYS, RELAYED), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one, asked.sites[0], asked.folder, asked.seed)))
        return 0
    found = []
    for sites in asked.sites:
        ways = (*WAYS, RELAYED) if sites >= RELAYED_FROM else WAYS
        turns = [in_a_process(way, sites, asked.folder, asked.seed) for way in ways]
        found += turns
        for run in turns:
            seconds = sum(each["seconds"] for each in run["phases"])
            peak = run["aggregator_peak_bytes"] / 1e6
            print(f"{sites} sites, {run['way']}: {seconds:.1f} s, {peak:.1f} MB", file=sys.stderr)
        alike = len({run["model_sha256"] for run in turns}) == 1
        if not alike or not all(r["same_bits"] and r["verdict"] == "COMPLETED" for r in turns):
            print(f"the ways differ at {sites} sites", file=sys.stderr)
            return 1
    text = page(found, asked.seed)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
