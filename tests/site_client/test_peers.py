"""`cairn-site peers` as hospital staff type it after a telephone call, and what goes wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import invite_toml, make_invite
from aggregator.desk.server import DeskServer
from common.cli import run
from common.crypto.identity import read_signing_key
from common.errors import ExitCode
from common.ledger.records import parse_record
from site_client.cli import cli
from site_client.decisions.making import record_decisions
from site_client.keys.aloud import first_groups
from site_client.keys.directory import note_roster
from site_client.keys.ring import KeyRing
from site_client.keys.state import KeyState, note_key_state
from site_client.site import SiteFolder
from site_client.worker.loop import Worker
from tests.programs import free_ports

OTHER, THIRD = "b" * 16 + "0" * 48, "c" * 16 + "0" * 48


def join(federation: FederationFolder, root: Path, name: str, **words) -> tuple[SiteFolder, str]:
    """A site that typed `join`, and what it was told; its policy is the default."""
    invite, site = root / f"{name}.toml", SiteFolder(root / name)
    invite.write_bytes(invite_toml(make_invite(federation, name, "0" * 64, **words)))
    (root / "images").mkdir(exist_ok=True)
    typed = ["join", invite, "--data", root / "images", "--site-dir", site.root]
    done = CliRunner().invoke(cli, [str(word) for word in typed], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return site, done.output


@pytest.fixture
def closed(tmp_path: Path) -> FederationFolder:
    """A federation whose desk does not listen."""
    folder = FederationFolder(tmp_path / "fed")
    port = free_ports(4)
    settings = FederationSettings(name="brains", address=f"127.0.0.1:{port}", port=port)
    create_federation(folder, settings, ["127.0.0.1"])
    return folder


@pytest.fixture
def open_desk(closed):
    server = DeskServer(closed)
    server.start()
    yield closed
    server.stop()


@pytest.fixture
def site(closed, tmp_path) -> SiteFolder:
    """site-a, which joined by mail, and has heard of site-b and site-c from an order."""
    folder, _ = join(closed, tmp_path, "site-a", by_mail=True)
    note_roster(folder, {"site-a": fingerprint(folder), "site-b": OTHER, "site-c": THIRD})
    return folder


@pytest.fixture
def cairn(capsys, monkeypatch):
    """Types a line; (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(cli, [str(word) for word in words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def typing(site: SiteFolder, *words: str, typed: str) -> Result:
    """What a person types at the prompt, too."""
    line = ["peers", *words, "--site-dir", str(site.root)]
    return CliRunner().invoke(cli, line, input=typed, standalone_mode=False)


def fingerprint(site: SiteFolder) -> str:
    return read_signing_key(site.ledger_key).public.fingerprint


def decisions(site: SiteFolder) -> list[tuple[str, str | None, str | None, str | None]]:
    log = site.ledger / "log.jsonl"
    records = [parse_record(line) for line in log.read_bytes().splitlines()] if log.exists() else []
    return [
        (r.event, r.peer, r.peer_key, r.person) for r in records if r.event in ("CONFIRM", "FORGET")
    ]


def listed(cairn, site: SiteFolder) -> dict[str, object]:
    code, out, _ = cairn("peers", "--json", "--site-dir", site.root)
    assert code == 0
    return dict(json.loads(out))


def fact(cairn, site: SiteFolder) -> dict[str, str]:
    _, out, _ = cairn("check", "--json", "--site-dir", site.root)
    [found] = [fact for fact in json.loads(out)["facts"] if fact["name"] == "peers"]
    return dict(found)


# Looking.


def test_the_list_shows_what_to_read_aloud_and_what_to_do(cairn, site):
    code, out, _ = cairn("peers", "--site-dir", site.root)
    assert code == 0
    assert first_groups(fingerprint(site)) in out
    assert "site-b: NOT CONFIRMED" in out
    assert "bbbb bbbb bbbb bbbb 0000" in out
    assert "0 of 2 other sites confirmed; at least 2 are needed." in out
    assert "Next: Telephone site-b, site-c, then: cairn-site peers confirm site-b site-c" in out


def test_for_programs_it_gives_whole_fingerprints(cairn, site):
    told = listed(cairn, site)
    assert (told["site"], told["fingerprint"]) == ("site-a", fingerprint(site))
    assert (told["confirmed"], told["needed"]) == (0, 2)
    assert told["asked"] == "this site joined by mail"
    assert [(p["site"], p["standing"], p["shows"]) for p in told["peers"]] == [
        ("site-b", "unconfirmed", [OTHER]),
        ("site-c", "unconfirmed", [THIRD]),
    ]
    cairn("peers", "confirm", f"site-b:{OTHER}", "--by", "M. Curie", "--site-dir", site.root)
    [known, _] = listed(cairn, site)["peers"]
    assert (known["standing"], known["person"]) == ("confirmed", "M. Curie")
    assert known["confirmed_key"] == OTHER
    assert re.fullmatch(r"20\d\d-.*Z", known["at"])


def test_help_teaches_the_telephone_call_and_names_every_field(cairn, site):
    text = CliRunner().invoke(cli, ["peers", "--help"]).output
    for words in ("number that you know", "Read aloud your own", "type what you hear", "confirm"):
        assert words in text
    told = listed(cairn, site)
    for name in [*told, *told["peers"][0]]:
        assert name in text
    assert "Never copy them" in CliRunner().invoke(cli, ["peers", "confirm", "--help"]).output


# Confirming.


def test_what_was_heard_is_typed_and_who_decided_stands_in_the_ledger(cairn, site):
    code, out, err = cairn(
        *("peers", "confirm", "site-b:BBBB-bbbb bbbb:bbbb", f"site-c:{THIRD}"),
        *("--by", "M. Curie", "--site-dir", site.root),
    )
    assert (code, err) == (0, "")
    assert decisions(site) == [
        ("CONFIRM", "site-b", OTHER, "M. Curie"),
        ("CONFIRM", "site-c", THIRD, "M. Curie"),
    ]
    assert "2 of 2 other sites confirmed; at least 2 are needed." in out
    assert "Next:" not in out


def test_without_digits_it_asks_for_them(site):
    done = typing(site, "confirm", "site-b", "--by", "M. Curie", typed="bbbb BBBB bbbb bbbb\n")
    assert done.exit_code == 0, done.output
    assert "bbbb bbbb bbbb bbbb 0000" in done.stderr, "the person compares what is shown, too"
    assert decisions(site) == [("CONFIRM", "site-b", OTHER, "M. Curie")]


@pytest.mark.parametrize("typed", ["yes\n", "y\n", "bbbb bbbb bbbb\n"])
def test_a_yes_confirms_nobody(site, typed):
    done = typing(site, "confirm", "site-b", typed=typed)
    assert done.exception is not None
    assert done.exception.exit_code == ExitCode.USAGE
    assert decisions(site) == []


def test_an_answer_that_never_comes_confirms_nobody(site):
    done = typing(site, "confirm", "site-b", typed="")
    assert done.exit_code != 0
    assert decisions(site) == []


def test_other_digits_end_with_4_and_nobody_is_confirmed(cairn, site):
    code, out, err = cairn(
        "peers", "confirm", f"site-c:{THIRD}", "site-b:bbbbbbbbbbbbbbbc", "--site-dir", site.root
    )
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert "ledger key of site-b must be bbbb bbbb bbbb bbbc, as it was read aloud" in err
    assert "got bbbb bbbb bbbb bbbb from the aggregator" in err
    assert "read aloud once more" in err
    assert decisions(site) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("site-d",), 6, "nobody here has heard of this site"),
        (("site-d:" + "d" * 16,), 6, "a name with 16 digits"),
        (("site-a",), 2, "this is this site itself"),
        (("site-b:bbbb",), 2, "4 digits"),
        (("site-b:" + OTHER + "0",), 2, "65 digits"),
        (("site-b:", f"site-c:{THIRD}"), 2, "0 digits"),
        ((f"site-b:{OTHER}", f"site-b:{OTHER}"), 2, "named twice"),
        ((f"Site D:{'d' * 64}",), 6, "cannot be recorded"),
        ((f"site-b:{OTHER}", "--by", "a\nb"), 6, "cannot be recorded"),
        ((f"site-d:{OTHER}", f"site-b:{OTHER}"), 4, "another site's"),
    ],
    ids=str,
)
def test_what_cannot_be_confirmed_is_one_line_and_no_record(cairn, site, words, code, says):
    ended, out, err = cairn("peers", "confirm", *words, "--site-dir", site.root)
    assert (ended, out) == (code, "")
    assert err.count("\n") == 1
    assert says in err
    assert decisions(site) == []


