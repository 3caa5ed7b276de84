"""What the desk can know of a key that is on its way: who asked, what was sealed, how long ago."""

from __future__ import annotations

import os

import pytest

from aggregator.admin import arrival, sealed
from aggregator.admin.arrival import COMING_S, coming_to, note_asking
from aggregator.admin.enrol import admit, create_federation, revoke
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite
from common.enrolment import read_request
from site_client.join import join
from site_client.site import SiteFolder

NOW = 2_000_000_000.0
BOTH = ("north", "south")


@pytest.fixture
def folder(tmp_path) -> FederationFolder:
    """A federation of two sites, to which nobody has sealed anything."""
    made = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="brains", address="127.0.0.1:9443", port=9443)
    create_federation(made, settings, ["127.0.0.1"])
    (tmp_path / "images").mkdir()
    for name in BOTH:
        site = SiteFolder(tmp_path / name)
        joined = join(make_invite(made, name, "0" * 64), site, tmp_path / "images")
        admit(made, read_request(joined.request))
    return made


def make(folder: FederationFolder, generation: int, at: float) -> None:
    """The newest generation, put at a time; to whom it was sealed is another matter."""
    value = sealed.Generation(generation=generation, key_id="0" * 16, made_by="north")
    folder.generation_file.write_text(value.model_dump_json())
    os.utime(folder.generation_file, (at, at))


def seal_to(folder: FederationFolder, site: str, generation: int, at: float) -> None:
    path = folder.sites / site / "sealed" / f"{generation:06d}.json"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (at, at))


def test_nothing_comes_to_a_site_that_never_asks(folder):
    make(folder, 1, NOW)
    assert coming_to(folder, BOTH, NOW) == ()


def test_the_first_key_comes_while_sites_have_asked_for_less_than_two_minutes(folder):
    for name in BOTH:
        note_asking(folder, name, 0, NOW)
        note_asking(folder, name, 0, NOW + COMING_S - 2)
    assert coming_to(folder, BOTH, NOW + COMING_S - 1) == BOTH
    assert coming_to(folder, ("south",), NOW + COMING_S - 1) == ("south",), "who is asked about"
    assert coming_to(folder, BOTH, NOW + COMING_S) == (), "their staff carry it by hand"


def test_it_has_come_when_who_was_handed_it_asks_again_and_stays_so(folder):
    make(folder, 1, NOW)
    note_asking(folder, "north", 0, NOW)
    assert coming_to(folder, BOTH, NOW) == ("north",)
    note_asking(folder, "north", 1, NOW + 1)
    assert coming_to(folder, BOTH, NOW + 1) == ()
    note_asking(folder, "north", 0, NOW + 2)  # as after a restart of the desk
    assert coming_to(folder, BOTH, NOW + 2) == ()


def test_a_new_generation_is_on_its_way_to_all_who_ask(folder):
    make(folder, 1, NOW)
    for name in BOTH:
        note_asking(folder, name, 1, NOW)
    make(folder, 2, NOW + 500)
    assert coming_to(folder, BOTH, NOW + 501) == BOTH
    note_asking(folder, "north", 2, NOW + 502)
    assert coming_to(folder, BOTH, NOW + 503) == ("south",)


def test_what_is_sealed_late_is_on_its_way_again(folder):
    make(folder, 1, NOW)
    note_asking(folder, "south", 0, NOW)
    assert coming_to(folder, BOTH, NOW + 1000) == (), "nobody who has it is up"
    seal_to(folder, "south", 1, NOW + 999)
    assert coming_to(folder, BOTH, NOW + 1000) == ("south",)


def test_after_a_revocation_another_key_is_on_its_way_for_a_while(folder):
    make(folder, 1, NOW)
    note_asking(folder, "south", 1, NOW)
    revoke(folder, "north")
    os.utime(folder.sites / "north" / "revoked", (NOW + 10, NOW + 10))
    assert coming_to(folder, BOTH, NOW + 11) == ("south",), "not to who was revoked"
    assert coming_to(folder, BOTH, NOW + 10 + COMING_S) == ()


def test_a_note_that_is_damaged_is_made_anew(folder):
    note_asking(folder, "south", 0, NOW)
    (folder.sites / "south" / "key-asked.json").write_text("{")
    assert coming_to(folder, BOTH, NOW) == ()
    note_asking(folder, "south", 0, NOW)
    assert coming_to(folder, BOTH, NOW) == ("south",)


def test_a_note_is_written_when_something_changed_and_not_at_every_look(folder, monkeypatch):
    note_asking(folder, "south", 0, NOW)
    monkeypatch.setattr(arrival, "replace_durably", lambda *_: pytest.fail("written again"))
    note_asking(folder, "south", 0, NOW + 30)
