"""Audit messages reach a log server that this project did not write, or count as not sent."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from common.audit.cli import cli
from common.audit.exports.syslog import frame, parse_address
from common.cli import run
from common.errors import ExitCode, InputDataError
from tests.common.audit.exports.forms import parsed


def export(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(cli, ["export", *map(str, args)])
    out = capsys.readouterr()
    return int(ended.value.code), out.out, out.err


def to(server, received, state, *more):
    options = ("--ca", server.authority.certificate, "--cert", server.certificate)
    key = ("--cert-key", server.key, "--state", state)
    return (received.ledger, "--format", "dicom", "--to", server.address, *options, *key, *more)


def test_every_record_reaches_rsyslog_once_over_tls(log_server, received, tmp_path, capsys):
    state, before = tmp_path / "state", log_server.so_far()
    code, _, _ = export(capsys, *to(log_server, received, state))
    assert code == ExitCode.OK
    export(capsys, *to(log_server, received, state))  # nothing new
    messages = log_server.received(before + 7)[before:]
    assert len(messages) == 7
    for seq, each in enumerate(messages):
        header, _, xml = each.partition(b" - \xef\xbb\xbf")
        assert header.startswith((b"<85>1 2026-", b"<84>1 2026-"))
        assert header.endswith(b" cairn - DICOM+RFC3881")
        objects = parsed(xml).findall("ParticipantObjectIdentification")
        details = {d.get("type"): d.get("value") for d in objects[0]}
        assert details["seq"] == {0: "MA==", 6: "Ng=="}.get(seq, details["seq"])


def test_a_server_of_a_foreign_authority_gets_nothing(
    wary_server, received, authority, tmp_path, capsys
):
    arguments = [
        authority.certificate if each == wary_server.authority.certificate else each
        for each in to(wary_server, received, tmp_path / "state")
    ]
    code, _, err = export(capsys, *arguments)
    assert code == ExitCode.VERIFICATION_FAILED
    assert "certificate does not hold" in err
    assert not (tmp_path / "state").exists()


def test_a_server_that_does_not_accept_our_certificate_leaves_the_state_as_it_was(
    wary_server, received, authority, tmp_path, capsys, monkeypatch
):
    # rsyslog may also leave such a connection open, and then only the clock ends it.
    monkeypatch.setattr("common.audit.exports.syslog.TIMEOUT_S", 2.0)
    certificate, key = authority.issue("stranger")
    swapped = {wary_server.certificate: certificate, wary_server.key: key}
    arguments = [swapped.get(e, e) for e in to(wary_server, received, tmp_path / "state")]
    code, _, _ = export(capsys, *arguments)
    assert code == ExitCode.UNREACHABLE
    assert not (tmp_path / "state").exists()


def test_a_server_that_reads_everything_and_closes_first_took_nothing(
    received, authority, tmp_path, capsys
):
    # So rsyslog does when it looks at our certificate after its handshake.
    certificate, key = authority.issue("hasty")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    read = []

    def serve(listener):
        with context.wrap_socket(listener.accept()[0], server_side=True) as secured:
            secured.settimeout(0.1)
            with suppress(TimeoutError):
                while data := secured.recv(1 << 16):
                    read.append(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        server = SimpleNamespace(
            authority=authority,
            certificate=certificate,
            key=key,
            address=f"127.0.0.1:{listener.getsockname()[1]}",
        )
        code, _, err = export(capsys, *to(server, received, tmp_path / "state"))
        thread.join(30)
    assert b"".join(read).count(b"<AuditMessage") == 7, "every byte was read"
    assert code == ExitCode.UNREACHABLE
    assert "the server closed first" in err
    assert not (tmp_path / "state").exists()


def test_what_no_server_took_is_sent_by_the_next_export(log_server, received, tmp_path, capsys):
    before = log_server.so_far()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        arguments = to(log_server, received, tmp_path / "state")
        away = [nobody if each == log_server.address else each for each in arguments]
        code, _, err = export(capsys, *away)
    assert code == ExitCode.UNREACHABLE
    assert "did not take the batch" in err
    code, out, _ = export(capsys, *arguments, "--json")
    assert code == ExitCode.OK, out
    assert json.loads(out)["exported"] == 7
    assert len(log_server.received(before + 7)) == before + 7


def test_a_message_says_its_length_before_itself():
    assert frame("für".encode()) == b"4 f\xc3\xbcr"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("arr.example", ("arr.example", 6514)),
        ("10.0.0.7:99", ("10.0.0.7", 99)),
        ("[::1]:601", ("::1", 601)),
    ],
)
def test_a_server_is_named_by_host_and_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "a:0", "a:65536", "::1", "a b", "https://arr", "a:"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputDataError):
        parse_address(text)
