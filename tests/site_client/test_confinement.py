"""What ``check`` says of the kernel's confinement, from kernels' answers laid down in files."""

import json
import socket
from dataclasses import replace

import pytest
from click.testing import CliRunner

from common.errors import ExitCode
from site_client.cli import cli
from site_client.confinement import Confinement, confinement_facts, look
from site_client.notify import notify

WORKER = Confinement(
    uid=10001,
    capabilities=0,
    no_new_privileges=True,
    seccomp=True,
    read_only_root=True,
    interfaces=(),
    routes=False,
    writable_data=False,
)
COURIER = replace(WORKER, interfaces=("eth0",), routes=True, writable_data=None)


def bad(who, found):
    return [fact.name for fact in confinement_facts(who, found) if fact.level == "bad"]


def test_a_worker_and_a_courier_as_deployed_have_nothing_to_mend():
    assert bad("worker", WORKER) == []
    assert bad("courier", COURIER) == []


@pytest.mark.parametrize(
    ("who", "change", "name"),
    [
        ("worker", {"uid": 0}, "user"),
        ("worker", {"capabilities": 1 << 21}, "user"),
        ("courier", {"no_new_privileges": False}, "user"),
        ("courier", {"read_only_root": False}, "root file system"),
        ("worker", {"interfaces": ("eth0",)}, "network"),
        ("worker", {"routes": True}, "network"),
        ("worker", {"writable_data": True}, "image mount"),
        ("worker", {"writable_data": None}, "image mount"),
        ("courier", {"writable_data": False}, "image mount"),
        ("courier", {"interfaces": ()}, "network"),
        ("worker", {"other_half": True}, "other half"),
        ("courier", {"other_half": True}, "other half"),
    ],
)
def test_each_way_out_is_one_bad_line_with_its_exit_code(who, change, name):
    found = replace(WORKER if who == "worker" else COURIER, **change)
    assert bad(who, found) == [name]
    fact = next(fact for fact in confinement_facts(who, found) if fact.level == "bad")
    assert fact.exit_code is ExitCode.VERIFICATION_FAILED
    assert fact.fix


def test_outside_of_a_container_the_weaker_separation_is_said():
    (fact,) = confinement_facts(None, WORKER)
    assert (fact.level, fact.name) == ("warning", "confinement")


def a_kernel(tmp_path, *, routes="", flags="0x1003"):
    proc, net = tmp_path / "proc", tmp_path / "net"
    (proc / "self" / "net").mkdir(parents=True)
    (net / "eth0").mkdir(parents=True)
    (net / "lo").mkdir()
    (net / "eth0" / "flags").write_text(flags + "\n")
    (net / "lo" / "flags").write_text("0x9\n")
    status = "Name:\tpython\nUid:\t7\t8\t7\t7\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\n"
    (proc / "self" / "status").write_text(status + "Seccomp:\t2\n")
    (proc / "self" / "net" / "route").write_text("Iface\tDestination\n" + routes)
    return proc, net


def test_what_the_kernel_tells_is_read(tmp_path):
    proc, net = a_kernel(tmp_path, routes="eth0\t00000000\t0101A8C0\tlast\n")
    found = look(tmp_path / "absent", proc, net)
    assert found.uid == 8
    assert found.capabilities == 0xA80425FB
    assert found.no_new_privileges
    assert found.seccomp
    assert found.interfaces == ("eth0",)
    assert found.routes
    assert found.writable_data is None


def test_an_interface_that_is_down_and_loopback_are_no_way_out(tmp_path):
    proc, net = a_kernel(tmp_path, flags="0x1002")
    found = look(tmp_path, proc, net)
    assert found.interfaces == ()
    assert not found.routes
    assert found.writable_data is True


def test_an_interface_of_another_network_that_sys_shows_is_not_ours(tmp_path):
    """An older systemd leaves the machine's /sys in a unit that has a network of its own."""
    proc, net = a_kernel(tmp_path)
    head = "Inter-|   Receive\n face |bytes\n"
    table = proc / "self" / "net" / "dev"
    table.write_text(head + "    lo: 0 0\n")
    assert look(tmp_path, proc, net).interfaces == ()
    table.write_text(head + "    lo: 0 0\n  eth0: 5 5\n")
    assert look(tmp_path, proc, net).interfaces == ("eth0",)
    table.write_text(head + "  unseen0: 5 5\n")
    assert look(tmp_path, proc, net).interfaces == ("unseen0",), "what /sys does not know is up"


def test_the_other_processs_folder_is_looked_for(tmp_path):
    proc, net = a_kernel(tmp_path)
    assert look(tmp_path, proc, net, other=tmp_path / "net").other_half
    assert not look(tmp_path, proc, net, other=tmp_path / "absent").other_half


def test_a_unit_asks_for_its_confinement_alone_and_does_not_start_without(
    tmp_path, monkeypatch, make_site
):
    site = make_site(images=1).folder
    words = ["check", "--confinement", "--site-dir", str(site.root)]
    monkeypatch.delenv("CAIRN_ROLE", raising=False)
    asked = CliRunner().invoke(cli, words)
    assert asked.exit_code == 2
    assert "CAIRN_ROLE" in asked.output
    monkeypatch.setenv("CAIRN_ROLE", "worker")
    told = CliRunner().invoke(cli, [*words, "--json"])
    assert told.exit_code == ExitCode.VERIFICATION_FAILED, "nothing confines these tests"
    facts = json.loads(told.output)["facts"]
    names = ["user", "root file system", "network", "image mount", "other half", "walls"]
    assert [fact["name"] for fact in facts] == names


def test_systemd_is_told_where_it_asked_and_only_there(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(ready=True)
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        assert notify(ready=True, status="two\nlines")
        assert listening.recv(4096) == b"READY=1\nSTATUS=two lines"
        assert notify(stopping=True)
        assert listening.recv(4096) == b"STOPPING=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify(ready=True)
