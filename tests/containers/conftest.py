"""Three sites and an aggregator in real containers, confined exactly as the compose files say.

Needs root, podman, runc, nft and, unless images are named, debootstrap, with which a
stand-in for the public base image is made. ``CAIRN_TEST_BASE`` names a base to build on
(it must hold nginx, too), ``CAIRN_TEST_TAG`` the tag of images that are built already.
Whatever was started or made here is removed again, also when something fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from deploy.bundle.images import build_images, image_name
from deploy.bundle.locks import ROLES, ROOT
from tests.programs import NO_OP_PLAN, SITES, touch_scans, wait_until

UID = 10001
NETWORK_OUT, NETWORK_FRONT = "10.89.177", "10.89.178"
AGGREGATOR = f"{NETWORK_FRONT}.10"
HOST, PORT = "fed.cairn.test", 8443
NAME = f"cairn-test-{os.getpid()}"
TABLE = f"cairn_test_{os.getpid()}"


def why_not() -> str | None:
    """What this machine lacks for running containers, if anything."""
    if os.geteuid() != 0:
        return "containers with networks and firewall rules of their own need root here"
    # Podman's netavark calls iptables to let networks out.
    tools = ["podman", "runc", "nft", "iptables"]
    if "CAIRN_TEST_TAG" not in os.environ and "CAIRN_TEST_BASE" not in os.environ:
        tools.append("debootstrap")
    absent = [tool for tool in tools if shutil.which(tool, path=PATHS) is None]
    return f"not installed here: {', '.join(absent)}" if absent else None


PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def podman(*words: str, code: int | None = 0, timeout: float = 300) -> str:
    """One podman command; its output. ``code=None`` accepts any end."""
    done = subprocess.run(
        ["podman", "--runtime", "runc", *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, "PATH": PATHS},
    )
    assert code is None or done.returncode == code, f"podman {words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def service(form: str, name: str) -> dict:
    """A service of one of the compose files that we ship."""
    path = ROOT / "deploy" / "containers" / f"compose.{form}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["services"][name]


def options(chosen: Mapping, places: Mapping[str, str], network: list[str]) -> list[str]:
    """A compose service as options of ``podman run``; nothing is left out or added.

    Args:
        chosen: the service.
        places: what stands for the variables and volumes of the compose file.
        network: what stands for its networks.
    """
    words = ["--user", chosen["user"], "--pids-limit", str(chosen["pids_limit"])]
    memory = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", chosen["mem_limit"])
    words += ["--memory", memory, "--read-only", "--read-only-tmpfs=false"]
    words += [f"--cap-drop={name}" for name in chosen["cap_drop"]]
    words += [f"--security-opt={option.removesuffix(':true')}" for option in chosen["security_opt"]]
    words += [f"--ulimit={name}={count}:{count}" for name, count in chosen["ulimits"].items()]
    words += [f"--tmpfs={place}" for place in chosen["tmpfs"]]
    words += network if chosen.get("network_mode") != "none" else ["--network", "none"]
    if "dns" in chosen:
        words += ["--dns", *chosen["dns"], f"--add-host={HOST}:{AGGREGATOR}"]
    for mount in chosen["volumes"]:
        source = re.sub(r"\$\{(\w+):\?\}", lambda found: places[found[1]], mount["source"])
        source = places.get(source, source)
        mode = ":ro" if mount.get("read_only") else ""
        words += ["--volume", f"{source}:{mount['target']}{mode}"]
    # Where processes may not raise limits, podman's default for this one cannot be set.
    return [*words, "--ulimit=nproc=2048:2048", "--no-healthcheck", "--init=false"]


@dataclass
class Contained:
    """A federation in containers."""

    root: Path
    tag: str
    base: str
    decoy: int
    networks: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)

    def image(self, role: str) -> str:
        return image_name(role, self.tag)

    def once(
        self,
        role: str,
        *words: str,
        volumes: Mapping[Path, str],
        network: tuple[str, ...] | list[str] = ("--network", "none"),
    ) -> str:
        """A command in a passing container."""
        mounted = [w for path, place in volumes.items() for w in ("--volume", f"{path}:{place}")]
        return podman(
            *("run", "--rm", *network, "--read-only", "--cap-drop=ALL", "--tmpfs=/data"),
            *("--no-healthcheck", "--ulimit=nproc=2048:2048", "--ulimit=nofile=4096:4096"),
            *(*mounted, self.image(role), *words),
        )

    def start(self, name: str, image: str, words: list[str], *command: str) -> None:
        full = f"{NAME}-{name}"
        self.containers.append(full)
        podman("run", "--detach", "--name", full, *words, image, *command)

    def start_site(self, site: str) -> None:
        folder, volume = self.root / site, f"{NAME}-{site}"
        if volume not in self.volumes:
            self.volumes.append(volume)
            podman("volume", "create", volume)
        places = {
            "CAIRN_SITE": str(folder),
            "CAIRN_DATA": str(self.root / "data" / site),
            "spool": volume,
        }
        for role in ("worker", "courier"):
            words = options(service("site", role), places, ["--network", f"{NAME}-out"])
            self.start(f"{site}-{role}", self.image(role), words)

    def stop(self, name: str) -> None:
        podman("rm", "--force", "--time", "20", f"{NAME}-{name}")
        self.containers.remove(f"{NAME}-{name}")

    def inside(self, name: str, *words: str, code: int | None = 0) -> str:
        return podman("exec", f"{NAME}-{name}", *words, code=code)

    def python(self, name: str, program: str) -> object:
        """What a program prints as JSON, run inside a container."""
        return json.loads(self.inside(name, "python", "-c", program))

    @property
    def aggregator(self) -> str:
        return AGGREGATOR

    @property
    def gateways(self) -> tuple[str, str]:
        """This machine, as seen from the couriers' network and from the aggregator's."""
        return f"{NETWORK_OUT}.1", f"{NETWORK_FRONT}.1"

    def rules(self) -> list[dict]:
        """The firewall's table as it stands."""
        command = ["nft", "--json", "list", "table", "inet", TABLE]
        done = subprocess.run(command, capture_output=True, check=True, env={"PATH": PATHS})
        return json.loads(done.stdout)["nftables"]

    def inspect(self, role: str) -> list[dict]:
        return json.loads(podman("image", "inspect", self.image(role)))

    def log(self, name: str) -> str:
        done = subprocess.run(
            ["podman", "logs", f"{NAME}-{name}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        return done.stdout

    def wait(self, name: str, text: str, seconds: float = 120) -> None:
        wait_until(
            lambda: text in self.log(name),
            f"{text!r} of {name}",
            seconds,
            said=lambda: self.log(name),
            every=0.3,
        )

    def make(self) -> None:
        """Networks, rules, folders, the aggregator behind its proxy, the sites."""
        self._networks()
        federation = self._owned(self.root / "federation")
        self.once(
            *("aggregator", "cairn-aggregator", "init", "/federation", "--name", "contained"),
            *("--address", f"{HOST}:{PORT}", "--behind-proxy", "--port", "9443"),
            *("--desk-bind", "0.0.0.0"),  # noqa: S104
            volumes={federation: "/federation"},
        )
        plan = NO_OP_PLAN.format(rounds=1, quorum=len(SITES), deadline=120)
        (federation / "plan.toml").write_text(plan)
        words = options(
            service("aggregator", "aggregator"),
            {"CAIRN_FEDERATION": str(federation)},
            ["--network", f"{NAME}-front", "--ip", AGGREGATOR],
        )
        self.start("aggregator", self.image("aggregator"), words)
        self._proxy(federation)
        self.wait("aggregator", "ready")
        heard = {site: self._join(site) for site in SITES}
        for site in SITES:
            self.start_site(site)
        for site in SITES:
            self.wait(f"{site}-courier", "online")
        for site in SITES:
            self._decide(site, heard, plan)
        self.keys()

    def _networks(self) -> None:
        for name, net in (("out", NETWORK_OUT), ("front", NETWORK_FRONT)):
            self.networks.append(f"{NAME}-{name}")
            podman("network", "create", "--disable-dns", f"--subnet={net}.0/24", f"{NAME}-{name}")
        rules = (ROOT / "deploy" / "nftables" / "cairn-courier.nft").read_text(encoding="utf-8")
        for pattern, ours in (
            (r"define AGGREGATOR = \S+", f"define AGGREGATOR = {AGGREGATOR}"),
            (r"define AGGREGATOR_PORT = \S+", f"define AGGREGATOR_PORT = {PORT}"),
            (r"define COURIER = \S+", f"define COURIER = {NETWORK_OUT}.0/24"),
            (r"\bcairn_courier\b", TABLE),
        ):
            rules, found = re.subn(pattern, ours, rules)
            assert found, pattern
        (self.root / "rules.nft").write_text(rules)
        subprocess.run(["nft", "-f", str(self.root / "rules.nft")], check=True, env={"PATH": PATHS})

    def _join(self, site: str) -> str:
        """As deploy/README.md says: from the courier's image, through the firewall, no images.

        Returns the fingerprint of its ledger key, which its staff read aloud.
        """
        invite = f"/federation/{site}.invite.toml"
        self.inside("aggregator", "cairn-aggregator", "invite", site, "-o", invite)
        folder = self._owned(self.root / site)
        touch_scans(self.root / "data" / site)
        mounts = {folder: "/site", self.root / f"federation/{site}.invite.toml": "/invite.toml:ro"}
        told = self.once(
            *("courier", "cairn-site", "join", "/invite.toml", "--data", "/data"),
            *("--images", "3"),
            volumes=mounts,
            network=["--network", f"{NAME}-out", f"--add-host={HOST}:{AGGREGATOR}"],
        )
        found = re.search(r"ledger key\s+([0-9a-f]{64})", told)
        assert found is not None, told
        return found[1]

    def _decide(self, site: str, heard: Mapping[str, str], plan: str) -> None:
        """What people type where the worker runs: who the others are, and that the plan is fine."""
        others = [f"{other}:{key}" for other, key in heard.items() if other != site]
        worker = f"{site}-worker"
        self.inside(worker, "cairn-site", "peers", "confirm", *others, "--by", "Ada Lovelace")
        # The plan came by mail; a run would bring it, too, and wait.
        self.inside(worker, "sh", "-c", f"cat > /tmp/plan.toml <<'END'\n{plan}\nEND")
        approve = ("cairn-site", "plans", "approve", "/tmp/plan.toml")
        self.inside(worker, *approve, "--by", "Ada Lovelace")

    def keys(self, seconds: float = 120) -> dict[str, bytes]:
        """Each site's federation key, once it has one; nobody carried it."""
        found: dict[str, bytes] = {}

        def everywhere() -> bool:
            for site in SITES:
                for path in (self.root / site / "worker" / "keys").glob("000001.key"):
                    found[site] = path.read_bytes()
            return len(found) == len(SITES)

        def said() -> str:
            return "\n".join(self.log(f"{s}-courier") for s in SITES if s not in found)

        wait_until(everywhere, "federation key", seconds, said, every=0.3)
        return found

    def _proxy(self, federation: Path) -> None:
        chosen = service("aggregator", "proxy")
        places = {
            "CAIRN_FEDERATION": str(federation),
            "CAIRN_PROXY_CONF": str(ROOT / "deploy" / "proxy" / "nginx.conf"),
        }
        shared = ["--network", f"container:{NAME}-aggregator"]
        self.start("proxy", self.base, options(chosen, places, shared), *chosen["entrypoint"])

    @staticmethod
    def _owned(folder: Path) -> Path:
        folder.mkdir()
        os.chown(folder, UID, UID)
        return folder

    def remove(self) -> None:
        """Everything that was made, in reverse; each step whatever became of the others."""
        for name in reversed(self.containers):
            podman("rm", "--force", "--time", "5", name, code=None)
        for name in self.volumes:
            podman("volume", "rm", "--force", name, code=None)
        for name in self.networks:
            podman("network", "rm", "--force", name, code=None)
        gone = ["nft", "delete", "table", "inet", TABLE]
        subprocess.run(gone, check=False, capture_output=True, env={"PATH": PATHS})


def stand_in_base(place: Path, name: str) -> None:
    """A small Debian with Python and nginx, as an image: what a registry would have given."""
    tree = place / "base"
    subprocess.run(
        [
            *("debootstrap", "--variant=minbase"),
            *("--include=ca-certificates,python3,python3-venv,nginx-light", "bookworm", str(tree)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": PATHS},
        timeout=600,
    )
    shutil.rmtree(tree / "var" / "cache" / "apt")
    with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["podman", "import", "-q", "-", name], stdin=tar.stdout, check=True)
    shutil.rmtree(tree)


def half_built() -> set[tuple[str, str]]:
    """Working containers and nameless images of builds: what removes one, and which."""
    working = podman("ps", "--all", "--external", "--quiet", "--no-trunc")
    nameless = podman("images", "--all", "--quiet", "--no-trunc", "--filter", "dangling=true")
    return {("rm", x) for x in working.split()} | {("rmi", x) for x in nameless.split()}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Tag of the three images and name of the base, built here unless they are named."""
    lacking = why_not()
    if lacking is not None:
        pytest.skip(lacking)
    base = os.environ.get("CAIRN_TEST_BASE", f"localhost/{NAME}-base:latest")
    given = os.environ.get("CAIRN_TEST_TAG")
    if given is not None:
        yield given, base
        return
    try:
        if "CAIRN_TEST_BASE" not in os.environ:
            stand_in_base(tmp_path_factory.mktemp("base"), base)
        # Building needs no isolation, and nested machines often cannot give it; nothing is
        # proven by the build. No layer is kept between stages: half of the disk and time.
        plain = ["--isolation", "chroot", "--pull=never", "--layers=false", "--quiet"]
        before = half_built()
        try:
            build_images(ROLES, base=base, tag=NAME, engine="podman", options=plain)
        except BaseException:
            # A build that is killed, as by an interrupt, cannot tidy up after itself; what it
            # had started holds its files for a moment longer.
            until = time.monotonic() + 30
            while (left := half_built() - before) and time.monotonic() < until:
                for word, ident in sorted(left):
                    podman(word, "--force", ident, code=None)
                time.sleep(0.5)
            raise
        yield NAME, base
    finally:
        for role in ROLES:
            podman("rmi", "--force", image_name(role, NAME), code=None)
        if "CAIRN_TEST_BASE" not in os.environ:
            podman("rmi", "--force", base, code=None)


@pytest.fixture(scope="session")
def contained(
    images: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Contained]:
    """The federation, running."""
    root = tmp_path_factory.mktemp("contained")
    with socket.create_server(("0.0.0.0", 0)) as decoy:  # noqa: S104 - must be in reach
        made = Contained(root, *images, decoy=decoy.getsockname()[1])
        try:
            made.make()
            yield made
        finally:
            made.remove()
