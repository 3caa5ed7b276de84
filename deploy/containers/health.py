"""An image's HEALTHCHECK: does this container still do its work? Exit 0 or 1, one line.

Standard library only, no images, no keys. The courier and the aggregator are asked
over the network as a site would ask; the worker by what only a living one does.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

TIMEOUT_S = 8.0
LEAST_ROOM = 200 * 10**6
LONGEST_WAIT_S = float(os.environ.get("CAIRN_LONGEST_WAIT_S", "21600"))


class SickError(Exception):
    """A failure of health, in one line."""


def worker(site: Path) -> str:
    """Require a ledger held by a living worker, no order that waits too long, room on the disk."""
    lock = site / "worker" / "ledger" / "lock"
    try:
        inode = lock.stat().st_ino
    except OSError as error:
        raise SickError(f"no ledger yet: {error.strerror}") from error
    # Looked up, not tried: trying would keep a starting worker from its own ledger.
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    if not any("FLOCK" in line and f":{inode} " in line for line in locks):
        raise SickError("nobody holds the ledger: the worker has ended or is starting")
    waited = [time.time() - path.stat().st_mtime for path in (site / "spool/inbox").glob("*.order")]
    if waited and max(waited) > LONGEST_WAIT_S:
        raise SickError(f"an order has waited {max(waited) / 3600:.1f} h")
    for folder in (site / "worker", site / "spool"):
        if shutil.disk_usage(folder).free < LEAST_ROOM:
            raise SickError(f"less than {LEAST_ROOM // 10**6} MB free for {folder.name}")
    return f"{len(waited)} orders waiting"


def courier(site: Path) -> str:
    """Return the aggregator answers this container, with a certificate of the federation."""
    address = tomllib.loads((site / "site.toml").read_text(encoding="utf-8"))["address"]
    host, _, port = str(address).rpartition(":")
    return answers(host.strip("[]"), int(port), site / "courier" / "ca.crt")


def aggregator(federation: Path) -> str:
    """Return the SuperLink answers on loopback, with the federation's certificate."""
    settings = tomllib.loads((federation / "federation.toml").read_text(encoding="utf-8"))
    bound = str(settings["bind_host"])
    host = "127.0.0.1" if bound in ("0.0.0.0", "::") else bound  # noqa: S104 - compared, not bound
    return answers(host, int(settings["port"]), federation / "pki" / "ca.crt")


def answers(host: str, port: int, authority: Path) -> str:
    """``GET /health`` over TLS."""
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise SickError(f"{host}:{port} does not answer: {type(error).__name__}") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise SickError(f"{host}:{port} answers HTTP {status}")
    return f"{host}:{port} answers"


def main(role: str) -> int:
    """Look, print one line, and say whether all is well."""
    looks: dict[str, Callable[[], str]] = {
        "worker": lambda: worker(Path(os.environ["CAIRN_SITE"])),
        "courier": lambda: courier(Path(os.environ["CAIRN_SITE"])),
        "aggregator": lambda: aggregator(Path(os.environ["CAIRN_FEDERATION"])),
    }
    try:
        sys.stdout.write(f"{looks[role]()}\n")
    except (SickError, OSError, KeyError, ValueError) as error:
        sys.stdout.write(f"{role} is not well: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
