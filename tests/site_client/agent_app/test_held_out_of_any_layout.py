"""Who is held out is told of any folder that training takes: scans, pictures, boxes, pairs."""

from __future__ import annotations

import json
import shutil

import pytest

from common.policy import read_policy
from common.settings import KINDS
from site_client.heldout.memory import read_memory
from site_client.heldout.parts import Parts, names_of_site
from site_client.worker.site_cases import names_for, read_site_cases
from tests.site_client.agent_app.conftest import run_line
from tests.site_client.agent_app.test_one_vocabulary import LOOKED_FOR, small


@pytest.fixture
def holding(make_site, request):
    """Put made-up data into a site's folder."""

    def hold(cases, laid_out="pixel_mm = 0.5\n"):
        site = make_site()
        made = request.getfixturevalue(cases)(folder=f"made-{cases}", count=5)
        shutil.rmtree(site.folder.data())
        shutil.copytree(made, site.folder.data())
        site.folder.data_file.write_text(laid_out)
        return site.folder

    return hold


def fact(site, name, *words):
    told = json.loads(run_line("check", "--json", *words, "--site-dir", site.root).stdout)
    return next(each for each in told["facts"] if each["name"] == name)


@pytest.mark.parametrize("cases", ["pictures", "lesions", "labelled"])
def test_check_says_who_is_held_out_of_pictures_and_of_images_with_boxes(holding, cases):
    site = holding(cases, "" if cases == "labelled" else "pixel_mm = 0.5\n")
    assert fact(site, "held out")["says"].startswith("2 of 5 subjects (2 of 5 images)")
    assert "5" in fact(site, "images")["says"]
    told = json.loads(run_line("held-out", "--json", "--site-dir", site.root).stdout)
    assert (told["images"], len(told["names"])) == (5, 2)
    assert read_memory(site.held_out).empty, "looking changes nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_that_check_divides_are_those_that_training_reads(holding, kind):
    """Else a rehearsal would name other people than those whom a run holds out."""
    site = holding(LOOKED_FOR[kind][0], "pixel_mm = 0.5\n" if KINDS[kind].dim == 2 else "")
    plan = small(kind)
    read = read_site_cases(site.data(), plan, lambda *_: None, settings=site.data_file)
    names = names_of_site(site, names_for(plan))
    assert sorted(names) == sorted(read.names)
    parts = Parts.of(site, read_policy(site.policy_file))
    assert parts.divide(names).held_out == parts.divide(read.names).held_out


def test_pictures_that_nobody_marked_are_nobody_to_hold_out(holding):
    site = holding("pictures")
    for marks in site.data().glob("*.mrk.json"):
        marks.unlink()
    assert fact(site, "held out")["says"] == "no scans here to hold out of training"
    assert fact(site, "images")["level"] == "bad"
