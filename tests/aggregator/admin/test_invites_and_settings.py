"""Old folders stay readable, listeners follow from few settings, invites say what they do."""

from __future__ import annotations

import tomllib

import pytest
from click.testing import CliRunner
from cryptography.x509 import SubjectAlternativeName

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings, is_loopback
from aggregator.admin.invites import invite_toml, make_invite, open_invites
from aggregator.cli import cli
from common.crypto.certificates import read_certificate
from common.enrolment import Invite, read_invite
from common.errors import InputDataError

OLD = 'v = 1\nname = "brains"\naddress = "fed.example.org:9443"\nport = 9443\n'


def settings(**changes: object) -> FederationSettings:
    return FederationSettings.model_validate(tomllib.loads(OLD) | changes)


@pytest.fixture
def folder(tmp_path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    create_federation(folder, settings(), ["fed.example.org"])
    return folder


def test_settings_of_the_first_release_are_read_and_the_rest_follows(tmp_path):
    (tmp_path / "federation.toml").write_text(OLD + 'bind_host = "192.0.2.7"\n')
    found = FederationFolder(tmp_path).settings()
    assert found.listeners() == {
        "sites": ("192.0.2.7", 9443),
        "enrolment": ("192.0.2.7", 9444),
        "coordinators": ("192.0.2.7", 9445),
        "metrics": ("127.0.0.1", 9446),
    }
    assert found.public_enrolment == "fed.example.org:9444"
    assert found.public_desk == "fed.example.org:9445"


def test_metrics_stay_on_this_machine_unless_asked_otherwise():
    assert is_loopback(settings(bind_host="192.0.2.7").listeners()["metrics"][0])


def test_behind_a_proxy_sites_reach_enrolment_under_the_one_address():
    behind = settings(behind_proxy=True)
    assert behind.public_enrolment == "fed.example.org:9443"
    assert behind.listeners()["enrolment"] == ("127.0.0.1", 9444)


def test_what_is_said_outranks_what_follows():
    said = settings(enrolment="e.example.org:1", desk="d.example.org:2", desk_host="10.0.0.1")
    assert (said.public_enrolment, said.public_desk) == ("e.example.org:1", "d.example.org:2")
    assert said.listeners()["coordinators"] == ("10.0.0.1", 9445)


@pytest.mark.parametrize("changes", [{"port": 65534}, {"enrol_port": 9443}, {"desk_port": 9444}])
def test_listeners_that_cannot_be_are_refused(tmp_path, changes):
    text = OLD if "port" not in changes else OLD.replace("port = 9443", "port = 65534")
    extra = "".join(f"{name} = {value}\n" for name, value in changes.items() if name != "port")
    (tmp_path / "federation.toml").write_text(text + extra)
    with pytest.raises(InputDataError, match="four different ports"):
        FederationFolder(tmp_path).settings()


def test_an_invite_of_the_first_release_is_read_and_asks_for_no_network(folder, tmp_path):
    invite = make_invite(folder, "north", "0" * 64, by_mail=True)
    text = invite_toml(invite).decode()
    assert "token" not in text
    assert "enrolment" not in text
    (tmp_path / "i.toml").write_text(text)
    assert read_invite(tmp_path / "i.toml") == invite
    assert open_invites(folder) == {}


@pytest.mark.parametrize("missing", ["token", "enrolment", "expires"])
def test_an_invite_has_all_of_its_token_or_nothing_of_it(folder, missing):
    values = make_invite(folder, "north", "0" * 64).model_dump()
    del values[missing]
    with pytest.raises(ValueError, match="together"):
        Invite.model_validate(values)


def test_two_invites_have_two_tokens_and_the_later_end_is_shown(folder):
    first, second = (make_invite(folder, "north", "0" * 64, days=days) for days in (3, 9))
    assert first.token != second.token
    assert open_invites(folder) == {"north": second.expires}


def test_init_puts_every_host_name_into_the_certificate_and_names_the_next_step(tmp_path):
    result = CliRunner().invoke(
        cli,
        [
            *("init", str(tmp_path / "fed"), "--name", "brains"),
            *("--address", "fed.example.org:443", "--port", "9443"),
            *("--host", "10.1.2.3", "--host", "fed.internal", "--behind-proxy"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "invite SITE" in result.output
    certificate = read_certificate(tmp_path / "fed/pki/server.crt")
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    shown = {str(name.value) for name in names}
    assert {"fed.example.org", "10.1.2.3", "fed.internal", "127.0.0.1"} <= shown
    settings = FederationFolder(tmp_path / "fed").settings()
    assert settings.behind_proxy
    assert settings.public_enrolment == settings.address == "fed.example.org:443"
    assert settings.listeners()["enrolment"] == ("127.0.0.1", 9444)
    assert settings.public_desk == "fed.example.org:9445"
    assert (tmp_path / "fed/coordinator.toml").stat().st_mode & 0o077 == 0
