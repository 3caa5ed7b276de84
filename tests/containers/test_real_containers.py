"""What the operating system promises: who reaches whom, who sees what, who may do what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bundle.locks import ROLES
from tests.programs import SITES

PARTS = [f"{site}-{role}" for site in SITES for role in ("worker", "courier")]
CONFINED = [*PARTS, "aggregator", "proxy"]
PORT = 8443

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TRY = r"""
import json, socket
answers = {}
for kind, host, port in TARGETS:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, getattr(socket, kind)) as s:
            s.settimeout(2)
            s.connect((host, port))
            if kind == "SOCK_DGRAM":
                s.send(bytes.fromhex("123401000001000000000000076578616d706c65036f72670000010001"))
                s.recv(512)
            answers[f"{kind} {host} {port}"] = "answers"
    except OSError as error:
        answers[f"{kind} {host} {port}"] = type(error).__name__
print(json.dumps(answers))
"""


def attempts(contained, name: str, targets: list[tuple[str, str, int]]) -> dict[str, str]:
    """What becomes of connecting to each target from inside a container."""
    return contained.python(name, f"TARGETS = {targets!r}{TRY}")


def elsewhere(contained) -> list[tuple[str, str, int]]:
    """Near and far, everything but the aggregator's own port; a decoy listens on this machine."""
    out, front = contained.gateways
    aggregator = contained.aggregator
    return [
        ("SOCK_STREAM", out, contained.decoy),
        ("SOCK_STREAM", front, contained.decoy),
        ("SOCK_STREAM", aggregator, 9443),
        ("SOCK_STREAM", aggregator, 22),
        ("SOCK_DGRAM", aggregator, PORT),
        ("SOCK_DGRAM", out, 53),
        ("SOCK_DGRAM", "192.0.2.1", 53),
        ("SOCK_STREAM", "192.0.2.1", 443),
        ("SOCK_STREAM", "169.254.169.254", 80),
        ("SOCK_STREAM", "2001:db8::1", 443),
    ]


def run(contained) -> str:
    return contained.inside(
        *("aggregator", "cairn-aggregator", "round", "start", "/federation/plan.toml"),
        *("--dir", "/federation", "--min-sites", "3", "--watch"),
    )


def verified(contained, site: str) -> dict:
    """An auditor's verdict, outside of every container, from files and public keys."""
    root: Path = contained.root
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("cairn-audit"), "verify"),
            root / site / "worker" / "ledger",
            *("--key", root / "federation" / "sites" / site / "ledger.pub"),
            *("--witness", root / "federation" / "pki" / "witness.pub"),
            *("--checkpoint", root / "federation" / "sites" / site / "checkpoint.note"),
            *("--journal", root / site / "courier" / "journal.jsonl"),
            *("--courier-key", root / "federation" / "sites" / site / "request.json", "--json"),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_all_sites_have_one_federation_key_that_nobody_carried_and_no_courier_sees(contained):
    keys = contained.keys()
    assert len(set(keys.values())) == 1
    (line,) = set(keys.values())
    secret = line.strip()
    public = [contained.root / "federation", *(contained.root / s / "courier" for s in SITES)]
    for place in public:
        held = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
        assert held
        for form in (secret, bytes.fromhex(secret.decode())):
            assert not any(form in text for text in held), place


def test_three_sites_finish_a_run_and_their_ledgers_verify(contained):
    said = run(contained)
    assert "verdict=COMPLETED" in said, said
    for site in SITES:
        assert verified(contained, site)
        assert f"site={site} code=OK accepted=yes" in said
    assert "sites_awaited what=approval" not in said, "a person at every site had approved"


def test_a_worker_reaches_nothing(contained):
    here = [("SOCK_STREAM", contained.aggregator, PORT), *elsewhere(contained)]
    for site in SITES:
        answers = attempts(contained, f"{site}-worker", here)
        assert set(answers.values()) == {"OSError"}, answers  # the network is unreachable
        devices = contained.inside(f"{site}-worker", "cat", "/proc/net/dev").splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert contained.inside(f"{site}-worker", "cat", "/proc/net/route").count("\n") <= 1


def test_a_courier_reaches_the_aggregators_port_and_nothing_else(contained):
    for site in SITES:
        allowed = attempts(
            contained, f"{site}-courier", [("SOCK_STREAM", contained.aggregator, PORT)]
        )
        assert set(allowed.values()) == {"answers"}
    refused = attempts(contained, "site-a-courier", elsewhere(contained))
    assert "answers" not in refused.values(), refused
    # The decoy does listen: a container that the rules do not concern is answered.
    out, front = contained.gateways
    decoys = [("SOCK_STREAM", gateway, contained.decoy) for gateway in (out, front)]
    assert set(attempts(contained, "aggregator", decoys).values()) == {"answers"}


def test_a_courier_can_look_up_one_name(contained):
    names = contained.python(
        "site-a-courier",
        """
import json, socket
found = {}
for name in ("fed.cairn.test", "example.org"):
    try:
        found[name] = socket.gethostbyname(name)
    except OSError:
        found[name] = None
print(json.dumps(found))
""",
    )
    assert names == {"fed.cairn.test": contained.aggregator, "example.org": None}


