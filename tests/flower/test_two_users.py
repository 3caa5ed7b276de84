"""A site without containers: worker and courier as two users, folders owned as its page says.

What systemd adds to it (roots of their own, no network) is held by tests/deploy; here the
kernel checks owners and modes, by the very lines that deploy/README.md has people type.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IDS = {"cairn-worker": 61501, "cairn-courier": 61502, "cairn-spool": 61503}
LIMIT_S = 300.0

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]


def as_user(user: str) -> list[str]:
    """Before a command: what a unit's ``User=``, ``SupplementaryGroups=`` and ``UMask=`` do."""
    own = str(IDS[user])
    return [
        *("setpriv", "--reuid", own, "--regid", own, "--groups", str(IDS["cairn-spool"])),
        *("--no-new-privs", "sh", "-c", 'umask 0007; exec "$@"', "sh"),
    ]


def interpreter() -> str | None:
    """A Python that another user may start, too; a root's own home is closed to others."""
    for program in (sys.executable, "/usr/bin/python3.11"):
        try:
            tried = [*as_user("cairn-worker"), program, "-c", "import sys"]
            if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
                return program
        except OSError:
            return None
    return None


def lines_to_type() -> str:
    """Those of the page that say who owns what."""
    page = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    section = page.split("## A site without containers")[1].split("\n## ")[0]
    found = re.search(r"\*\*4\. Who owns what\.\*\*.*?```\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def users(real_class) -> Iterator[object]:
    """A federation of two sites, of which site-a's halves are two users."""
    python = interpreter() if os.geteuid() == 0 else None
    if python is None:
        pytest.skip("needs root, setpriv, and a Python 3.11 that every user may start")
    root = Path(tempfile.mkdtemp(prefix="cairn-users-"))
    root.chmod(0o755)
    made = real_class(root)
    try:
        made.init()
        for site in ("site-a", "site-b"):
            made.join_by_mail(site)
            made.admit(site)
        typed = lines_to_type().replace("/srv/cairn/site", str(root / "site-a"))
        for name, number in IDS.items():
            typed = typed.replace(name, str(number))
        subprocess.run(["sh", "-e", "-c", typed], check=True)
        path = (str(ROOT), sysconfig.get_path("purelib"))
        made.cairn = ("env", f"PYTHONPATH={os.pathsep.join(path)}", "HOME=/tmp", python, "-P", "-m")
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


def may(user: str, *words: str) -> bool:
    done = subprocess.run([*as_user(user), *words], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.slow
def test_a_site_of_two_users_completes_a_run_and_neither_reads_the_others_keys(users):
    site, worker = users.root / "site-a", as_user("cairn-worker")
    program = (*users.cairn, "site_client.cli")
    typed = users.run(*worker, *program, "peers", "--json", "--site-dir", "site-a")
    told = json.loads(typed)["fingerprint"]
    other = json.loads(users.run("cairn-site", "peers", "--json", "--site-dir", "site-b"))
    by = ("--by", "Ada Lovelace", "--site-dir")
    heard = f"site-b:{other['fingerprint']}"
    users.run(*worker, *program, "peers", "confirm", heard, *by, "site-a")
    users.run("cairn-site", "peers", "confirm", f"site-a:{told}", *by, "site-b")
    for name in ("site-a", "site-b"):
        users.allow(name, approval='"bounded"', least_known="1")
    users.start_aggregator(LIMIT_S)
    users.start_site("site-b")
    for role in ("worker", "courier"):
        flower = f"FLWR_HOME={site / 'courier' / 'flower'}"
        command = ("env", flower, *program, role, "--site-dir", "site-a")
        users.start(f"site-a-{role}", *as_user(f"cairn-{role}"), *command)
    for name in ("site-a", "site-b"):
        users.wait_for(f"{name}-courier", "online", LIMIT_S)
    plan = users.write_plan(rounds=1, deadline=120, quorum=2)
    said = users.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "2", "--watch"),
        timeout=LIMIT_S,
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said

    keys = {"cairn-worker": site / "worker" / "ledger.key", "cairn-courier": site / "courier"}
    keys["cairn-courier"] /= "node.key"
    for user, key in keys.items():
        (stranger,) = keys.keys() - {user}
        assert may(user, "cat", str(key))
        assert not may(stranger, "cat", str(key))
        assert not may(stranger, "ls", str(key.parent))
        assert may(user, "cat", str(site / "site.toml"))
        assert not may(user, "sh", "-c", 'echo >> "$0"', str(site / "site.toml"))
        assert not may(user, "sh", "-c", 'echo >> "$0"', str(site / "policy.toml"))
    assert may("cairn-worker", "cat", str(site / "policy.toml"))
    assert not may("cairn-courier", "cat", str(site / "policy.toml"))
