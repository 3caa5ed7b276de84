"""Of Flower's logs a person sees what went wrong, once, and none of the rest."""

from __future__ import annotations

from aggregator.troubles import Troubles

CALM = "\x1b[92mINFO [0m:      Starting Flower SuperLink\n"
BAD = "\x1b[91mERROR [0m:     a ServerApp ended with 1\n"


def test_warnings_and_errors_are_told_as_they_come_and_no_colour_with_them(tmp_path):
    path = tmp_path / "superlink.log"
    troubles = Troubles(path)
    assert list(troubles.new()) == [], "the file may come later"
    path.write_text(CALM + "\x1b[93mWARNING \x1b[0m:   careful\n")
    assert list(troubles.new()) == ["WARNING careful"]
    assert list(troubles.new()) == []
    with path.open("a") as log:
        log.write(CALM + "2026-11-21T15:54:16.794Z ERROR [uvicorn.error] no more files\n")
    assert list(troubles.new()) == ["ERROR [uvicorn.error] no more files"]


def test_what_was_there_before_and_a_line_half_written_are_not_told_yet(tmp_path):
    path = tmp_path / "superlink.log"
    path.write_text("ERROR : of an earlier start\n")
    troubles = Troubles(path)
    with path.open("a") as log:
        log.write("ERROR : half a")
        log.flush()
        assert list(troubles.new()) == []
        log.write(" line\n")
    assert list(troubles.new()) == ["ERROR half a line"]


def test_the_same_again_is_told_once_and_what_we_chose_never(tmp_path):
    path = tmp_path / "superlink.log"
    troubles = Troubles(path)
    chosen = "WARNING : EXPERIMENTAL: SuperExec authentication is experimental\n"
    path.write_text(chosen + 3 * BAD.replace("\x1b[91m", "").replace("[0m", ""))
    assert list(troubles.new()) == ["ERROR a ServerApp ended with 1"]