def test_what_the_firewall_dropped_is_counted(contained):
    attempts(contained, "site-b-courier", [("SOCK_DGRAM", contained.gateways[0], 53)])
    listed = contained.rules()
    dropped = next(x["counter"] for x in listed if x.get("counter", {}).get("name") == "dropped")
    sent = next(x["counter"] for x in listed if x.get("counter", {}).get("name") == "sent")
    assert dropped["packets"] > 0
    assert sent["packets"] > 0


def test_a_courier_sees_no_images_no_policy_and_no_key_of_the_ledger(contained):
    for site in SITES:
        seen = contained.python(
            f"{site}-courier",
            """
import importlib.util, json, os
print(json.dumps({
    "paths": {p: os.path.lexists(p) for p in ("/data", "/site/worker", "/site/policy.toml")},
    "site": sorted(os.listdir("/site")),
    "modules": [m for m in ("torch", "SimpleITK", "tifffile") if importlib.util.find_spec(m)],
}))
""",
        )
        assert set(seen["paths"].values()) == {False}
        assert seen["site"] == ["courier", "site.toml", "spool"]
        assert seen["modules"] == []


@pytest.mark.parametrize("name", CONFINED)
def test_a_container_has_no_capability_no_new_privileges_and_is_not_root(contained, name):
    lines = contained.inside(name, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}


WRITABLE = {
    "worker": {"/site/worker", "/site/spool", "/tmp"},
    "courier": {"/site/courier", "/site/spool", "/tmp"},
    "aggregator": {"/federation", "/tmp"},
    "proxy": {"/tmp"},
}
KERNELS_OWN = ("/proc", "/dev", "/sys")


@pytest.mark.parametrize("name", CONFINED)
def test_a_containers_root_is_read_only_and_few_places_are_not(contained, name):
    mounts = [
        line.split() for line in contained.inside(name, "cat", "/proc/1/mountinfo").splitlines()
    ]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    # Podman lends a few files of its own, which belong to root: hosts, resolv.conf, hostname.
    lent = ("/etc/", "/run/")
    writable = {
        place
        for place, flags in options.items()
        if "rw" in flags and not place.startswith((*KERNELS_OWN, *lent))
    }
    assert writable == WRITABLE[name.rsplit("-", 1)[-1]]
    tries = "for p in /x /etc/x /opt/x /usr/bin/x; do touch $p 2>/dev/null && echo $p; done; true"
    assert contained.inside(name, "sh", "-c", tries) == ""


def test_images_are_read_only_where_they_are_seen(contained):
    lines = contained.inside("site-a-worker", "cat", "/proc/1/mountinfo").splitlines()
    mount = next(line.split() for line in lines if line.split()[4] == "/data")
    assert "ro" in mount[5].split(",")
    contained.inside("site-a-worker", "test", "!", "-w", "/data")


@pytest.mark.parametrize("name", [*PARTS, "aggregator"])
def test_a_container_says_that_it_is_well(contained, name):
    role = name.rsplit("-", 1)[-1]
    contained.inside(name, "python", "/opt/cairn-health.py", role)


@pytest.mark.parametrize("role", ["worker", "courier"])
def test_check_says_inside_a_container_that_it_is_confined(contained, role):
    # The scans of this test are empty files: other facts than these may be bad.
    said = contained.inside(f"site-b-{role}", "cairn-site", "check", "--json", code=None)
    facts = {fact["name"]: fact["level"] for fact in json.loads(said)["facts"]}
    for name in ("user", "root file system", "network", "image mount"):
        assert facts[name] == "ok", said


@pytest.mark.parametrize("role", ROLES)
def test_an_image_says_what_it_is(contained, role):
    (inspected,) = contained.inspect(role)
    assert inspected["Config"]["User"] == "10001:10001"
    check = inspected.get("Healthcheck") or inspected["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD", "python", "/opt/cairn-health.py", role]
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    for name in ("version", "revision", "title"):
        assert labels[f"org.opencontainers.image.{name}"]


@pytest.mark.parametrize("role", ROLES)
def test_an_image_lists_what_it_holds_and_common_is_ours(contained, role):
    name = role if role == "aggregator" else f"site-a-{role}"
    found = contained.python(
        name,
        """
import json
from importlib.metadata import distributions, packages_distributions
bill = json.load(open("/opt/cairn/share/sbom.cdx.json"))
print(json.dumps({
    "owner": packages_distributions()["common"],
    "installed": sorted({d.name.lower().replace("_", "-") for d in distributions()}),
    "listed": sorted({c["name"].lower().replace("_", "-") for c in bill["components"]}),
}))
""",
    )
    assert found["owner"] == ["cairn-fl"]
    assert len(found["listed"]) >= 20
    assert set(found["listed"]) >= {name for name in found["installed"] if name != "pip"}


def test_a_site_whose_containers_are_replaced_goes_on_as_the_same_site(contained):
    assert "verdict=COMPLETED" in run(contained)
    before = verified(contained, "site-a")
    for role in ("worker", "courier"):
        contained.stop(f"site-a-{role}")
    contained.start_site("site-a")
    contained.wait("site-a-courier", "online")
    said = run(contained)
    assert "verdict=COMPLETED" in said, said
    after = verified(contained, "site-a")
    assert after != before, "the same ledger, longer"
