"""What the canary looks for is what the product imports, and a name that is gone is seen."""

import json
import subprocess
import sys
from pathlib import Path

from tests.canary.__main__ import REPOSITORY, ROOMS, _environment
from tests.canary.names import imported_names, is_there


def test_every_way_to_import_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import flwr.app\nfrom flwr.app import Message as M, Array\nfrom flwrs import no\n"
        "def late():\n    from flwr.serverapp import Grid\n    from . import flwr\n"
    )
    assert imported_names("flwr", [tmp_path]) == {
        name: [(tmp_path / "a.py").as_posix()]
        for name in ("flwr.app:", "flwr.app:Array", "flwr.app:Message", "flwr.serverapp:Grid")
    }


def test_a_name_a_module_and_a_module_in_a_package_are_found_and_others_not() -> None:
    wanted = ("json:loads", "json:", "json:decoder", "json:gone", "gone:", "json.gone:x")
    assert [is_there(name) for name in wanted] == [True, True, True, False, False, False]


def test_all_that_the_product_imports_of_flower_is_in_the_pinned_release() -> None:
    names = imported_names("flwr", ROOMS)
    assert len(names) > 40
    said = subprocess.run(
        [sys.executable, "-m", "tests.canary", "--look-for-names"],
        env=_environment(None),
        cwd=REPOSITORY,
        input=json.dumps([*names, "flwr.app:Gone"]),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    ).stdout
    assert json.loads(said.splitlines()[-1]) == ["flwr.app:Gone"]
