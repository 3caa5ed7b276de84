"""What a site counts as: declared when it joins, settled when it is admitted, changed by people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from aggregator.admin.enrol import admit, create_federation, revoke, set_samples
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import enrol, make_invite, withdraw_invites
from aggregator.cli import cli
from common.crypto.certificates import generate_node_key, node_public_line
from common.crypto.clients import create_signing_request, generate_client_key
from common.crypto.exchange import OpeningKey
from common.crypto.identity import SigningKey
from common.enrolment import JoinRequest, parse_request
from common.errors import InputDataError, InternalError, VerificationError
from common.wire.bounds import MAX_IMAGES


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="brains", address="127.0.0.1:9443", port=9443)
    create_federation(folder, settings, ["127.0.0.1"])
    return folder


def request(images: int | None = None, site: str = "north", key: SigningKey | None = None):
    key = key or SigningKey.generate()
    return JoinRequest(
        federation="brains",
        site=site,
        node_key=node_public_line(generate_node_key()),
        ledger_key=key.public.text,
        sealing_key=OpeningKey.generate().public.text,
        tls_csr=create_signing_request(generate_client_key(), site).decode(),
        images=images,
    ).signed(key)


def counts_as(folder: FederationFolder, site: str = "north") -> int:
    return folder.admitted()[site].samples_cap


def cairn(*words: object) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(("declared", "counts"), [(40, 40), (0, 1), (None, 1), (MAX_IMAGES,) * 2])
def test_a_site_counts_as_what_it_declared_and_as_one_if_nothing(folder, declared, counts):
    admit(folder, request(declared))
    assert counts_as(folder) == counts


def test_the_coordinators_word_goes_before_the_sites(folder):
    admit(folder, request(1_000_000), images=6)
    assert counts_as(folder) == 6


def test_an_invite_promises_what_the_site_will_count_as(folder):
    invite = make_invite(folder, "north", "0" * 64, images=12)
    enrol(folder, invite.token, request(1_000_000))
    assert counts_as(folder) == 12


def test_what_an_invite_promised_waits_with_the_site(folder):
    invite = make_invite(folder, "north", "0" * 64, images=12, auto_admit=False)
    enrol(folder, invite.token, request(1_000_000))
    assert "counts as 12 images" in cairn("admit", "north", "--dir", folder.root)
    assert counts_as(folder) == 12


def test_a_promise_ends_with_its_invite(folder):
    invite = make_invite(folder, "north", "0" * 64, images=12, auto_admit=False)
    enrol(folder, invite.token, request())
    assert withdraw_invites(folder, "north")
    enrol(folder, make_invite(folder, "north", "0" * 64).token, request(3))
    assert counts_as(folder) == 3


def test_a_site_that_joins_again_with_more_images_counts_as_before(folder):
    first = request(5, key=(key := SigningKey.generate()))
    admit(folder, first)
    more = first.model_copy(update={"images": 5000}).signed(key)
    admit(folder, more)
    assert folder.admitted()["north"].request.images == 5000
    assert counts_as(folder) == 5
    invite = make_invite(folder, "north", "0" * 64, images=50)
    enrol(folder, invite.token, more)
    assert counts_as(folder) == 50


def test_the_coordinator_raises_and_lowers_an_admitted_site_by_its_name(folder):
    admit(folder, request(5))
    for images in (9, 2):
        assert f"counts as {images} images" in cairn(
            "admit", "north", "--images", images, "--dir", folder.root
        )
        assert counts_as(folder) == images


def test_what_is_settled_survives_a_reading_of_the_folder_anew(folder):
    admit(folder, request(5), images=7)
    assert counts_as(FederationFolder(folder.root)) == 7
    assert (folder.sites / "north" / "counts-as").read_bytes() == b"7\n"


@pytest.mark.parametrize("images", [0, -3, MAX_IMAGES + 1])
def test_a_count_that_is_none_is_refused_and_admits_nobody(folder, images):
    with pytest.raises(InputDataError, match="number of images"):
        admit(folder, request(5), images=images)
    assert folder.admitted() == {}
    admit(folder, request(5))
    with pytest.raises(InputDataError, match="number of images"):
        set_samples(folder, "north", images)
    assert counts_as(folder) == 5


def test_nobody_settles_what_a_stranger_or_a_revoked_site_counts_as(folder):
    admit(folder, request(5))
    revoke(folder, "north")
    for site in ("north", "south"):
        with pytest.raises(InputDataError, match="no such site"):
            set_samples(folder, site, 3)


@pytest.mark.parametrize("text", [b"", b"0", b"-1", b"10000000", b"7.5", b"many"])
def test_a_damaged_count_is_an_error_and_not_a_guess(folder, text):
    admit(folder, request(5))
    (folder.sites / "north" / "counts-as").write_bytes(text)
    with pytest.raises(InternalError, match="admit north --images"):
        counts_as(folder)
    cairn("admit", "north", "--images", 4, "--dir", folder.root)
    assert counts_as(folder) == 4


def test_a_site_of_an_earlier_release_counts_as_one_until_somebody_says(folder):
    admit(folder, request())
    (folder.sites / "north" / "counts-as").unlink()
    assert counts_as(folder) == 1
    set_samples(folder, "north", 8)
    assert counts_as(folder) == 8


def test_sites_shows_what_each_counts_as_and_its_share(folder):
    admit(folder, request(30, "north"))
    admit(folder, request(10, "south"))
    make_invite(folder, "east", "0" * 64)
    shown = cairn("sites", "--dir", folder.root)
    assert "counts as" in shown
    assert "30 (75%)" in shown
    assert "10 (25%)" in shown
    said = json.loads(cairn("sites", "--json", "--dir", folder.root))["sites"]
    counts = {site["name"]: site["counts_as"] for site in said}
    assert counts == {"north": 30, "south": 10, "east": None}


def test_an_invite_by_mail_promises_nothing(folder):
    words = ["invite", "north", "--by-mail", "--images", "5", "--dir", str(folder.root)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code != 0
    assert "promises nothing" in str(done.exception)


# The request itself.


def test_a_request_without_a_count_is_the_one_of_earlier_releases():
    old = request()
    assert b"images" not in old.to_json()
    assert parse_request(old.to_json()) == old
    old.verify()


def test_the_count_is_signed_with_the_keys():
    mine = request(5)
    mine.verify()
    assert parse_request(mine.to_json()).images == 5
    for lie in (6, None):
        with pytest.raises(VerificationError):
            mine.model_copy(update={"images": lie}).verify()


@pytest.mark.parametrize("images", [-1, MAX_IMAGES + 1, 1.5, "5", True])
def test_a_request_with_a_count_that_is_none_is_not_valid(images):
    values = request(5).model_dump() | {"images": images}
    with pytest.raises(ValidationError):
        JoinRequest.model_validate(values)
