"""The mutants themselves: each differs, each can be made again, texts are left alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import mutants_of, mutate
from tests.mutation.reach import REPOSITORY

SOURCE = '''
"""A head."""
LIMIT = 3
class Rule:
    size: Annotated[int, Field(ge=1, pattern="a")] = 2
def check(x: int) -> bool:
    """Say."""
    if x > LIMIT or not x:
        raise ValueError("too much" + str(4))
    LOG.info("seen %d", 5)
    return x == 1
'''


@pytest.fixture(scope="module")
def operators() -> list[str]:
    return [mutant.operator for mutant in mutants_of(SOURCE)]


def test_every_mutant_is_a_module_that_differs():
    plain = ast.unparse(ast.parse(SOURCE))
    made = [mutate(SOURCE, mutant) for mutant in mutants_of(SOURCE)]
    assert plain not in made
    assert len(set(made)) == len(made)
    for text in made:
        compile(text, "mutant", "exec")


def test_bounds_conditions_edges_and_refusals_are_changed(operators):
    wanted = {"edge moved", "comparison turned round", "and for or", "condition left out"}
    wanted |= {"refusal left out", "branch never taken", "pattern left out", "sign left out"}
    assert wanted <= set(operators)


def test_texts_of_errors_and_logs_are_left_alone():
    texts = [mutant.text for mutant in mutants_of(SOURCE) if mutant.operator.startswith("constant")]
    assert not any("too much" in text or "seen" in text for text in texts)


def test_a_mutant_of_another_source_is_not_made():
    last = mutants_of(SOURCE)[-1]
    with pytest.raises(LookupError):
        mutate("x = 1\n", last)


@pytest.mark.parametrize("path", ["common/ledger/proof.py", "site_client/egress/gate.py"])
def test_product_modules_have_many_mutants_that_all_compile(path):
    source = Path(__file__).parents[2].joinpath(path).read_text()
    mutants = mutants_of(source)
    assert len(mutants) > 30
    for mutant in mutants[::5]:
        compile(mutate(source, mutant), path, "exec")


FORKS = """
import sys, time
from pathlib import Path
from tests.mutation.running import Changed, start, wait
child = start(Changed("limits", sys.argv[1]), Path("limits.py"), ["test_limits.py"])
ended, outcome = wait({child: time.monotonic() + 60})
assert ended == child
print(outcome)
"""


@pytest.mark.parametrize(
    ("source", "test", "outcome"),
    [
        ("LIMIT = 4", "from limits import LIMIT\n\ndef test():\n    assert LIMIT == 3", "killed"),
        ("LIMIT = 4", "from limits import LIMIT\n\ndef test():\n    assert LIMIT", "survived"),
        ("LIMIT = 1 / 0", "from limits import LIMIT\n\ndef test():\n    assert LIMIT", "killed"),
        ("LIMIT = 4", "from limits import LIMIT\n\ndef test():\n    assert LIMIT == 5", "spoilt"),
        ("LIMIT = 4", "import limits, nothing_of_this_name", "spoilt"),
    ],
)
def test_only_what_passes_without_the_change_notices_it(tmp_path, source, test, outcome):
    (tmp_path / "limits.py").write_text("LIMIT = 3")
    (tmp_path / "test_limits.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .")
    # A process of its own: what forks here must not hold the threads of a whole test run.
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [sys.executable, "-c", FORKS, source],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert run.stdout.splitlines()[-1] == outcome
