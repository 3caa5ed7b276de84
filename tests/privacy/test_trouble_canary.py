"""Why a site failed for its data is told at the site in full, and leaves as a number alone."""

import json
import threading

import pytest

from common.wire.codes import ReplyCode
from site_client.checks import check_site
from site_client.data_check.page import render_page
from site_client.data_check.review import review_scans
from site_client.status import read_status
from site_client.worker.loop import Worker
from tests.conftest import write_case

PERSON = "CANARY-ROE-RICHARD-19551231"
FOLDER = "CANARY-WARD-SEVEN"


@pytest.fixture
def planted(make_site, tmp_path, new_scanner):
    """A site whose folder and files bear a patient's name, one of them cut short."""
    site = make_site(images=0)
    data = tmp_path / FOLDER
    for number in range(3):
        write_case(data, f"{PERSON}-{number}", number)
    path = data / f"{PERSON}-1.nii.gz"
    path.write_bytes(path.read_bytes()[:900])
    settings = site.folder.settings_file
    lines = settings.read_text().splitlines()
    lines = [f"data = {json.dumps(str(data))}" if t.startswith("data") else t for t in lines]
    settings.write_text("\n".join(lines))
    from site_client.imaging.synthesis import read_raw

    return site, data, new_scanner([PERSON, FOLDER], [read_raw(data / f"{PERSON}-0.nii.gz").voxels])


def outgoing(site):
    """Every byte that the courier, the aggregator or an auditor can get to see."""
    folders = (site.folder.spool, site.folder.ledger, site.folder.courier)
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.read_bytes() for path in files] + [str(path.name).encode() for path in files]


def test_the_reason_of_a_failure_is_at_the_site_and_in_nothing_that_leaves(planted):
    site, _, scanner = planted
    digest = site.put(site.order(1, "train"))
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    reply = site.reply(digest)
    assert set(reply) == {"RoundReport"}
    assert reply["RoundReport"].record.code is ReplyCode.BAD_DATA
    note = site.folder.trouble.read_bytes()
    assert PERSON.encode() in note, "the canary was there to be leaked"
    assert site.folder.trouble.is_relative_to(site.folder.worker)
    sent = outgoing(site)
    assert any(len(data) > 200 for data in sent)
    for data in sent:
        assert scanner.findings(data) == []
        assert b"cut short" not in data


def test_the_site_itself_is_told_the_name(planted):
    site, _, _ = planted
    digest = site.put(site.order(1, "train"))
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    assert site.reply(digest) is not None
    assert PERSON in read_status(site.folder).trouble.problems[0].says
    fact = {f.name: f for f in check_site(site.folder)}["data"]
    assert PERSON in fact.says


def test_looking_at_the_data_writes_nothing_but_the_page(planted, tmp_path):
    site, data, _ = planted
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    page = render_page(review_scans(data))
    assert PERSON in page
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    assert outgoing(site) is not None


def test_what_a_reader_says_of_a_broken_file_quotes_no_pixel(planted):
    _, data, scanner = planted
    review = review_scans(data)
    said = json.dumps(review.as_dict()).encode()
    assert b"cut short" in said
    assert not [found for found in scanner.findings(said) if found.startswith("pixels")]
