"""Making a federation, inviting, admitting and revoking, by the coordinator's own commands."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.admin.enrol import admit, create_federation, revoke
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from aggregator.cli import cli
from common.crypto.certificates import generate_node_key, node_public_line
from common.crypto.identity import SigningKey
from common.enrolment import JoinRequest, read_invite
from common.errors import CairnError, InputDataError, RefusedError


def settings(**changes: object) -> FederationSettings:
    values = {"name": "brains", "address": "127.0.0.1:9443", "port": 9443} | changes
    return FederationSettings.model_validate(values)


def request(site: str = "site-a", federation: str = "brains") -> JoinRequest:
    return JoinRequest(
        federation=federation,
        site=site,
        node_key=node_public_line(generate_node_key()),
        ledger_key=SigningKey.generate().public.text,
    )


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    create_federation(folder, settings(), ["127.0.0.1"])
    return folder


def test_every_secret_of_a_new_federation_is_its_owners_alone(folder):
    secrets = [*folder.pki.glob("*.key"), folder.flower / "superexec.key"]
    assert len(secrets) == 4
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_federation_is_never_made_over_another(folder):
    with pytest.raises(InputDataError, match="already"):
        create_federation(folder, settings(), ["127.0.0.1"])


def test_an_invite_holds_nothing_secret_and_reads_back(folder, tmp_path):
    result = CliRunner().invoke(
        cli, ["invite", "site-a", "--dir", str(folder.root), "-o", str(tmp_path / "i.toml")]
    )
    assert result.exit_code == 0
    text = (tmp_path / "i.toml").read_text()
    assert "PRIVATE" not in text
    invite = read_invite(tmp_path / "i.toml")
    assert (invite.site, invite.address) == ("site-a", "127.0.0.1:9443")


@pytest.mark.parametrize("name", ["Site A", "", "a" * 33, "../up"])
def test_a_name_that_is_no_site_name_gets_no_invite(folder, name):
    with pytest.raises(InputDataError, match="name for a site"):
        make_invite(folder, name, "0" * 64)


def test_admitting_twice_is_the_same_and_other_keys_under_the_name_are_refused(folder):
    first = request()
    admit(folder, first)
    admit(folder, first)
    with pytest.raises(RefusedError, match="other keys"):
        admit(folder, request())
    assert list(folder.admitted()) == ["site-a"]


def test_a_site_whose_folder_has_no_request_yet_is_not_admitted_yet(folder):
    (folder.sites / "site-b").mkdir()
    admit(folder, request())
    assert list(folder.admitted()) == ["site-a"]


def test_a_request_for_another_federation_is_refused(folder):
    with pytest.raises(RefusedError, match="another federation"):
        admit(folder, request(federation="other"))


def test_a_request_whose_keys_are_no_keys_is_refused(folder):
    bad = request().model_copy(update={"node_key": "ssh-rsa AAAA"})
    with pytest.raises(CairnError):
        admit(folder, bad)
    assert folder.admitted() == {}


def test_a_revoked_site_is_gone_and_its_name_never_returns(folder):
    mine = request()
    admit(folder, mine)
    revoke(folder, "site-a")
    assert folder.admitted() == {}
    with pytest.raises(RefusedError, match="revoked"):
        admit(folder, mine)
    with pytest.raises(InputDataError, match="no such site"):
        revoke(folder, "site-a")


def test_a_command_outside_a_federations_folder_says_what_to_do(tmp_path):
    result = CliRunner().invoke(cli, ["status", "--dir", str(tmp_path)])
    assert isinstance(result.exception, InputDataError)
    assert "round start" in str(result.exception)
    result = CliRunner().invoke(cli, ["up", "--dir", str(tmp_path)])
    assert isinstance(result.exception, InputDataError)
    assert "init" in str(result.exception)


def test_a_plan_with_an_unknown_key_is_an_error_that_names_it(folder, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('name="p"\nseed=1\nquorom=2\n[task]\nlandmarks=["AC"]\n')
    result = CliRunner().invoke(cli, ["round", "start", str(plan), "--dir", str(folder.root)])
    assert isinstance(result.exception, InputDataError)
    assert "quorom" in str(result.exception)


def test_a_plan_for_more_sites_than_are_admitted_is_refused_before_anything_starts(
    folder, tmp_path
):
    admit(folder, request())
    plan = tmp_path / "plan.toml"
    plan.write_text('name="p"\nseed=1\n[task]\nlandmarks=["AC"]\n')
    arguments = ["round", "start", str(plan), "--dir", str(folder.root), "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, RefusedError)
    assert list(folder.runs.iterdir()) == []


def test_a_plan_whose_sketches_every_door_would_refuse_is_not_started(folder, tmp_path):
    admit(folder, request())
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'name="p"\nseed=1\n[task]\nlandmarks=["AC"]\n[learner]\nupdates=60\nreplay="rare-first"\n'
    )
    result = CliRunner().invoke(cli, ["round", "start", str(plan), "--dir", str(folder.root)])
    assert isinstance(result.exception, InputDataError)
    assert result.exception.field == "learner.updates x learner.searches"


def test_a_plan_whose_network_fits_no_envelope_is_not_started(folder, tmp_path):
    admit(folder, request())
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'name="p"\nseed=1\n[task]\nlandmarks=["AC"]\n[limits]\nmax_envelope_bytes=100000\n'
    )
    result = CliRunner().invoke(cli, ["round", "start", str(plan), "--dir", str(folder.root)])
    assert isinstance(result.exception, InputDataError)
    assert result.exception.field == "network"
    assert "bytes of weights" in result.exception.got


def test_requests_are_json_that_names_the_field_that_is_wrong(folder, tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request().model_dump() | {"extra": 1}))
    result = CliRunner().invoke(cli, ["admit", str(path), "--dir", str(folder.root)])
    assert isinstance(result.exception, InputDataError)
    assert "extra" in str(result.exception)
