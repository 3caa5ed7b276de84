"""A part that is not installed: named with its extra and the line that installs it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import extras
from deploy.bundle.locks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# A child in which the modules of some extras cannot be found, as if they were not installed.
CHILD = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if any(name == each or name.startswith(each + ".") for each in {absent!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from {module} import main
sys.argv = {words!r}
main()
"""


def only(*installed: str) -> list[str]:
    """The modules that are absent when only these extras are installed."""
    here = {module for extra in installed for module in extras.extras()[extra]}
    return sorted({m for modules in extras.extras().values() for m in modules} - here)


def typed(*words: str, absent: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    module = {"cairn-site": "site_client.cli", "cairn-aggregator": "aggregator.cli"}
    code = CHILD.format(
        absent=absent, words=list(words), module=module.get(words[0], "common.audit.cli")
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_every_module_of_every_extra_is_its_distributions_own():
    """Modules that are not called as their distribution are; a new one cannot be forgotten."""
    owners = packages_distributions()
    for extra, lines in PROJECT["optional-dependencies"].items():
        wanted = {canonicalize_name(Requirement(line).name) for line in lines}
        modules = [m for m in extras.extras()[extra] if not m.startswith(("types_", "scipy_stubs"))]
        assert len(extras.extras()[extra]) == len(wanted), extra
        for module in modules:
            owned = owners[module.partition(".")[0]]
            assert wanted & {canonicalize_name(name) for name in owned}, module


@pytest.mark.parametrize(
    ("words", "installed", "extra"),
    [
        (("cairn-site", "train", "--data", "images", "-o", "run"), ("courier",), "worker"),
        (("cairn-site", "play", "--checkpoint", "run", "a.nii", "-o", "b"), ("courier",), "worker"),
        (("cairn-site", "worker", "--site-dir", "site"), ("courier",), "worker"),
        (("cairn-site", "courier", "--site-dir", "site"), ("worker",), "courier"),
        (("cairn-site", "up", "--site-dir", "site"), ("courier",), "worker"),
        (("cairn-site", "up", "--site-dir", "site"), ("worker",), "courier"),
        (("cairn-aggregator", "init", "fed", "--name", "x", "--address", "h:1"), (), "aggregator"),
        (("cairn-aggregator", "up", "--dir", "fed"), (), "aggregator"),
        (
            ("cairn-aggregator", "codebook", "build", "k.safetensors", "-o", "b.json"),
            (),
            "aggregator",
        ),
    ],
)
def test_a_command_without_its_extra_names_it_and_the_line_that_installs_it(
    tmp_path, words, installed, extra
):
    (tmp_path / "images").mkdir()
    (tmp_path / "run").mkdir()
    for name in ("a.nii", "k.safetensors"):
        (tmp_path / name).touch()
    done = typed(*words, absent=only(*installed), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = extras.install_command(extra, checkout=extras.checkout_folder())
    assert f"installed, with the extra '{extra}'" in done.stderr
    assert done.stderr.endswith(f"Install it: {line} (exit 2)\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "fed").exists(), "nothing is half made"


def test_the_same_as_json(tmp_path):
    words = ("cairn-site", "train", "--data", ".", "-o", "run", "--json")
    done = typed(*words, absent=only("courier"), cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["error"], told["exit_code"]) == ("MissingExtraError", 2)
    assert "worker" in told["expected"]


@pytest.mark.parametrize("program", ["cairn-site", "cairn-aggregator", "cairn-audit"])
def test_help_and_version_need_no_extra(tmp_path, program):
    for word in ("-h", "--version"):
        done = typed(program, word, absent=only(), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_line_is_the_one_for_a_release_a_checkout_or_an_unpacked_archive():
    env = Path("/srv/my env")
    python = shlex.quote("/srv/my env/bin/python")
    assert extras.install_command("worker", prefix=env) == (
        f"{python} -m pip install 'cairn-fl[worker]'"
    )
    assert extras.install_command("worker", prefix=env, checkout=Path("/src/cairn")) == (
        f"cd /src/cairn && {python} -m pip install -e '.[worker]'"
    )
    archive = Path("/opt/cairn/releases/courier-0.1.0-abc")
    assert extras.install_command("worker", prefix=archive) == "sh install.sh worker /opt/cairn"


def test_of_an_unpacked_release_the_environment_beside_is_used_and_named(tmp_path, monkeypatch):
    """Worker and courier have one each there: `up` starts both, and other commands say where."""
    own = tmp_path / "releases" / "worker-0.1.0-abc"
    monkeypatch.setattr(extras, "_is_here", lambda module: module not in ("grpc", "flwr"))
    with pytest.raises(extras.MissingExtraError, match=r"with the extra 'courier'\. Install it"):
        extras.python_with("courier", prefix=own)
    beside = tmp_path / "courier" / "bin"
    beside.mkdir(parents=True)
    (beside / "python").touch()
    assert extras.python_with("courier", prefix=own) == str(beside / "python")
    assert extras.python_with("worker", prefix=own) == sys.executable
    monkeypatch.setattr(sys, "prefix", str(own))
    told = extras.missing_extra("grpc", "cairn-site")
    assert told is not None
    assert told.advice == f"It is beside this: use the programs in {beside}"


def test_check_needs_one_half_of_a_site_only(tmp_path, make_site):
    site = make_site(images=1).folder
    words = ("cairn-site", "check", "--site-dir", str(site.root), "--json")
    for extra in ("courier", "worker"):
        done = typed(*words, absent=only(extra), cwd=tmp_path)
        facts = {fact["name"]: fact for fact in json.loads(done.stdout)["facts"]}
        assert not any("not looked at" in fact["says"] for fact in facts.values()), extra
        assert "confinement" in facts, "it goes on to the end"


def test_people_look_at_peers_where_nothing_can_ask_the_desk(tmp_path, make_site):
    """In a worker's container, for one: its courier hears of the others."""
    site = make_site(images=1).folder
    words = ("cairn-site", "peers", "--site-dir", str(site.root), "--json")
    done = typed(*words, absent=only("worker"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["asked"]
    other = f"site-b:{'ab' * 32}"
    words = ("cairn-site", "peers", "confirm", other, "--by", "Ada", "--site-dir", str(site.root))
    done = typed(*words, absent=only("worker"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "site-b is confirmed by Ada" in done.stdout


def test_a_module_that_no_extra_brings_is_no_missing_extra():
    assert extras.missing_extra("a_module_of_nobody", "cairn-site") is None
    assert extras.missing_extra("json.nothing_such", "cairn-site") is None
