"""What goes wrong in a first run, against a real aggregator: one clear line, its code, and soon.

Every command is a process of its own, as a person would start it. How long each
took is printed (`pytest -s`) and not asserted: a busy machine is no fault. The
limit is there against a command that hangs or tries for ever.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from aggregator.admin.certificates import authority, issue_to_site
from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from aggregator.desk.server import DeskServer
from common.crypto.certificates import (
    certificate_to_pem,
    issue_server_certificate,
    write_tls_key,
)
from common.enrolment import Invite
from tests.programs import free_ports

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]

LIMIT_S = 90.0
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) {
  const char *seconds = getenv("CLOCK_AHEAD");
  return seconds ? atol(seconds) : 0;
}
int clock_gettime(clockid_t which, struct timespec *out) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(which, out);
  if (!code && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) out->tv_sec += ahead();
  return code;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int code = real(out, zone);
  if (!code) out->tv_sec += ahead();
  return code;
}
time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""
LANDMARKS = """{"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [
{"label": "AC", "position": [0, 0, 0]}, {"label": "PC", "position": [0, 9, 0]}]}]}"""


@dataclass(frozen=True)
class Said:
    """How a command ended.

    Attributes:
        lines: on standard error.
    """

    code: int
    out: str
    lines: list[str]

    def one_line(self, code: int, *words: str) -> str:
        """The only line, which ends a command with ``code`` and says ``words``."""
        assert self.code == code, (self.code, self.out, self.lines)
        assert self.out == "", "a command that failed has nothing else to say"
        assert len(self.lines) == 1, self.lines
        assert self.lines[0].endswith(f"(exit {code})")
        for word in words:
            assert word in self.lines[0], (word, self.lines[0])
        return self.lines[0]


class Site:
    """One hospital's machine beside a real federation."""

    def __init__(self, federation, name: str) -> None:
        self.federation, self.name = federation, name
        self.root = federation.root
        self.folder = self.root / name
        self.data = self.root / "data" / name
        if not self.data.exists():
            fill(self.data)

    def call(self, *words: object, **environment: str) -> Said:
        """Type ``cairn-site`` and these words."""
        began, before = time.monotonic(), os.times()
        done = subprocess.run(
            ["cairn-site", *map(str, words)],
            cwd=self.root,
            env=surroundings() | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT_S,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr.splitlines())
        assert "Traceback" not in done.stdout + done.stderr
        after = os.times()
        spent = after.children_user - before.children_user
        spent += after.children_system - before.children_system
        table(str(words[0]), time.monotonic() - began, said, spent)
        return said

    def invite(self, **changes: object) -> Path:
        """A fresh invite, some of whose lines are bent; made where the federation lies."""
        made = make_invite(FederationFolder(self.root / "federation"), self.name, "0" * 64)
        return self.write(made.model_copy(update=changes))

    def write(self, made: Invite) -> Path:
        path = self.root / f"{self.name}.invite.toml"
        path.write_bytes(invite_toml(made))
        return path

    def join(self, invite: Path, place: Path | None = None, **environment: str) -> Said:
        folder = place or self.folder
        words = ("join", invite, "--data", self.data, "--site-dir", folder)
        return self.call(*words, **environment)

    def ask(self, command: str, *words: object, **environment: str) -> Said:
        return self.call(command, "--site-dir", self.folder, *words, **environment)


