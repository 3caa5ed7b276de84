"""From COMPLETED to a marked scan: at a site, from what it computed itself, and from the folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aggregator.cli import cli as aggregator
from common.audit.cli import cli as auditor
from common.canonical import sha256_hex
from common.errors import InputDataError, UsageError
from common.model import weights_digest
from common.plan import parse_plan
from site_client.agent_app.checkpoint import read_checkpoint
from site_client.cli import cli as site_program
from site_client.imaging.landmarks import read_landmarks
from tests.conftest import SMALL_PLAN, write_case
from tests.federation.test_model_in_memory import invoke

PLAN = parse_plan(SMALL_PLAN | {"rounds": {"training": 2, "quorum": 2, "deadline_s": 600.0}})
SITES = ("site-a", "site-b")


@pytest.fixture(scope="module")
def trained(federation_at, tmp_path_factory):
    """Two sites that trained for two rounds on three images each; only to be read."""
    federation = federation_at(tmp_path_factory.mktemp("trained"))
    for name in SITES:
        site = federation.add_site(name, images=0)
        for number in range(3):
            write_case(site.data(), f"sub-{name}{number}", number)
    store = federation.create_run(PLAN, min_sites=2)
    assert federation.conduct(store, federation.transport()).verdict == "COMPLETED"
    return federation


@pytest.fixture
def scan(tmp_path):
    """A new scan, of which nothing is known."""
    write_case(tmp_path / "new", "scan", 1)
    (tmp_path / "new" / "scan.mrk.json").unlink()
    return tmp_path / "new" / "scan.nii.gz"


def listed(federation, name="site-a"):
    root = federation.sites[name].root
    return json.loads(invoke(site_program, "models", "--json", "--site-dir", root).stdout)["models"]


def test_two_commands_lead_from_completed_to_a_landmark_that_opens_in_slicer(
    trained, scan, tmp_path
):
    root, found = trained.sites["site-a"].root, tmp_path / "found"
    assert PLAN.name in invoke(site_program, "models", "--site-dir", root).stdout
    words = ("play", "--model", "latest", "--site-dir", root, scan, "-o", found)
    assert "N/A" in invoke(site_program, *words).stdout
    marks = read_landmarks(found / "scan.mrk.json")
    assert set(marks) == {"A", "B"}
    assert all(np.isfinite(point).all() for point in marks.values())
    assert json.loads((found / "scan.mrk.json").read_text())["markups"][0]["type"] == "Fiducial"


def test_every_site_came_to_the_same_model_and_keeps_its_own_errors(trained):
    (one,), (other,) = listed(trained), listed(trained, "site-b")
    assert one["weights"] == other["weights"]
    assert (one["plan"], one["plan_name"], one["unit"]) == (PLAN.fingerprint, PLAN.name, "mm")
    assert one["looks_for"] == ["A", "B"]
    assert {error["label"] for error in one["errors"]} == {"A", "B"}
    assert all(error["mean"] > 0 and error["prior"] >= 0 for error in one["errors"])
    assert one["errors"] != other["errors"], "each measured it on its own images"


def test_a_site_finds_the_same_with_its_own_model_as_with_the_coordinators_folder(
    trained, scan, tmp_path
):
    folder = tmp_path / "model"
    invoke(aggregator, "model", "latest", "-o", folder, "--dir", trained.folder.root)
    (kept,) = listed(trained)
    assert weights_digest(read_checkpoint(folder).weights) == kept["weights"]
    root = trained.sites["site-a"].root
    found = [
        json.loads(invoke(site_program, "play", *words, scan, "--json").stdout)["found"]
        for words in (
            ("--checkpoint", folder),
            ("--model", folder),
            ("--model", kept["weights"][:8], "--site-dir", root),
            ("--model", kept["folder"]),
        )
    ]
    assert found[0]
    assert all(each == found[0] for each in found)


def test_the_model_is_measured_like_any_and_says_that_it_has_no_prior(trained, tmp_path):
    folder, data = tmp_path / "model", trained.sites["site-b"].data()
    invoke(aggregator, "model", "latest", "-o", folder, "--dir", trained.folder.root)
    text = invoke(site_program, "evaluate", "--checkpoint", folder, "--data", data).stdout
    assert "No prior" in text
    root = trained.sites["site-a"].root
    words = ("--model", "latest", "--site-dir", root, "--data", data, "--json")
    told = json.loads(invoke(site_program, "evaluate", *words).stdout)
    assert told["cases"] == 3


def test_the_card_shows_errors_by_round_beside_the_prior_and_says_on_which_cases(trained, tmp_path):
    folder = tmp_path / "model"
    invoke(aggregator, "model", "latest", "-o", folder, "--dir", trained.folder.root)
    card = json.loads((folder / "card.json").read_bytes())
    whole = [error for error in card["errors"] if not error["label"]]
    assert [error["after"] for error in whole if error["part"] == whole[0]["part"]] == [0, 1, 2]
    last = {error["label"] for error in card["errors"] if error["after"] == 2}
    assert last == {"", "A", "B"}
    assert all(error["searches"] > 0 and error["prior"] > 0 for error in card["errors"])
    page = (folder / "card.md").read_text()
    assert "trained on: new ones will be worse" in page
    assert "| rounds of training | error | prior | searches |" in page
    assert "site-a0" not in page, "no name of a case"


def test_the_weights_of_a_real_run_are_computed_again_from_its_sums(trained, tmp_path):
    folder = tmp_path / "model"
    words = ("model", "latest", "-o", folder, "--sums", "--dir", trained.folder.root, "--json")
    told = json.loads(invoke(aggregator, *words).stdout)
    assert "sums/0002.cairn" in told["files"]
    ledgers = [w for name in SITES for w in ("--ledger", trained.sites[name].ledger)]
    done = invoke(auditor, "model", folder, *ledgers)
    assert done.exit_code == 0, done.stdout
    assert "bit for bit" in done.stdout
    assert "nothing disagrees; 0 things could not be looked at" in done.stdout


def test_a_model_is_named_in_one_way_and_must_be_there(trained, scan, tmp_path):
    root = trained.sites["site-a"].root
    for words in ((), ("--model", "latest", "--checkpoint", tmp_path)):
        with pytest.raises(UsageError, match="name one model"):
            invoke(site_program, "play", scan, "--site-dir", root, *words)
    for name in ("ab" * 32, "abc", "../site-b"):
        with pytest.raises(InputDataError, match="no such model"):
            invoke(site_program, "play", scan, "--site-dir", root, "--model", name)
    with pytest.raises(InputDataError, match="no such model"):
        invoke(site_program, "play", scan, "--site-dir", tmp_path, "--model", "latest")
    text = invoke(site_program, "models", "--site-dir", tmp_path).stdout
    assert "No run has come to a model here yet" in text


def test_a_sites_own_way_of_reading_images_goes_with_its_model(trained, scan):
    site = trained.sites["site-b"]
    words = ("play", "--model", "latest", "--site-dir", site.root, scan, "--json")
    site.data_file.write_text("nonsense = 1\n")
    try:
        with pytest.raises(InputDataError, match="nonsense"):
            invoke(site_program, *words)
        site.data_file.write_text("pixel_mm = 0.5\n")
        assert json.loads(invoke(site_program, *words).stdout)["found"]
    finally:
        site.data_file.unlink()


def test_a_folder_is_data_and_is_never_unpickled(trained, scan, tmp_path):
    """A pickle in the place of the weights, with a digest that fits, runs nothing."""
    folder, trap = tmp_path / "model", tmp_path / "sprung"
    invoke(aggregator, "model", "latest", "-o", folder, "--dir", trained.folder.root)
    pickled = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    (folder / "model.safetensors").write_bytes(pickled)
    about = json.loads((folder / "checkpoint.json").read_bytes())
    about["model_sha256"] = sha256_hex(pickled)
    (folder / "checkpoint.json").write_text(json.dumps(about))
    for words in (("play", scan), ("evaluate", "--data", scan.parent)):
        with pytest.raises(InputDataError, match="damaged"):
            invoke(site_program, *words, "--checkpoint", folder)
    assert invoke(auditor, "model", folder).exit_code == 4
    assert not trap.exists()


def test_a_kept_model_is_exported_for_other_programs(trained, tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    root, file = trained.sites["site-a"].root, tmp_path / "model.onnx"
    words = ("models", "--site-dir", root, "export", "latest", "--onnx", file, "--json")
    told = json.loads(invoke(site_program, *words).stdout)
    assert told["difference"] <= 1e-5
    assert file.stat().st_size == told["bytes"]
    words = ("models", "export", "latest", "--onnx", file, "--site-dir", root)
    assert "at most" in invoke(site_program, *words).stdout
