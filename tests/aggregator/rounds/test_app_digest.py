"""The digest in an invite is the one of what a run starts, however it was come by."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from aggregator.admin.folder import FederationFolder
from aggregator.rounds import app_digest as module
from aggregator.rounds.app_digest import APP_FOLDER, MEMORY, app_bundle, app_digest


@pytest.fixture
def folder(tmp_path) -> FederationFolder:
    made = FederationFolder(tmp_path)
    made.flower.mkdir()
    return made


def test_it_is_the_bundles_and_stays_so_when_it_is_remembered(folder):
    assert app_digest(folder) == app_bundle()[1]
    assert (folder.flower / MEMORY).exists()
    assert app_digest(folder) == app_bundle()[1]


def test_a_remembered_one_needs_no_flower(folder):
    app_digest(folder)
    script = (
        "import sys; from pathlib import Path\n"
        "from aggregator.admin.folder import FederationFolder\n"
        "from aggregator.rounds.app_digest import app_digest\n"
        f"print(app_digest(FederationFolder(Path({str(folder.root)!r}))), 'flwr' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == [app_bundle()[1], "False"]


@pytest.mark.parametrize("what", ["file", "release", "damage"])
def test_what_was_made_of_something_else_is_made_anew(folder, tmp_path, monkeypatch, what):
    app_digest(folder)
    memory = folder.flower / MEMORY
    spoilt = memory.read_text().replace(app_bundle()[1], "0" * 64)
    memory.write_text(spoilt)
    assert app_digest(folder) == "0" * 64, "as long as nothing has changed it is believed"
    if what == "file":
        app = shutil.copytree(APP_FOLDER, tmp_path / "app")
        (app / "pyproject.toml").write_text("# another\n")
        monkeypatch.setattr(module, "APP_FOLDER", app)
    elif what == "release":
        monkeypatch.setattr(module, "version", lambda _: "0.0.0")
    else:
        memory.write_text("{")
    assert app_digest(folder) == app_bundle()[1]