def surroundings() -> dict[str, str]:
    folder = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def table(command: str, seconds: float, said: Said, spent: float | None = None) -> None:
    """A row for whoever looks: seconds on the wall, and of the processor."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split(" ")[0]
    told = said.lines or said.out.strip().split("\n")
    line = next((line.strip() for line in told if "BAD" in line), told[-1])
    took = f"{seconds:.1f} s" if spent is None else f"{seconds:.1f} s ({spent:.1f} s)"
    sys.stdout.write(f"\n| {test} | {command} | {said.code} | {took} | {line} |\n")


def fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"case{number}.nii.gz").touch()
        (folder / f"case{number}.mrk.json").write_text(LANDMARKS)


def expire(folder: FederationFolder) -> None:
    """Give a server a certificate that expired two days ago."""
    then = datetime.now(UTC) - timedelta(days=3)
    key, certificate = issue_server_certificate(*authority(folder), ["127.0.0.1"], days=1, now=then)
    (folder.pki / "server.key").unlink()
    write_tls_key(folder.pki / "server.key", key)
    (folder.pki / "server.crt").write_bytes(certificate_to_pem(certificate))


def settings_say(site: Site, field: str, value: str) -> None:
    """Change a line of ``site.toml``."""
    path = site.folder / "site.toml"
    path.write_text(
        re.sub(rf'^{field} = ".*"$', f'{field} = "{value}"', path.read_text(), flags=re.M)
    )


@pytest.fixture(scope="module")
def federation(real_class, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An aggregator that runs; sites come as the tests need them."""
    made = real_class(tmp_path_factory.mktemp("first"))
    address = f"127.0.0.1:{made.port}"
    try:
        made.run("cairn-aggregator", "init", "federation", "--name", "real", "--address", address)
        expire(FederationFolder(made.root / "federation"))
        made.start("aggregator", "cairn-aggregator", "up", "--dir", "federation")
        made.wait(lambda: "ready" in made.log("aggregator"), "aggregator", seconds=240)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def member(federation) -> Site:
    """A site that has joined and was admitted at once."""
    site = Site(federation, "member")
    said = site.join(site.invite())
    assert said.code == 0, said
    assert "has joined" in said.out
    return site


@pytest.fixture
def newcomer(federation, request) -> Site:
    """A site that has not joined, of a name of its own."""
    return Site(federation, f"new-{abs(hash(request.node.name)) % 10**8}")


