"""What a command prints does not depend on where the federation's folder lies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from aggregator.admin.certificates import authority
from aggregator.admin.sealed import Generation
from aggregator.cli import cli
from aggregator.desk.local import LocalDesk
from common.crypto.certificates import certificate_to_pem, issue_server_certificate
from common.enrolment import read_invite
from common.errors import InputDataError, RefusedError
from common.ledger.durable import replace_durably

PLAN = 'name = "p"\nseed = 1\nkind = "no-op"\n[task]\nlandmarks = ["AC"]\n'
SPARSE = PLAN.replace('"no-op"', '"training"') + "[learner]\nupdates = 6\nsearches = 1\n"


def both(served, *words: str) -> tuple[str, str]:
    """What a command prints here and from another machine."""
    shown = []
    for where in (
        ["--dir", str(served.folder.root)],
        ["--desk", str(served.folder.root / "coordinator.toml")],
    ):
        done = CliRunner().invoke(cli, [*words, *where])
        assert done.exception is None or isinstance(done.exception, RefusedError), done.exception
        shown.append(done.output)
    return shown[0], shown[1]


def put_key(served, generation: int) -> None:
    made = Generation(generation=generation, key_id="ab" * 8, made_by="north")
    replace_durably(served.folder.generation_file, made.model_dump_json().encode())


def ends_in(served, days: int) -> None:
    """Give the aggregator a certificate with so many whole days left."""
    then = datetime.now(UTC) - timedelta(days=100)
    ca_key, ca_certificate = authority(served.folder)
    _, certificate = issue_server_certificate(
        ca_key, ca_certificate, ["127.0.0.1"], days=100 + days + 1, now=then
    )
    replace_durably(served.folder.pki / "server.crt", certificate_to_pem(certificate))


def test_round_start_says_the_same_of_a_plan_and_of_who_lacks_the_key(served):
    for name in ("north", "south"):
        served.enrolled(name)
    put_key(served, 1)
    plan = served.root / "plan.toml"
    plan.write_text(PLAN)
    here, there = both(served, "round", "start", str(plan), "--min-sites", "3")
    assert here == there
    assert "generation 1, id abababababababab; not yet at north, south" in " ".join(here.split())
    assert "of 2 admitted sites" in here


def test_the_facts_of_a_plan_are_the_desks_own(served):
    served.enrolled()
    data = PLAN.encode()
    assert served.remote.facts(data) == LocalDesk(served.folder).facts(data)
    assert "federation key" not in dict(served.remote.facts(data)), "nobody has made one"


def test_a_plan_that_every_door_would_refuse_has_no_facts_anywhere(served):
    for desk in (LocalDesk(served.folder), served.remote):
        with pytest.raises(InputDataError, match="every site's door would refuse"):
            desk.facts(SPARSE.encode())


@pytest.mark.parametrize("days", [400, 29])
def test_sites_and_status_tell_how_long_the_aggregator_can_be_connected_to(served, days):
    ends_in(served, days)
    here, there = both(served, "sites", "--json")
    assert here == there
    assert json.loads(here)["server_certificate_days"] == days
    here, there = both(served, "sites")
    assert here == there
    assert ("ends in 29 days: stop `cairn-aggregator up`" in here) is (days == 29)


def test_a_certificate_that_cannot_be_read_does_not_hide_the_sites(served):
    served.enrolled("north")
    (served.folder.pki / "server.crt").write_text("not a certificate")
    here, there = both(served, "sites", "--json")
    assert here == there
    assert json.loads(here)["server_certificate_days"] is None
    assert [site["name"] for site in json.loads(here)["sites"]] == ["north"]


def test_what_a_site_counts_as_is_settled_and_shown_from_afar_as_here(served):
    served.enrolled("north")
    desk = served.remote
    assert [site.counts_as for site in desk.sites()] == [1]
    assert desk.admit("north", 40).counts_as == 40
    assert served.folder.admitted()["north"].samples_cap == 40
    invite = desk.invite("south", days=7, auto_admit=True, by_mail=False, images=10)
    path = served.root / "south.toml"
    path.write_bytes(invite)
    south = read_invite(path)
    served.send(south, served.site(south))
    here, there = both(served, "sites", "--json")
    assert here == there
    assert [site["counts_as"] for site in json.loads(here)["sites"]] == [40, 10]
    here, there = both(served, "sites")
    assert here == there
    assert "40 (80%)" in here


def test_a_request_by_mail_is_admitted_from_afar_for_a_number_of_images(served):
    site = served.site(served.invite(by_mail=True))
    assert served.remote.admit(served.request(site), 25).counts_as == 25
    with pytest.raises(InputDataError, match="number of images"):
        served.remote.admit("north", 2_000_000)
    with pytest.raises(InputDataError, match="no such site"):
        served.remote.admit("nobody", 3)
