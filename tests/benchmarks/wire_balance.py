"""How much of a site's wire is explained: by the ledger alone, and by the courier's journal.

A real federation on loopback: three sites that joined with their tokens, a no-op run, then
half a minute of nothing. Between one of them and the aggregator stands a relay that counts
bytes and knows nothing. It stands for the firewall: its count is given to ``cairn-audit``.

    python -m tests.benchmarks.wire_balance [--idle SECONDS]
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from common.journal.entries import Settle
from common.journal.reader import read_journal
from tests.programs import SITES, Federation


class Relay:
    """Passes bytes on to a port of this machine and counts those that leave."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent = 0
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._door.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            client, _ = self._door.accept()
            server = socket.create_connection(("127.0.0.1", self.port))
            for pair in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, come: socket.socket, go: socket.socket, leaves: bool) -> None:
        with suppress(OSError):
            while data := come.recv(1 << 16):
                if leaves:
                    with self._lock:
                        self.sent += len(data)
                go.sendall(data)
        with suppress(OSError):
            go.shutdown(socket.SHUT_WR)


def measure(federation: Federation, idle_s: float) -> dict[str, object]:
    """A run, some time of nothing, and the audit of the first site."""
    site = SITES[0]
    federation.init()
    federation.start_aggregator()
    federation.join(SITES[0], "--new-federation-key")
    for name in SITES[1:]:
        federation.join(name)
    federation.acquaint(*SITES)
    before = sent_by_sockets(federation.root / site / "courier" / "journal.jsonl")
    relays = through_relays(federation.root / site / "site.toml")
    for name in SITES:
        federation.allow(name, approval='"bounded"')
        federation.start_site(name)
    for name in SITES:
        federation.wait_for(f"{name}-courier", "online")
    plan = federation.write_plan(rounds=2, deadline=120)
    keyed = lambda name: any((federation.root / name / "worker" / "keys").glob("*.key"))  # noqa: E731
    federation.wait(
        lambda: all(keyed(name) or name == SITES[0] for name in SITES), "federation keys", 120
    )
    told = federation.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )
    assert "verdict=COMPLETED" in told, told
    time.sleep(idle_s)
    federation.stop()
    return audited(federation, site, before + sum(relay.sent for relay in relays))


def sent_by_sockets(journal: Path) -> int:
    """What joining and confirming sent, before there was a relay to count it."""
    entries = read_journal(journal).entries
    return sum(link.sent for e in entries if isinstance(e, Settle) for link in e.links)


def through_relays(settings: Path) -> list[Relay]:
    """Have a site reach the aggregator, and its desk, through relays."""
    relays: list[Relay] = []

    def change(match: re.Match[str]) -> str:
        relays.append(Relay(int(match[2])))
        return f'{match[1]} = "{relays[-1].address}"'

    text = settings.read_text()
    text = re.sub(r'(?m)^(address|enrolment) = "127\.0\.0\.1:([0-9]+)"', change, text)
    settings.write_text(text)
    assert len(relays) == 2
    return relays


def audited(federation: Federation, site: str, wire: int) -> dict[str, object]:
    """The balance, once by the courier's own sockets and once by the relay's count."""
    counters = federation.root / "counters.json"
    counters.write_text(json.dumps({"v": 1, "layer": "ip", "sent_bytes": wire, "sent_packets": 0}))
    words = (
        *("cairn-audit", "verify", f"{site}/worker/ledger"),
        *("--key", f"federation/sites/{site}/ledger.pub"),
        *("--witness", "federation/pki/witness.pub"),
        *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
        *("--journal", f"{site}/courier/journal.jsonl"),
        *("--courier-key", f"federation/sites/{site}/request.json"),
    )
    print(federation.run(*words, "--counters", str(counters)))
    by_sockets = json.loads(federation.run(*words, "--json"))["ledgers"][0]
    by_relay = json.loads(federation.run(*words, "--counters", str(counters), "--json"))
    balances = by_sockets["balance"], by_relay["ledgers"][0]["balance"]
    return {
        "ledger_bytes": by_sockets["bytes_out"],
        "wire_by_relay": wire,
        "wire_by_sockets": balances[0]["wire_bytes"],
        "unexplained_percent_by_ledger_alone": round(100 - 100 * by_sockets["bytes_out"] / wire, 2),
        "unexplained_percent_by_journal": balances[0]["unexplained_percent"],
        "unexplained_percent_by_journal_and_relay": balances[1]["unexplained_percent"],
        "journal_bytes_on_disk": (federation.root / site / "courier/journal.jsonl").stat().st_size,
    }


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=float, default=30.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder))
        try:
            print(json.dumps(measure(federation, chosen.idle), indent=2))
        finally:
            federation.stop()


if __name__ == "__main__":
    main()
