"""``make canary``: Cairn's own Flower tests on the newest Flower that can be installed here.

The release is put into a folder of its own, before the environment's packages: nothing that
is installed changes, and what it depends on is what is here, also where it asks for more
(that is told). First every name of Flower that we import is looked for, then the tests of
real federations run. Exit code 1: something no longer holds; the pin stays where it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement

from tests.canary.names import imported_names, is_there

REPOSITORY = Path(__file__).parents[2]
ROOMS = [REPOSITORY / room for room in ("common", "site_client", "aggregator", "deploy")]
HOLDS, BROKEN, NOT_INSTALLED = 0, 1, 3
_REQUIRED = """
import json
from importlib.metadata import requires
print(json.dumps(requires("flwr")))
"""


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.look_for_names:
        print(json.dumps([name for name in json.load(sys.stdin) if not is_there(name)]))
        return HOLDS
    if arguments.into is not None:
        return _tried(arguments, arguments.into)
    with tempfile.TemporaryDirectory(prefix="cairn-canary-") as folder:
        return _tried(arguments, Path(folder))


def _tried(arguments: argparse.Namespace, folder: Path) -> int:
    wanted = "flwr" if arguments.release is None else f"flwr=={arguments.release}"
    if not _install(wanted, folder):
        print(f"error: {wanted} cannot be installed here; nothing was tried", file=sys.stderr)
        return NOT_INSTALLED
    names = imported_names("flwr", ROOMS)
    report = {
        "release": _release(folder),
        "pinned": _release(None),
        "lacking": _lacking(folder),
        "names": len(names),
        "missing": {name: names[name] for name in _missing(list(names), folder)},
        "tests": None if arguments.only_names else _tests(arguments.tests, folder),
    }
    _show(report, as_json=arguments.json)
    tests = report["tests"]
    failed = tests is not None and (tests["code"] != 0 or tests["run"] == 0)
    return BROKEN if report["missing"] or failed else HOLDS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.canary", description=__doc__)
    parser.add_argument("--release", help="another release than the newest, such as 1.42.0")
    parser.add_argument("--into", type=Path, help="install there and keep it (default: nowhere)")
    parser.add_argument("--only-names", action="store_true", help="look for names, run no test")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--look-for-names", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "tests", nargs="*", default=["tests/flower"], help="what pytest runs (tests/flower)"
    )
    return parser


def _install(wanted: str, folder: Path) -> bool:
    """Put a release into a folder, without what it depends on; pip speaks to our errors."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run([*command, str(folder), wanted], stdout=sys.stderr, check=False)
    return done.returncode == 0


def _environment(folder: Path | None) -> dict[str, str]:
    """Ours, with a folder's packages before those that are installed."""
    before = [str(REPOSITORY)] if folder is None else [str(REPOSITORY), str(folder)]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join(before)}


def _asked(folder: Path | None, *arguments: str, given: str = "") -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        env=_environment(folder),
        cwd=REPOSITORY,
        input=given,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    ).stdout


def _release(folder: Path | None) -> str:
    return _asked(folder, "-c", "import flwr; print(flwr.__version__)").strip()


def _lacking(folder: Path) -> list[str]:
    """What the release asks for and this environment has not, or not in that version."""
    lacking = []
    for line in json.loads(_asked(folder, "-c", _REQUIRED)):
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            lacking.append(f"{line} (not here)")
            continue
        if not wanted.specifier.contains(here, prereleases=True):
            lacking.append(f"{line} (here: {here})")
    return lacking


def _missing(names: list[str], folder: Path) -> list[str]:
    said = _asked(folder, "-m", "tests.canary", "--look-for-names", given=json.dumps(names))
    missing: list[str] = json.loads(said.splitlines()[-1])
    return missing


def _tests(chosen: list[str], folder: Path) -> dict[str, int]:
    """Run tests on the release; their counts, and pytest's exit code."""
    figures = folder / "canary.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={figures}", *chosen]
    code = subprocess.run(
        command, env=_environment(folder), cwd=REPOSITORY, stdout=sys.stderr, check=False
    ).returncode
    counts = {"run": 0, "failures": 0, "errors": 0, "skipped": 0}
    if figures.is_file():
        suite = next(ElementTree.parse(figures).getroot().iter("testsuite"))  # noqa: S314 - ours
        counts = {key: int(suite.get("tests" if key == "run" else key, 0)) for key in counts}
    return {"code": code, **counts}


def _show(report: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, indent=2))
        return
    missing, tests = report["missing"], report["tests"]
    assert isinstance(missing, dict)
    print(f"flwr {report['release']} (pinned: {report['pinned']})")
    assert isinstance(report["lacking"], list)
    for line in report["lacking"]:
        print(f"asks for {line}")
    print(f"names we import: {report['names']}, of which missing: {len(missing)}")
    for name, files in missing.items():
        print(f"  {name}  in {', '.join(files)}")
    if isinstance(tests, dict):
        print(", ".join(f"{key} {value}" for key, value in tests.items() if key != "code"))
    print("holds" if not missing and (tests is None or tests["code"] == 0) else "DOES NOT HOLD")


if __name__ == "__main__":
    sys.exit(main())
