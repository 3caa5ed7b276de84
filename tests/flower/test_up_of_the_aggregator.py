"""`cairn-aggregator up` as a person starts it: whose lines are whose, and whose modules run."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.programs import Federation

pytestmark = pytest.mark.flower
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (up       |superlink|superexec|desk     ) \S.*")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """A federation whose folder's own folder holds files that are called as modules are."""
    made = Federation(tmp_path)
    made.init()
    for name in ("common.py", "numpy.py", "aggregator.py", "flwr.py", "ssl.py"):
        mark = f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n"
        (tmp_path / name).write_text(mark)
    try:
        yield made
    finally:
        made.stop()


def test_every_line_says_when_and_who_and_no_module_comes_from_the_folder_one_stands_in(
    federation,
):
    federation.start_aggregator(240)
    own = federation.processes["aggregator"]
    programs = own.children(recursive=True)
    assert len(programs) >= 2
    assert any("-P" in child.cmdline() for child in programs)
    for child in programs:
        assert child.environ()["PYTHONSAFEPATH"] == "1"
    own.send_signal(signal.SIGTERM)
    assert own.wait(60) == 0
    said = federation.log("aggregator").splitlines()
    assert all(LINE.fullmatch(line) for line in said), said
    assert any(" up        Aggregator real ready at 127.0.0.1:" in line for line in said)
    assert said[-1].endswith(" up        stopping")
    assert not (federation.root / "imported").exists()
    assert not any(psutil.pid_exists(child.pid) and child.is_running() for child in programs)
