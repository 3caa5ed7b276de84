"""The files that IT copies: confined in every form, and none names a place to fetch from."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from deploy.bundle.locks import CONSTRAINTS, ROLES, ROOT, lock_file, read_constraints, read_lock

DEPLOY = ROOT / "deploy"
CONTAINERS = DEPLOY / "containers"
CONTAINERFILE = (CONTAINERS / "Containerfile").read_text(encoding="utf-8")
CHART = DEPLOY / "helm" / "cairn-site"
IMAGES_MOUNT = "/data"


def shipped() -> list[Path]:
    folders = ("bundle", "containers", "helm", "nftables", "proxy", "quadlet", "systemd")
    return [
        path
        for folder in folders
        for path in sorted((DEPLOY / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


# --- locks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_agrees_with_the_constraints(role):
    constraints = read_constraints(CONSTRAINTS)
    pins = read_lock(lock_file(role))
    checked = 0
    for pin in pins:
        if pin.name in constraints:
            assert pin.version.partition("+")[0] == constraints[pin.name], pin.name
            checked += 1
    assert checked >= 20
    assert len({pin.name for pin in pins}) == len(pins), "each distribution once"


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_holds_what_pyproject_asks_of_the_role(role):
    locked = {pin.name: pin.version for pin in read_lock(lock_file(role))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"][role]
    for requirement in map(Requirement, asked):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in locked, f"run `python -m deploy.bundle lock`: {role} lacks {name}"
        assert requirement.specifier.contains(locked[name]), f"{name} {locked[name]}"


@pytest.mark.parametrize("role", ["courier", "aggregator"])
def test_only_the_worker_has_torch_and_opens_images(role):
    heavy = {"torch", "simpleitk", "tifffile", "gymnasium"}
    assert not heavy & {pin.name for pin in read_lock(lock_file(role))}
    assert heavy <= {pin.name for pin in read_lock(lock_file("worker"))}


def test_the_workers_torch_is_the_build_without_cuda():
    torch = next(pin for pin in read_lock(lock_file("worker")) if pin.name == "torch")
    assert torch.version.endswith("+cpu")
    assert not any(pin.name.startswith("nvidia") for pin in read_lock(lock_file("worker")))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_nothing_shipped_names_a_place_to_fetch_packages_from(path):
    text = path.read_text(encoding="utf-8")
    told = re.findall(
        r"https?://(?!superlink|json-schema\.org)[^\s\"']+|--(?:extra-)?index-url\S*", text
    )
    assert told == []
    assert not re.search(r"pypi|pythonhosted|PIP_INDEX|trusted-host", text, re.I)


# --- Containerfile -------------------------------------------------------------------------


def stages() -> dict[str, str]:
    parts = re.split(r"(?m)^FROM ", CONTAINERFILE)[1:]
    return {part.split()[2]: part for part in parts}


def test_every_image_comes_from_the_base_that_a_release_pins():
    froms = re.findall(r"(?m)^FROM (\S+)", CONTAINERFILE)
    needed = {f"needed-{role}" for role in ROLES}
    assert set(froms) == {"${BASE}", "installer", "runtime"} | needed


def test_pip_in_the_build_asks_no_index_and_takes_no_file_without_its_digest():
    script = (CONTAINERS / "install-role.sh").read_text(encoding="utf-8")
    joined = (CONTAINERFILE + script).replace("\\\n", " ")
    installs = [line for line in joined.splitlines() if "/installer/bin/pip" in line]
    assert len(installs) == 2
    for install in installs:
        for flag in ("--isolated", "--no-index", "--require-hashes"):
            assert flag in install
    assert 'packages_distributions()["common"]' in script


def test_every_role_has_an_image_that_runs_as_a_user_and_says_how_it_is():
    for role in ROLES:
        stage = stages()[role]
        assert "USER 10001:10001" in stage
        assert f'"/opt/cairn-health.py", "{role}"' in stage
        assert stage.startswith("runtime AS")
        assert f"COPY --from=needed-{role} /opt/cairn /opt/cairn" in stage
        assert f"COPY --from=installed-{role} /cairn /opt/cairn" in stage
    assert "/data" in stages()["worker"]
    assert "/data" not in stages()["courier"]


def test_images_carry_licence_version_and_source_revision():
    for label in ("licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in CONTAINERFILE
    for setting in ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"):
        assert setting in CONTAINERFILE


def test_only_what_the_containerfile_copies_is_in_the_build_context():
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule.removeprefix("!") for rule in rules[1:]]
    for source in re.findall(r"(?m)^COPY (?!--from)(\S+)|source=([^,\s]+)", CONTAINERFILE):
        path = (source[0] or source[1]).rstrip("/")
        assert any(path == rule or path.startswith(f"{rule}/") for rule in allowed), path


def test_a_health_check_that_nothing_stands_behind_fails(tmp_path):
    script = [sys.executable, CONTAINERS / "health.py"]
    environment = {"CAIRN_SITE": str(tmp_path), "CAIRN_FEDERATION": str(tmp_path)}
    for role in ROLES:
        done = subprocess.run(
            [*script, role], env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 1, role
        assert done.stdout.startswith(f"{role} is not well: ")
        assert done.stderr == ""


def health_of_worker(site: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, CONTAINERS / "health.py", "worker"],
        env={"CAIRN_SITE": str(site), "CAIRN_LONGEST_WAIT_S": "60"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout


def test_a_worker_is_well_while_it_holds_its_ledger_and_no_order_waits_too_long(tmp_path):
    inbox, lock = tmp_path / "spool" / "inbox", tmp_path / "worker" / "ledger" / "lock"
    inbox.mkdir(parents=True)
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        assert "nobody holds the ledger" in health_of_worker(tmp_path)[1]
        fcntl.flock(file, fcntl.LOCK_EX)
        order = inbox / "a.order"
        order.touch()
        assert health_of_worker(tmp_path) == (0, "1 orders waiting\n")
        os.utime(order, (time.time() - 3700, time.time() - 3700))
        assert health_of_worker(tmp_path) == (1, "worker is not well: an order has waited 1.0 h\n")


# --- compose -------------------------------------------------------------------------------


def services(name: str) -> dict[str, dict]:
    document = yaml.safe_load((CONTAINERS / f"compose.{name}.yaml").read_text(encoding="utf-8"))
    return document["services"]


ALL = [*services("site").items(), *services("aggregator").items()]


@pytest.mark.parametrize(("name", "service"), ALL, ids=[name for name, _ in ALL])
def test_every_service_is_confined(name, service):
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert all("noexec,nosuid,nodev" in place for place in service["tmpfs"])
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


def mounts(service: dict) -> dict[str, dict]:
    return {mount["target"]: mount for mount in service["volumes"]}


def test_the_worker_has_the_images_read_only_and_no_network():
    worker = services("site")["worker"]
    assert worker["network_mode"] == "none"
    assert not {"networks", "ports", "expose"} & set(worker)
    assert mounts(worker)[IMAGES_MOUNT]["read_only"] is True
    writable = {target for target, mount in mounts(worker).items() if not mount.get("read_only")}
    assert writable == {"/site/worker", "/site/spool"}


def test_the_courier_has_no_images_no_ledger_key_and_no_port():
    courier = services("site")["courier"]
    assert "ports" not in courier
    assert set(mounts(courier)) == {"/site/courier", "/site/site.toml", "/site/spool"}
    assert courier["dns"] == ["127.0.0.1"]


def test_worker_and_courier_share_the_spool_only():
    both = services("site")
    shared = {m["source"] for m in both["worker"]["volumes"] if not m.get("read_only")} & {
        m["source"] for m in both["courier"]["volumes"] if not m.get("read_only")
    }
    assert shared == {"spool"}


def test_only_the_proxy_and_the_coordinators_desk_are_published():
    two = services("aggregator")
    ports = ["${CAIRN_LISTEN:-443}:8443", "${CAIRN_DESK:-9445}:9445"]
    assert two["aggregator"]["ports"] == ports
    assert unit("cairn-aggregator.container")["PublishPort"] == ["443:8443", "9445:9445"]
    assert two["proxy"]["network_mode"] == "service:aggregator"
    assert "ports" not in two["proxy"]
    listens = re.findall(r"listen (\S+)", (DEPLOY / "proxy" / "nginx.conf").read_text())
    assert listens == ["8443"]


# --- quadlet -------------------------------------------------------------------------------


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "quadlet" / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


UNITS = sorted(path.name for path in (DEPLOY / "quadlet").glob("*.container"))


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_is_confined(name):
    found = unit(name)
    assert found["User"] == ["10001"]
    assert found["ReadOnly"] == ["true"]
    assert found["DropCapability"] == ["all"]
    assert found["NoNewPrivileges"] == ["true"]
    assert all("noexec,nosuid,nodev" in place for place in found["Tmpfs"])
    options = " ".join(found["PodmanArgs"])
    assert "--memory=" in options
    assert "--pids-limit=" in options
    assert "AddCapability" not in found


def volumes(name: str) -> dict[str, str]:
    pairs = [value.split(":") for value in unit(name)["Volume"]]
    return {parts[1]: ":".join(parts[2:]) for parts in pairs}


def test_the_units_of_a_site_mount_what_compose_mounts():
    for role in ("worker", "courier"):
        composed = {
            target: "ro" if mount.get("read_only") else ""
            for target, mount in mounts(services("site")[role]).items()
        }
        assert volumes(f"cairn-{role}.container") == composed
    assert unit("cairn-worker.container")["Network"] == ["none"]
    assert unit("cairn-courier.container")["Network"] == ["cairn-out.network"]
    assert "PublishPort" not in unit("cairn-courier.container")


def test_the_units_name_volumes_and_networks_that_are_there():
    for name in UNITS:
        for value in unit(name)["Volume"] + unit(name)["Network"]:
            first = value.split(":")[0]
            if first.endswith((".volume", ".network")):
                assert (DEPLOY / "quadlet" / first).exists(), first


def test_everyone_speaks_of_the_same_network():
    subnet = unit("cairn-out.network")["Subnet"][0]
    composed = yaml.safe_load((CONTAINERS / "compose.site.yaml").read_text())
    assert composed["networks"]["out"]["ipam"]["config"] == [{"subnet": subnet}]
    rules = (DEPLOY / "nftables" / "cairn-courier.nft").read_text(encoding="utf-8")
    assert f"define COURIER = {subnet}\n" in rules


# --- systemd, without containers -------------------------------------------------------------


def service(role: str) -> dict[str, list[str]]:
    """A unit's settings; of one that is given several times every value, in order."""
    found: dict[str, list[str]] = {}
    text = (DEPLOY / "systemd" / f"cairn-{role}.service").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).extend(value.split() if value else [""])
    return found


