"""A site says how many images it has when it joins; none of them is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from common.enrolment import read_request
from site_client.cli import cli
from site_client.join import count_images, join, join_again
from site_client.site import SiteFolder


@pytest.fixture
def invite(tmp_path):
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="brains", address="127.0.0.1:9443", port=9443)
    create_federation(folder, settings, ["127.0.0.1"])
    return make_invite(folder, "north", "0" * 64, by_mail=True)


@pytest.fixture
def data(tmp_path) -> Path:
    data = tmp_path / "images"
    data.mkdir()
    return data


def scans(data: Path, count: int) -> None:
    """Empty files: whoever opened one would fail."""
    for number in range(count):
        (data / f"case{number}.nii.gz").touch()
        (data / f"case{number}.mrk.json").touch()


def test_cases_are_counted_by_their_names(data):
    scans(data, 5)
    assert count_images(data) == 5


def test_slides_are_counted_where_there_are_no_cases(data):
    for name in ("a.ome.tif", "b.npy"):
        (data / name).touch()
    (data / "c").mkdir()
    (data / "c" / "band.tif").touch()
    assert count_images(data) == 3


def test_a_folder_that_is_empty_or_away_has_none(data):
    assert count_images(data) == 0
    assert count_images(data / "nothing") == 0


def test_the_request_says_how_many_there_were_when_the_site_joined(invite, data, tmp_path):
    scans(data, 4)
    site = SiteFolder(tmp_path / "site")
    assert join(invite, site, data).images == 4
    first = read_request(site.request_file)
    first.verify()
    assert first.images == 4
    scans(data, 9)
    # The same request, for what was sent may have to be sent again.
    assert join_again(invite, site, data).images == 4
    assert read_request(site.request_file) == first


def test_a_person_may_say_another_count(invite, data, tmp_path):
    scans(data, 4)
    site = SiteFolder(tmp_path / "site")
    assert join(invite, site, data, images=2).images == 2
    assert join_again(invite, site, data, images=9).images == 9
    read_request(site.request_file).verify()


@pytest.mark.parametrize(("count", "told"), [(0, True), (3, False)])
def test_join_says_when_nothing_could_be_counted(invite, data, tmp_path, capsys, count, told):
    scans(data, count)
    path = tmp_path / "i.toml"
    path.write_bytes(invite_toml(invite))
    words = ["join", path, "--data", data, "--site-dir", tmp_path / "site"]
    with pytest.raises(SystemExit) as done:
        cli([str(word) for word in words])
    assert done.value.code in (0, None)
    assert ("admit north --images N" in capsys.readouterr().out) == told