def test_our_own_key_is_nobody_elses(cairn, site):
    code, _, err = cairn("peers", "confirm", f"site-d:{fingerprint(site)}", "--site-dir", site.root)
    assert code == 4
    assert "got that of site-a" in err


def test_a_site_that_nobody_told_of_is_confirmed_by_all_its_digits(cairn, site):
    words = ("peers", "confirm", f"site-d:{'d' * 64}", "--by", "me", "--site-dir", site.root)
    assert cairn(*words)[0] == 0
    assert decisions(site) == [("CONFIRM", "site-d", "d" * 64, "me")]


def test_the_same_again_records_nothing(cairn, site):
    words = ("peers", "confirm", f"site-b:{OTHER}", "--site-dir", site.root)
    assert cairn(*words)[0] == 0
    for again in (words, ("peers", "confirm", "site-b", "--site-dir", site.root)):
        code, out, _ = cairn(*again)
        assert code == 0
        assert "confirmed already" in out
    assert len(decisions(site)) == 1


def test_a_confirmed_site_with_another_key_must_be_forgotten_first(cairn, site):
    assert cairn("peers", "confirm", f"site-b:{OTHER}", "--site-dir", site.root)[0] == 0
    new = "e" * 64
    code, _, err = cairn("peers", "confirm", f"site-b:{new}", "--site-dir", site.root)
    assert code == 4
    assert "confirmed here with another key" in err
    note_roster(site, {"site-b": new})
    code, _, err = cairn("peers", "confirm", "site-b", "--site-dir", site.root)
    assert code == 4
    assert "must be bbbb bbbb bbbb bbbb, got eeee eeee eeee eeee" in err
    assert "site-b: CHANGED KEY" in cairn("peers", "--site-dir", site.root)[1]
    assert cairn("peers", "forget", "site-b", "--site-dir", site.root)[0] == 0
    assert cairn("peers", "confirm", f"site-b:{new}", "--site-dir", site.root)[0] == 0
    assert [made[0] for made in decisions(site)] == ["CONFIRM", "FORGET", "CONFIRM"]


