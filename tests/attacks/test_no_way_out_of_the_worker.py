"""A worker that was taken over, on a machine without containers: what the kernel lets it do.

Each attempt is made by a process that has put up the worker's walls, as ``cairn-site
worker`` does before it opens anything. The walls cannot be taken down again, so each runs
in a child.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from site_client.confinement import wall_fact, wall_facts
from site_client.sandbox.confine import Walls
from site_client.sandbox.filter import program
from site_client.sandbox.kernel import is_known, landlock_version
from site_client.sandbox.trial import TRIALS, Trial
from site_client.site import SiteFolder

pytestmark = pytest.mark.skipif(not is_known(), reason="walls are of Linux on x86-64")
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
WALLS = """
import sys
from pathlib import Path
from site_client.site import SiteFolder
from site_client.sandbox import confine, seal_environment
site = SiteFolder(Path(sys.argv[1]))
seal_environment(site)
confine(site)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteFolder:
    root = tmp_path_factory.mktemp("walls")
    folder = SiteFolder(root / "site")
    for part in (folder.worker, folder.spool, folder.courier, root / "images"):
        part.mkdir(parents=True)
    words = {"federation": "f", "site": "site-a", "address": "127.0.0.1:1", "data": "../images"}
    text = "".join(f'{name} = "{value}"\n' for name, value in words.items())
    folder.settings_file.write_text(f'v = 1\n{text}app_sha256 = "{"a" * 64}"\n')
    return folder


def behind_walls(site: SiteFolder, code: str, **extra: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process that has confined itself."""
    return subprocess.run(
        [sys.executable, "-P", "-c", WALLS + code, str(site.root)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        **extra,
    )


def refused(site: SiteFolder, code: str, **extra: object) -> str:
    """What the kernel said to ``code``; it must not have come to its end."""
    done = behind_walls(site, f"{code}\nprint('GOT THROUGH')", **extra)
    assert "GOT THROUGH" not in done.stdout, code
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_check_tries_every_way_out_and_finds_none_open(site):
    (fact,) = wall_facts(site)
    assert fact.name == "walls"
    assert fact.level == ("ok" if landlock_version() else "warning"), fact.says
    if landlock_version():
        assert f"{len(TRIALS)} ways out tried, none open" in fact.says


def test_check_says_what_is_open():
    walls = Walls(seccomp=True, landlock=7)
    fact = wall_fact(walls, [Trial("an IPv4 socket", False, "seccomp")])
    assert fact.level == "bad"
    assert "got through: an IPv4 socket" in fact.says
    older = wall_fact(Walls(True, 0), [Trial("a file among the images", False, "Landlock")])
    assert older.level == "warning"


def test_a_trial_without_walls_gets_through(site, monkeypatch):
    """So that what is tried is really possible here where no wall stands."""
    from site_client.sandbox import trial

    for name in ("an IPv4 socket", "another program", "a file among the images"):
        trial.TRIALS[name][1](site)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
        "import socket; socket.socketpair(socket.AF_INET)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; assert os.system('true') == 0",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import multiprocessing as m; p = m.get_context('spawn').Process(target=print); p.start();"
        "p.join(); assert p.exitcode == 0",
        "import os; os.unshare(os.CLONE_NEWNET) if hasattr(os, 'unshare') else 1 / 0",
        "import ctypes; assert ctypes.CDLL(None).syscall(56, 0x40000011, 0, 0, 0, 0) != -1",
        "import ctypes; assert ctypes.CDLL(None).syscall(0x40000029, 2, 1, 0) != -1",
        "import ctypes; assert ctypes.CDLL(None).syscall(425, 8, 0) != -1",
        "import ctypes; assert ctypes.CDLL(None).syscall(470, 0, 0) != -1",
        "import os, ctypes; assert ctypes.CDLL(None).syscall(434, os.getppid(), 0) != -1",
    ],
)
def test_no_network_and_no_other_program(site, code):
    refused(site, code)


def test_a_thread_that_began_before_has_no_network_either(site):
    code = """
import socket, sys, threading
go, said = threading.Event(), []
def late():
    go.wait()
    try:
        socket.socket()
        said.append("GOT THROUGH")
    except PermissionError:
        said.append("held")
thread = threading.Thread(target=late)
thread.start()
"""
    after = "go.set()\nthread.join()\nprint(said[0])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + WALLS + after, str(site.root)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "held"


def test_a_child_has_no_network_either(site):
    refused(
        site,
        "import os, socket\npid = os.fork()\nif pid == 0:\n    socket.socket()\n"
        "assert os.waitpid(pid, 0)[1] == 0",
    )


def test_a_socket_that_was_left_open_is_closed(site):
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.create_connection(door.getsockname()) as line,
    ):
        os.set_inheritable(line.fileno(), True)
        code = f"import os; os.write({line.fileno()}, b'image')"
        assert "Bad file descriptor" in refused(site, code, pass_fds=[line.fileno()])


@needs_landlock
@pytest.mark.parametrize("place", ["site.toml", "courier/node.key", "../images/x", "policy.toml"])
def test_nothing_is_written_outside_of_the_workers_own_folders(site, place):
    said = refused(site, f"(site.root / {place!r}).write_bytes(b'x')")
    assert "Permission" in said


@needs_landlock
def test_the_courier_cannot_be_ended_by_the_worker(site):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        if landlock_version() < 6:
            pytest.skip("this kernel's Landlock keeps no signals")
        assert "not permitted" in refused(site, f"import os; os.kill({victim.pid}, 9)")
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_the_worker_still_writes_what_is_its_own(site):
    code = """
import json, tempfile, threading
(site.worker / "state.json").write_text("{}")
(site.worker / "state.json").replace(site.worker / "other.json")
(site.spool / "x").write_bytes(b"x")
(site.spool / "x").unlink()
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
threading.Thread(target=print).start()
print(json.dumps("fine"))
"""
    done = behind_walls(site, code)
    assert done.returncode == 0, done.stderr
    assert "fine" in done.stdout


def test_a_supervisor_is_told_and_nobody_else(site, tmp_path):
    place = Path("/tmp") / f"n{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(place))
        try:
            done = behind_walls(
                site,
                "from site_client.notify import notify\nprint(notify(ready=True))",
                env=os.environ | {"NOTIFY_SOCKET": str(place)},
            )
            assert done.stdout.strip() == "True", done.stderr
            assert ear.recv(100) == b"READY=1"
            refused(
                site,
                "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
                env=os.environ | {"NOTIFY_SOCKET": str(place)},
            )
        finally:
            place.unlink()


def test_the_filter_is_the_same_bytes_everywhere():
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "worker_filter.json").read_text())
    assert program(datagrams=False).hex() == vectors["silent"]
    assert program(datagrams=True).hex() == vectors["notifying"]
    assert len(program(datagrams=True)) // 8 < 255, "jumps are a byte long"