@pytest.mark.parametrize("role", ["worker", "courier"])
def test_every_service_without_a_container_is_confined(role):
    found = service(role)
    for setting in (
        *("NoNewPrivileges", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp"),
        *("ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname"),
        *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
        *("LockPersonality", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    ):
        assert found[setting] == ["yes"], setting
    assert found["ProtectSystem"] == ["strict"]
    assert found["ProtectProc"] == ["invisible"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert found["SystemCallArchitectures"] == ["native"]
    allowed, *taken = found["SystemCallFilter"]
    assert allowed == "@system-service"
    assert taken == ["~@privileged", "process_vm_readv", "process_vm_writev"]
    assert found["IPAddressDeny"] == ["any"]
    assert "+/" in found["ReadOnlyPaths"]
    assert {"+/", "-+/tmp", "-+/var/tmp", "-+/srv", "-+/dev/shm"} == set(found["NoExecPaths"])
    for key in ("MemoryMax", "TasksMax", "LimitNOFILE"):
        assert found[key] != ["infinity"], key
    assert found["LimitCORE"] == ["0"]
    environment = dict(pair.split("=") for pair in found["Environment"])
    assert environment["CAIRN_ROLE"] == role
    assert environment["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("role", ["worker", "courier"])
def test_a_service_without_a_container_sees_what_a_container_mounts(role):
    """The same folders, under the host's names for them; the rest is system and programs."""
    found, site = service(role), "/srv/cairn/site"
    assert found["RootDirectory"] == [f"/run/cairn-{role}"]
    own = {path for path in found["BindReadOnlyPaths"] if path.startswith("/srv")}
    written = set(found["BindPaths"])
    assert {f"+{path}" for path in written} == set(found["ReadWritePaths"])
    named = {"/srv/images": IMAGES_MOUNT}
    seen = {named.get(path, path.replace(site, "/site")): "ro" for path in own}
    seen |= {path.replace(site, "/site"): "" for path in written}
    assert seen == volumes(f"cairn-{role}.container")
    rest = {path.lstrip("-") for path in found["BindReadOnlyPaths"]} - own
    assert rest <= {
        *("/usr", "/bin", "/lib", "/lib64", "/opt/cairn", "/run/systemd/notify"),
        *("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group"),
        *(("/etc/hosts", "/etc/nsswitch.conf") if role == "courier" else ()),
    }


def test_the_worker_without_a_container_has_no_network_and_the_courier_one_address():
    worker, courier = service("worker"), service("courier")
    assert worker["PrivateNetwork"] == ["yes"]
    assert worker["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert "IPAddressAllow" not in worker
    assert "PrivateNetwork" not in courier
    assert courier["RestrictAddressFamilies"] == ["AF_UNIX", "AF_INET", "AF_INET6"]
    (address,) = courier["IPAddressAllow"]
    assert f"define AGGREGATOR = {address}\n" in (
        DEPLOY / "nftables" / "cairn-courier.nft"
    ).read_text(encoding="utf-8")
    assert courier["SocketBindDeny"] == ["any"]


def test_worker_and_courier_without_containers_are_two_users_who_share_the_spools_group():
    """One user's processes see each other's roots through /proc: two users do not."""
    users = {role: service(role)["User"][0] for role in ("worker", "courier")}
    assert users == {"worker": "cairn-worker", "courier": "cairn-courier"}
    made = (DEPLOY / "systemd" / "cairn.sysusers.conf").read_text(encoding="utf-8")
    for role, user in users.items():
        found = service(role)
        assert found["Group"] == [user]
        assert found["SupplementaryGroups"] == ["cairn-spool"]
        assert found["UMask"] == ["0007"]
        assert re.search(rf"(?m)^u {user} ", made)
        assert re.search(rf"(?m)^m {user} cairn-spool$", made)


@pytest.mark.parametrize("role", ["worker", "courier"])
def test_a_service_without_a_container_starts_only_when_the_kernel_confines_it(role):
    found = service(role)
    program = f"/opt/cairn/{role}/bin/cairn-site"
    text = (DEPLOY / "systemd" / f"cairn-{role}.service").read_text(encoding="utf-8")
    starts = re.findall(r"(?m)^(Exec\w+)=(.*)$", text)
    assert ("ExecStartPre", f"{program} check --confinement") in starts
    assert ("ExecStart", f"{program} {role}") in starts
    assert found["Type"] == ["notify"]
    quadlet = unit(f"cairn-{role}.container")
    for key in ("Restart", "RestartSec", "TimeoutStopSec"):
        assert found[key] == quadlet[key], key
    assert found["RestartPreventExitStatus"] == quadlet["RestartPreventExitStatus"][0].split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("role", ["worker", "courier"])
def test_systemd_understands_every_line_and_finds_little_exposed(role, tmp_path):
    text = (DEPLOY / "systemd" / f"cairn-{role}.service").read_text(encoding="utf-8")
    file = tmp_path / f"cairn-{role}.service"
    # The programs are not installed on this machine: any that is here stands for them.
    file.write_text(re.sub(r"/opt/cairn/\w+/bin/cairn-site", "/bin/true", text))
    verify = ["systemd-analyze", "verify", "--man=no", file]
    done = subprocess.run(verify, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    judge = ["systemd-analyze", "security", "--offline=true", "--threshold=20", file]
    judged = subprocess.run(judge, capture_output=True, encoding="utf-8", check=False)
    assert judged.returncode == 0, judged.stdout[-300:]


# --- helm ----------------------------------------------------------------------------------

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def value_of(path: str) -> object:
    found: object = VALUES
    for name in path.split("."):
        assert isinstance(found, dict), path
        found = found[name]
    return found


def rendered() -> list[dict]:
    """The chart's templates use two forms only; both are filled in here as Helm would."""
    documents: list[dict] = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        text = path.read_text(encoding="utf-8").replace("{{ .Release.Name }}", "site-a")
        text = re.sub(r"\{\{ \.Values\.([\w.]+) \}\}", lambda m: str(value_of(m[1])), text)
        assert "{{" not in text, path.name
        documents += yaml.safe_load_all(text)
    return documents


def pod(component: str) -> dict:
    sets = [d for d in rendered() if d["kind"] == "StatefulSet"]
    return next(
        d["spec"]["template"]["spec"]
        for d in sets
        if d["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )


@pytest.mark.parametrize("component", ["worker", "courier"])
def test_every_pod_is_confined(component):
    spec = pod(component)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["dnsPolicy"] == "None"
    (container,) = spec["containers"]
    inner = container["securityContext"]
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def test_the_pods_mount_what_compose_mounts():
    for role in ("worker", "courier"):
        (container,) = pod(role)["containers"]
        mounted = {
            m["mountPath"]: bool(m.get("readOnly"))
            for m in container["volumeMounts"]
            if m["mountPath"] != "/tmp"
        }
        composed = {
            target: bool(mount.get("read_only"))
            for target, mount in mounts(services("site")[role]).items()
        }
        assert mounted == composed


def test_the_policies_let_nothing_through_but_the_courier_to_the_aggregator():
    policies = [d["spec"] for d in rendered() if d["kind"] == "NetworkPolicy"]
    nothing, out = policies
    assert nothing["podSelector"]["matchLabels"] == {"app.kubernetes.io/instance": "site-a"}
    assert set(nothing["policyTypes"]) == {"Ingress", "Egress"}
    assert nothing["ingress"] == nothing["egress"] == []
    assert out["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "courier"
    assert out["policyTypes"] == ["Egress"]
    assert out["egress"] == [
        {
            "to": [{"ipBlock": {"cidr": "203.0.113.10/32"}}],
            "ports": [{"protocol": "TCP", "port": 443}],
        }
    ]


def test_the_charts_values_and_their_schema_name_the_same_things():
    def names(schema: dict) -> dict | None:
        if "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
        if schema.get("type") != "object":
            return None
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])
        return {key: names(value) for key, value in schema["properties"].items()}

    def shape(value: object) -> dict | None:
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else None

    assert names(SCHEMA) == shape(VALUES)


def test_every_value_of_the_chart_is_used():
    text = "".join(path.read_text() for path in (CHART / "templates").glob("*.yaml"))
    used = set(re.findall(r"\.Values\.([\w.]+)", text))

    def leaves(value: object, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path}
        return {leaf for k, v in value.items() for leaf in leaves(v, f"{path}.{k}".lstrip("."))}

    assert leaves(VALUES) == used