def test_by_default_whoever_is_logged_in_decides(cairn, site, monkeypatch):
    monkeypatch.setenv("LOGNAME", "curie")
    assert cairn("peers", "confirm", f"site-b:{OTHER}", "--site-dir", site.root)[0] == 0
    assert decisions(site)[0][3] == "curie"


def test_the_folder_may_be_named_before_the_word(cairn, site):
    words = ("peers", "--site-dir", site.root, "confirm", f"site-b:{OTHER}")
    assert cairn(*words)[0] == 0
    assert len(decisions(site)) == 1


def test_whoever_mistypes_a_name_to_forget_learns_it(cairn, site):
    cairn("peers", "confirm", f"site-b:{OTHER}", "--site-dir", site.root)
    code, _, err = cairn("peers", "forget", "site-b", "site-c", "--site-dir", site.root)
    assert code == 6
    assert "site-c must be site-b, got another name" in err
    assert [made[0] for made in decisions(site)] == ["CONFIRM"]


def test_while_a_worker_runs_it_records_what_was_typed(cairn, site):
    stop = threading.Event()
    with Worker(site, stop) as worker:

        def serve() -> None:
            while not stop.wait(0.05):
                record_decisions(site, worker._ledger)
                worker.turn()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            words = ("peers", "confirm", f"site-b:{OTHER}", "--site-dir", site.root)
            assert cairn(*words)[0] == 0
        finally:
            stop.set()
            thread.join(30)
    assert len(decisions(site)) == 1


# What check and status say.


def test_check_counts_and_says_what_to_do(cairn, site):
    found = fact(cairn, site)
    assert found["level"] == "warning"
    assert found["says"] == "0 of 2 other sites confirmed; at least 2 are needed"
    assert "cairn-site peers confirm site-b site-c" in found["fix"]
    cairn("peers", "confirm", f"site-b:{OTHER}", f"site-c:{THIRD}", "--site-dir", site.root)
    found = fact(cairn, site)
    assert (found["level"], found["fix"]) == ("ok", "")
    assert found["says"] == "2 of 2 other sites confirmed; at least 2 are needed"


def test_check_says_when_nobody_was_heard_of(cairn, site):
    note_roster(site, {})
    found = fact(cairn, site)
    assert found["says"] == "no other site was heard of yet; at least 2 are needed"
    assert "cairn-site up" in found["fix"]


def test_check_is_bad_when_a_confirmed_site_shows_another_key(cairn, site):
    cairn("peers", "confirm", f"site-b:{OTHER}", f"site-c:{THIRD}", "--site-dir", site.root)
    note_key_state(site, KeyState(changed={"site-b": "e" * 64}))
    found = fact(cairn, site)
    assert found["level"] == "bad"
    assert found["says"].startswith("CHANGED KEY: site-b; 1 of 2 other sites")
    assert "Telephone site-b" in found["fix"]
    assert json.loads(cairn("status", "--json", "--site-dir", site.root)[1])["peers"][
        "changed"
    ] == ["site-b"]