@pytest.fixture(scope="module")
def off_the_clock(tmp_path_factory) -> dict[str, str]:
    """What makes a process believe in another time; only its clock of the day is moved."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: a process's clock cannot be moved here")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    library = folder / "clock.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 KiB, of which 52 are taken."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    (disk / "filler").write_bytes(bytes(52 * 1024))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# The address.


def test_join_says_that_nobody_answers_there_and_makes_nothing(newcomer):
    said = newcomer.join(newcomer.invite(enrolment="127.0.0.1:9"))
    said.one_line(5, "127.0.0.1:9", "cannot be reached", "--offline")
    assert not newcomer.folder.exists()


@pytest.mark.slow
def test_check_says_that_nobody_answers_there(member):
    honest = (member.folder / "site.toml").read_text()
    settings_say(member, "address", "127.0.0.1:9")
    try:
        said = member.ask("check")
    finally:
        (member.folder / "site.toml").write_text(honest)
    assert said.code in (5, 6), "a small disk weighs as much, and comes later"
    assert re.search(r"BAD.* server: the server cannot be reached: 127\.0\.0\.1:9", said.out)


@pytest.fixture
def lost(member) -> Iterator[Site]:
    """The member, with an address at which nobody answers."""
    honest = (member.folder / "site.toml").read_text()
    settings_say(member, "address", "127.0.0.1:9")
    settings_say(member, "enrolment", "127.0.0.1:9")
    yield member
    (member.folder / "site.toml").write_text(honest)


def test_a_courier_goes_on_trying_and_says_so_less_and_less(lost):
    log = lost.root / "lost.log"
    with log.open("wb") as out:
        courier = psutil.Popen(
            ["cairn-site", "courier", "--site-dir", str(lost.folder)],
            env=surroundings(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while log.read_text().count("; next try in") < 3 and time.monotonic() < deadline:
            assert courier.is_running()
            assert courier.status() != psutil.STATUS_ZOMBIE, log.read_text()
            time.sleep(0.1)
    finally:
        courier.send_signal(signal.SIGTERM)
        code = courier.wait(LIMIT_S)
    text = log.read_text()
    assert code == 0, text
    waits = [int(wait) for wait in re.findall(r"cairn.courier .*next try in (\d+) s", text)]
    # The third failure has no line of its own: it would be in the way of the fourth.
    assert waits[:3] == [1, 2, 8], text
    assert "Traceback" not in text


@pytest.mark.slow
def test_in_a_terminal_a_courier_keeps_one_line(lost):
    said = b""
    main, end = pty.openpty()
    courier = psutil.Popen(
        ["cairn-site", "courier", "--site-dir", str(lost.folder)],
        env=surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    try:
        while said.count(b"next try in") < 3:
            said += os.read(main, 4096)
        courier.send_signal(signal.SIGTERM)
        assert courier.wait(LIMIT_S) == 0
    finally:
        if courier.is_running():
            courier.kill()
        os.close(main)
    tries = [line for line in said.decode().split("\n") if "the aggregator cannot be" in line]
    assert len(tries) == 1, said
    assert tries[0].count("\r\x1b[2K") >= 3


# The authority.


def test_join_refuses_another_authority_and_makes_nothing(newcomer, tmp_path):
    other = FederationFolder(tmp_path / "other")
    port = newcomer.federation.port
    settings = FederationSettings(name="real", address=f"127.0.0.1:{port}", port=port)
    create_federation(other, settings, ["127.0.0.1"])
    theirs = make_invite(other, newcomer.name, "0" * 64)
    said = newcomer.join(newcomer.write(theirs))
    said.one_line(4, "another authority", "by telephone")
    assert not newcomer.folder.exists()


def test_a_courier_with_another_authority_ends_at_once(member, tmp_path):
    other = FederationFolder(tmp_path / "other")
    create_federation(other, FederationSettings(name="x", address="h:1", port=1), ["h"])
    honest = (member.folder / "courier/ca.crt").read_bytes()
    (member.folder / "courier/ca.crt").write_bytes((other.pki / "ca.crt").read_bytes())
    try:
        said = member.ask("courier")
        checked = member.ask("check")
    finally:
        (member.folder / "courier/ca.crt").write_bytes(honest)
    assert said.code == 4
    assert "certificate does not verify" in said.lines[-1]
    assert checked.code == 4
    assert re.search(r"BAD.* server: the server is not the federation's", checked.out)


# The invite.


def test_an_expired_invite_is_refused(newcomer):
    folder = FederationFolder(newcomer.root / "federation")
    old = make_invite(folder, newcomer.name, "0" * 64, now=datetime(2020, 1, 1, tzinfo=UTC))
    said = newcomer.join(newcomer.write(old))
    said.one_line(3, "expired", "new invite")


def test_a_token_lets_in_one_set_of_keys(member):
    used = member.root / "member.invite.toml"
    said = member.join(used, member.root / "elsewhere")
    said.one_line(3, "used already")


# Certificates.


@pytest.fixture
def expired_desk(member, tmp_path) -> Iterator[int]:
    """The same federation, by a desk whose certificate has expired; its port."""
    folder = FederationFolder(tmp_path / "federation")
    shutil.copytree(member.root / "federation", folder.root, ignore=shutil.ignore_patterns("*.log"))
    expire(folder)
    text = folder.settings_file.read_text()
    port = free_ports(4)
    folder.settings_file.write_text(re.sub(r"(?m)^port = .*$", f"port = {port}", text))
    server = DeskServer(folder)
    server.start()
    yield port + 1
    server.stop()


def test_an_expired_certificate_of_the_server_is_named(expired_desk, newcomer, member):
    place = f"127.0.0.1:{expired_desk}"
    said = newcomer.join(newcomer.invite(enrolment=place))
    said.one_line(4, place, "has expired", "clock")
    honest = (member.folder / "site.toml").read_text()
    settings_say(member, "address", place)
    try:
        ended = member.ask("courier")
    finally:
        (member.folder / "site.toml").write_text(honest)
    assert ended.code == 4
    assert "expired" in ended.lines[-1]


def test_an_aggregator_renews_its_own_certificate_when_it_starts(federation):
    assert "The server certificate was renewed; good for 824 days." in federation.log("aggregator")


@pytest.mark.slow
def test_an_expired_certificate_of_the_site_is_named_with_the_way_back(federation):
    site = Site(federation, "lapsed")
    assert site.join(site.invite()).code == 0
    folder = FederationFolder(site.root / "federation")
    pem = issue_to_site(
        folder, folder.admitted()["lapsed"].request, datetime.now(UTC) - timedelta(days=400)
    )
    (site.folder / "courier/tls.crt").write_bytes(pem)
    site.ask("renew").one_line(4, "expired", "new invite")
    checked = site.ask("check")
    assert checked.code == 4
    assert re.search(r"BAD.* certificate: .*expired \d+ days ago", checked.out)
    assert "new invite" in checked.out
    assert site.join(site.invite()).code == 0
    assert site.ask("renew").out.strip() == "The certificate is good for 89 days."


# The clock.


def test_a_wrong_clock_is_told_in_seconds_everywhere(member, off_the_clock):
    wrong = {**off_the_clock, "CLOCK_AHEAD": "120"}
    checked = member.ask("check", **wrong)
    assert checked.code == 4
    assert re.search(r"clocks differ by (119|120|121) s", checked.out)
    said = member.ask("courier", **wrong)
    assert said.code == 4
    assert re.search(r"clock is wrong.*(119|120|121) s ahead.*NTP", said.lines[-1])


def test_join_names_a_wrong_clock_and_goes_on_if_it_can(newcomer, off_the_clock):
    said = newcomer.join(newcomer.invite(), **off_the_clock, CLOCK_AHEAD="-60")
    assert said.code == 0, said
    assert len(said.lines) == 1
    assert re.search(r"clock is (59|60|61) s behind the aggregator's: set it", said.lines[0])
    said = newcomer.join(newcomer.invite(), **off_the_clock, CLOCK_AHEAD="-400")
    assert said.code == 4
    assert re.search(r"clocks .*differ.*(399|400|401) s behind.*NTP", said.lines[-1])


# The disk.


def test_join_on_a_full_disk_says_so(newcomer, small_disk):
    said = newcomer.join(newcomer.invite(), small_disk / "site")
    said.one_line(6, "No space left", "Make room")


def test_a_worker_on_a_full_disk_says_so_and_goes_on_when_there_is_room(newcomer, small_disk):
    words = ("--data", newcomer.data, "--site-dir", newcomer.folder, "--offline")
    assert newcomer.call("join", newcomer.invite(), *words).code == 0
    (small_disk / "ledger").mkdir()
    (newcomer.folder / "worker/ledger").symlink_to(small_disk / "ledger")
    (small_disk / "rest").write_bytes(bytes(8 * 1024))
    newcomer.ask("worker", "--once").one_line(6, "disk is full", "Nothing was sent")
    checked = newcomer.ask("check")
    assert "ledger: not begun" in checked.out, "nothing was signed, so nothing is broken"
    (small_disk / "filler").unlink()
    assert newcomer.ask("worker", "--once").code == 0


# The data.


def test_join_names_a_missing_data_folder_and_makes_nothing(newcomer):
    shutil.rmtree(newcomer.data)
    said = newcomer.join(newcomer.invite())
    said.one_line(6, "no data folder", str(newcomer.data), "mounted")
    assert not newcomer.folder.exists()


def slow(*values, **options):
    """A case that only the whole suite tries."""
    return pytest.param(*values, **options, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        slow(lambda data: shutil.rmtree(data), "no data folder", id="no-folder"),
        slow(lambda data: [path.unlink() for path in data.iterdir()], "no images", id="no-scans"),
        pytest.param(
            lambda data: [path.unlink() for path in data.glob("*.mrk.json")],
            "landmarks",
            id="no-landmarks",
        ),
    ],
)
def test_check_names_what_the_data_folder_lacks(member, spoil, says):
    spoil(member.data)
    try:
        said = member.ask("check")
    finally:
        shutil.rmtree(member.data, ignore_errors=True)
        fill(member.data)
    assert said.code == 6
    assert re.search(rf"BAD.* images: .*{says}", said.out), said.out


# Revocation.


def test_a_site_revoked_from_afar_ends_within_a_heartbeat_and_cannot_come_back(member, federation):
    site = Site(federation, "leaver")
    assert site.join(site.invite()).code == 0
    federation.start("leaver-up", "cairn-site", "up", "--site-dir", "leaver")
    federation.wait_for("leaver-up", "online")
    desk = ("--desk", "federation/coordinator.toml")
    told = federation.run("cairn-aggregator", *desk, "revoke", "leaver", "--yes")
    assert "disconnected" in told
    began = time.monotonic()
    code = federation.processes["leaver-up"].wait(45)
    text = federation.log("leaver-up")
    table("up", time.monotonic() - began, Said(code, "", text.splitlines()))
    assert code == 4, text
    assert "was revoked" in text
    assert "courier ended with exit 4; a restart would not help" in text
    site.join(site.root / "leaver.invite.toml").one_line(3, "revoked", "new name")
    site.ask("renew").one_line(3, "revoked")
    said = site.ask("check")
    assert said.code in (3, 6), "a small disk weighs as much, and comes later"
    assert re.search(r"BAD.* admission: .*revoked", said.out)
    assert federation.processes["aggregator"].is_running(), federation.log("aggregator")
    sites = json.loads(federation.run("cairn-aggregator", "sites", "--json", "--dir", "federation"))
    states = {each["name"]: each["state"] for each in sites["sites"]}
    assert (states["leaver"], states["member"]) == ("revoked", "admitted")