@pytest.mark.parametrize(
    ("before", "after", "promise"),
    [
        ('share = "listed"', 'share = "admitted"', "invents a site is handed the federation key"),
        ("\n[plans]\n", "\n[peers]\nleast_known = 0\n[plans]\n", "a run may be invented"),
        ("\n[plans]\n", "\n[peers]\nleast_known = 1\n[plans]\n", "all others of a run but one"),
        ("\n[plans]\n", "\n[peers]\nleast_in_sum = 0\n[plans]\n", "stand behind a sum"),
    ],
    ids=["admitted", "none known", "one known", "none in sum"],
)
def test_a_policy_that_gives_a_promise_away_is_told_which(cairn, site, before, after, promise):
    text = re.sub(r"(?ms)^\[peers\]$.*?(?=^\[|\Z)", "", site.policy_file.read_text())
    assert before in text
    cairn("peers", "confirm", f"site-b:{OTHER}", f"site-c:{THIRD}", "--site-dir", site.root)
    site.policy_file.write_text(text.replace(before, after, 1))
    found = fact(cairn, site)
    assert found["level"] == "warning"
    assert promise in found["says"]
    assert promise in cairn("peers", "--site-dir", site.root)[1]


def test_status_has_a_line(cairn, site):
    assert (
        "peers     0 of 2 other sites confirmed; at least 2 are needed"
        in cairn("status", "--site-dir", site.root)[1]
    )
    told = json.loads(cairn("status", "--json", "--site-dir", site.root)[1])["peers"]
    assert told == {
        "confirmed": 0,
        "others": 2,
        "needed": 2,
        "changed": [],
        "says": "0 of 2 other sites confirmed; at least 2 are needed",
    }


# Over a real desk.


def test_join_ends_with_the_call_and_what_is_left_to_type(open_desk, tmp_path):
    site, told = join(open_desk, tmp_path, "site-a")
    where = f"--site-dir {site.root}"
    assert told.count("telephone") == 1
    assert first_groups(fingerprint(site)) in told
    left = [line for line in told.splitlines() if line.startswith("  cairn-site")]
    assert [line.split(" --site-dir")[0].strip() for line in left] == [
        "cairn-site peers confirm NAME...",
        "cairn-site plans",
        "cairn-site up",
    ], "with join these are four"
    assert all(where in line for line in left)


def test_three_hospitals_need_a_call_and_a_command_each(cairn, open_desk, tmp_path):
    sites = {name: join(open_desk, tmp_path, name)[0] for name in ("site-a", "site-b", "site-c")}
    aloud = {name: first_groups(fingerprint(site)) for name, site in sites.items()}
    for name, site in sites.items():
        assert [p["site"] for p in listed(cairn, site)["peers"]] == sorted(set(sites) - {name})
        heard = [f"{other}:{digits}" for other, digits in aloud.items() if other != name]
        code, out, err = cairn("peers", "confirm", *heard, "--site-dir", site.root)
        assert (code, err) == (0, "")
        assert "2 of 2 other sites confirmed" in out
    # Every look hands on what can be; `up` goes on with it.
    for _ in range(2):
        for site in sites.values():
            assert listed(cairn, site)["asked"] == ""
    assert len({KeyRing(site).newest().key.key_id for site in sites.values()}) == 1


def test_an_invented_site_is_listed_and_gets_nothing(cairn, open_desk, tmp_path):
    site, _ = join(open_desk, tmp_path, "site-a")
    invented, told = join(open_desk, tmp_path, "site-x")
    assert "site-a to be confirmed: cairn-site peers confirm site-a" in told
    words = ("peers", "confirm", f"site-a:{fingerprint(site)}", "--site-dir", invented.root)
    assert cairn(*words)[0] == 0
    for _ in range(2):
        for folder in (site, invented):
            listed(cairn, folder)
    assert KeyRing(site).newest() is not None
    assert KeyRing(invented).newest() is None


def test_a_desk_that_does_not_answer_is_said_and_what_was_heard_is_shown(cairn, closed, tmp_path):
    server = DeskServer(closed)
    server.start()
    site, _ = join(closed, tmp_path, "site-a")
    join(closed, tmp_path, "site-b")
    listed(cairn, site)
    server.stop()
    start = time.monotonic()
    code, out, _ = cairn("peers", "--site-dir", site.root)
    assert code == 0
    assert "The desk was not asked just now" in out
    assert "site-b: NOT CONFIRMED" in out
    assert time.monotonic() - start < 10
