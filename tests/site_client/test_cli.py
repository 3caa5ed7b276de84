"""What a hospital's IT types, reads and scripts against: words, files and exit codes."""

import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from datetime import UTC, datetime

import pytest

from common.canonical import sha256_hex
from common.cli import run
from common.crypto.certificates import (
    certificate_to_pem,
    create_authority,
    issue_server_certificate,
    write_certificate,
    write_tls_key,
)
from common.crypto.identity import read_signing_key
from common.crypto.keyed import read_federation_key
from common.enrolment import read_request
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.model import initial_weights
from common.policy import read_policy
from site_client import checks, supervise
from site_client.cli import cli
from site_client.site import SiteFolder
from site_client.supervise import Child, commands, keep_running


@pytest.fixture(autouse=True)
def _leave_signals_and_logs_as_they_were():
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers, logger = [signal.getsignal(number) for number in numbers], logging.getLogger("cairn")
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def cairn(capsys):
    """Run a command line: (exit code, standard output, standard error)."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(cli, [str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def invite_file(tmp_path, invite_and_witness):
    invite, _ = invite_and_witness
    lines = [f"{k} = {json.dumps(v)}" for k, v in invite.model_dump().items()]
    path = tmp_path / "north.invite.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def plan_file(site, tmp_path):
    """The site's plan as a person would write it."""

    def toml(value):
        return json.dumps(value)

    plan = site.plan.model_dump(mode="json")
    tops = [f"{k} = {toml(v)}" for k, v in plan.items() if not isinstance(v, dict)]
    tables = [
        f"[{name}]\n" + "\n".join(f"{k} = {toml(v)}" for k, v in table.items())
        for name, table in plan.items()
        if isinstance(table, dict)
    ]
    path = tmp_path / "plan.toml"
    path.write_text("\n".join(tops + tables))
    return path


# Joining.


def test_joining_makes_keys_on_this_disk_and_a_request_with_public_halves_only(
    cairn, invite_file, tmp_path
):
    data = tmp_path / "images"
    data.mkdir()
    root = tmp_path / "site"
    code, out, _ = cairn(
        "join", invite_file, "--data", data, "--site-dir", root, "--new-federation-key"
    )
    site = SiteFolder(root)
    assert code == 0
    for secret in (site.ledger_key, site.node_key, site.federation_key):
        assert secret.stat().st_mode & 0o077 == 0
    request = read_request(root / "request.json")
    text = (root / "request.json").read_text()
    assert request.site == "north"
    assert request.node_key.startswith("ecdsa-sha2-nistp384 ")
    assert "PRIVATE" not in text
    assert read_federation_key(site.federation_key).secret.hex() not in text
    assert site.settings().site == "north"
    assert site.data() == data.resolve()
    read_policy(site.policy_file)
    invite = tomllib.loads(invite_file.read_text())
    assert invite["ca_sha256"] in out
    assert "request.json" in out


def test_joining_twice_overwrites_nothing(cairn, invite_file, tmp_path):
    words = ("join", invite_file, "--data", tmp_path, "--site-dir", tmp_path / "site")
    assert cairn(*words)[0] == 0
    key = (tmp_path / "site/worker/ledger.key").read_bytes()
    code, _, err = cairn(*words)
    assert code == 6
    assert "holds a site already" in err
    assert (tmp_path / "site/worker/ledger.key").read_bytes() == key


def test_an_invite_whose_certificate_is_another_is_refused(cairn, invite_file, tmp_path):
    _, other = create_authority("somebody else")
    invite = tomllib.loads(invite_file.read_text())
    invite["ca_certificate"] = certificate_to_pem(other).decode()
    invite_file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in invite.items()))
    code, _, err = cairn("join", invite_file, "--data", tmp_path, "--site-dir", tmp_path / "s")
    assert code == 4
    assert "contradicts itself" in err
    assert not (tmp_path / "s").exists()


def test_a_federation_key_is_brought_or_made_but_not_both(cairn, invite_file, tmp_path):
    words = ("join", invite_file, "--data", tmp_path, "--site-dir", tmp_path / "site")
    key = tmp_path / "shared.key"
    key.write_text("00" * 16)
    key.chmod(0o600)
    assert cairn(*words, "--federation-key", key, "--new-federation-key")[0] == 2
    assert cairn(*words, "--federation-key", key)[0] == 0
    assert read_federation_key(tmp_path / "site/worker/federation.key").secret == bytes(16)


# Checking.


def facts_of(cairn, site):
    code, out, _ = cairn("check", "--json", "--site-dir", site.folder.root)
    answer = json.loads(out)
    return code, answer["ready"], {fact["name"]: fact for fact in answer["facts"]}


@pytest.fixture
def listening(tmp_path, site):
    """A TLS server with a clock, under the authority of the site; yields its clock's offset."""
    key, authority = create_authority("test federation")
    site.folder.authority.unlink()
    write_certificate(site.folder.authority, authority)
    server_key, certificate = issue_server_certificate(key, authority, ["127.0.0.1"])
    write_tls_key(tmp_path / "server.key", server_key)
    write_certificate(tmp_path / "server.crt", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    text = site.folder.settings_file.read_text().replace("127.0.0.1:1", address)
    site.folder.settings_file.write_text(text)
    offset = {"s": 0.0}

    def serve():
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(4096)
                    from email.utils import formatdate

                    date = formatdate(time.time() - offset["s"], usegmt=True)
                    secure.sendall(f"HTTP/1.1 200 OK\r\nDate: {date}\r\n\r\n".encode())
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield offset
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_a_complete_site_is_ready(cairn, site, listening):
    code, ready, facts = facts_of(cairn, site)
    # Two processes of one machine are not containers, and check says so; nor is anybody
    # of the other sites confirmed yet, or named as a third witness.
    warned = ("confinement", "peers", "witnesses")
    expected = dict.fromkeys(facts, "ok") | dict.fromkeys(warned, "warning")
    assert {name: fact["level"] for name, fact in facts.items()} == expected
    assert (code, ready) == (0, True)
    assert facts["images"]["says"] == "3 scans, 2 landmarks in every one"
    assert "only " in facts["app"]["says"]
    assert facts["held out"]["says"].startswith(
        "none of 3 subjects: nobody is drawn from fewer than 4"
    )
    assert len(facts) == 22


def test_a_clock_that_runs_ahead_is_found(cairn, site, listening):
    listening["s"] = 60.0
    code, ready, facts = facts_of(cairn, site)
    assert (code, ready) == (4, False)
    assert re.search("differ by (59|60|61) s", facts["server"]["says"])


def test_a_server_of_another_authority_is_found(cairn, site, listening):
    site.folder.authority.unlink()
    write_certificate(site.folder.authority, create_authority("another")[1])
    code, _, facts = facts_of(cairn, site)
    assert code == 4
    assert "not the federation's" in facts["server"]["says"]


def test_a_server_that_is_not_there_is_unreachable(cairn, site):
    code, _, facts = facts_of(cairn, site)
    assert code == 5
    assert "cannot be reached" in facts["server"]["says"]
    assert "Outbound" in facts["server"]["fix"]


def test_each_missing_piece_is_one_bad_line_with_its_remedy(cairn, site):
    folder = site.folder
    folder.ledger_key.chmod(0o644)
    folder.policy_file.write_text("version = 1")
    folder.federation_key.unlink()
    code, _, facts = facts_of(cairn, site)
    assert code == 6
    assert "chmod 600" in facts["ledger key"]["fix"]
    assert "records" in facts["policy"]["says"]
    assert facts["federation key"]["level"] == "warning"
    assert "never from the aggregator" in facts["federation key"]["fix"]


def test_an_image_without_landmarks_is_named_and_left_out(cairn, site):
    (site.folder.root.parent / "images/case-1.mrk.json").unlink()
    fact = facts_of(cairn, site)[2]["images"]
    assert fact["level"] == "warning"
    assert "2 scans" in fact["says"]
    assert "1 without landmarks are left out (case-1)" in fact["says"]


def test_scans_that_lack_a_landmark_are_counted(cairn, site):
    path = site.folder.root.parent / "images/case-2.mrk.json"
    markup = json.loads(path.read_text())
    del markup["markups"][0]["controlPoints"][1]
    path.write_text(json.dumps(markup))
    fact = facts_of(cairn, site)[2]["images"]
    assert fact["level"] == "warning"
    assert "case-2 lacks 1" in fact["says"]


def test_an_altered_ledger_is_bad_with_exit_4(cairn, site):
    site.put(site.order())
    assert cairn("worker", "--once", "--site-dir", site.folder.root)[0] == 0
    log = site.folder.ledger / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round":0', b'"round":7'))
    code, _, facts = facts_of(cairn, site)
    assert code == 4
    assert facts["ledger"]["level"] == "bad"


def test_an_expired_authority_is_bad(cairn, site, monkeypatch):
    class Later(checks.datetime):
        @classmethod
        def now(cls, tz=None):
            return checks.datetime(2150, 1, 1, tzinfo=tz)

    monkeypatch.setattr(checks, "datetime", Later)
    assert "expired" in facts_of(cairn, site)[2]["authority"]["says"]


def test_check_in_a_folder_that_is_no_site_says_to_join(cairn, tmp_path):
    code, out, _ = cairn("check", "--site-dir", tmp_path)
    assert code == 6
    assert "cairn-site join" in out


# Rehearsing.


def tree(site):
    return {
        str(path.relative_to(site.folder.root)): sha256_hex(path.read_bytes())
        for path in site.folder.root.rglob("*")
        if path.is_file()
    }


def test_a_rehearsal_shows_everything_that_would_leave_and_changes_nothing(cairn, site, plan_file):
    before = tree(site)
    code, out, _ = cairn("dry-run", plan_file, "--json", "--site-dir", site.folder.root)
    found = json.loads(out)
    assert code == 0
    assert found["allowed"] is True
    assert found["plan_fingerprint"] == site.plan.fingerprint
    assert [f["record_type"] for f in found["findings"]] == [
        "RoundReport",
        "ModelUpdate",
        "SketchTable",
        "RoundReport",
    ]
    update, sketch = found["findings"][1:3]
    assert {a["name"]: tuple(a["shape"]) for a in update["arrays"]} == {
        name: array.shape for name, array in initial_weights(site.plan).items()
    }
    assert update["l2"] > 0
    assert 0 < sketch["fill"] <= 1
    assert found["bytes"] == sum(f["bytes"] for f in found["findings"])
    assert tree(site) == before
    assert not site.folder.ledger.exists()


def test_a_rehearsal_says_what_known_attacks_read_and_quotes_no_pixel(cairn, site, plan_file):
    code, out, _ = cairn("dry-run", plan_file, "--json", "--site-dir", site.folder.root)
    exposure = json.loads(out)["exposure"]
    assert code == 0
    assert exposure["applicable"] is True
    for attack in ("slices", "imprint"):
        found = exposure[attack]
        assert found["crops"] > 0
        assert (found["above_20_db"], found["above_30_db"]) == (0, 0)
        assert found["unseen_db"] > 0
        assert all(isinstance(value, (int, float, str)) for value in found.values())
    assert exposure["membership"]["auc"] is None
    assert "Too few cases" in exposure["membership"]["verdict"]


def test_a_rehearsal_shows_the_attacks_to_a_person_and_on_a_page(cairn, site, plan_file, tmp_path):
    page = tmp_path / "leaves.html"
    code, out, _ = cairn("dry-run", plan_file, "-o", page, "--site-dir", site.folder.root)
    assert code == 0
    for word in ("What known attacks read", "slices", "imprint", "membership", "a guess gets"):
        assert word in out
    assert "<h3>slices</h3>" in page.read_text()


def test_attacks_can_be_left_out_and_the_rehearsal_says_so(cairn, site, plan_file):
    words = ("dry-run", plan_file, "--no-attacks", "--site-dir", site.folder.root)
    code, out, _ = cairn(*words, "--json")
    assert code == 0
    assert json.loads(out)["exposure"] == {
        "applicable": False,
        "reason": "no attacks were asked for",
    }
    assert "no attacks were asked for" in cairn(*words)[1]


def test_the_attacks_change_nothing_of_what_would_leave(cairn, site, plan_file):
    told = []
    for words in (("--attacks",), ("--no-attacks",)):
        out = cairn("dry-run", plan_file, "--json", "--site-dir", site.folder.root, *words)[1]
        told.append(json.loads(out)["findings"])
    for finding in (*told[0], *told[1]):
        finding["header"].pop("train_ms", None)
        finding.pop("bytes")  # how long training took is written out in digits
    assert told[0] == told[1]


def test_a_rehearsal_measures_the_bytes_that_are_really_sent(cairn, site, plan_file):
    out = cairn("dry-run", plan_file, "--json", "--site-dir", site.folder.root)[1]
    promised = {f["record_type"]: f["bytes"] for f in json.loads(out)["findings"][1:3]}
    digest = site.put(site.order(1, "train", run="dry-run"))
    assert cairn("worker", "--once", "--site-dir", site.folder.root)[0] == 0
    assert site.reply(digest)["ModelUpdate"].record.round == 1
    sent = json.loads(cairn("status", "--json", "--site-dir", site.folder.root)[1])
    assert sent["bytes_out"] >= sum(promised.values())
    from common.wire.parcel import unwrap

    parts = unwrap(site.spool.read_reply(digest))
    assert {kind: len(parts[f"{kind}.envelope"]) for kind in promised} == promised


def test_a_rehearsal_that_the_door_would_refuse_ends_with_exit_3(cairn, site, plan_file):
    text = site.folder.policy_file.read_text()
    site.folder.policy_file.write_text(text.replace("images = 2", "images = 4"))
    code, out, _ = cairn("dry-run", plan_file, "--site-dir", site.folder.root)
    assert code == 3
    assert "Noise: none is added" in out
    assert "Nothing was sent" in out


def test_a_plan_beyond_the_policy_is_refused_before_an_image_is_opened(cairn, site, plan_file):
    for image in (site.folder.root.parent / "images").iterdir():
        image.unlink()
    text = site.folder.policy_file.read_text()
    site.folder.policy_file.write_text(text.replace('"training", "no-op"', '"no-op"'))
    code, _, err = cairn("dry-run", plan_file, "--site-dir", site.folder.root)
    assert code == 3
    assert "policy does not allow" in err


# Running.


def test_status_tells_the_last_round_and_what_left(cairn, site):
    fresh = json.loads(cairn("status", "--json", "--site-dir", site.folder.root)[1])
    assert fresh["last"] is None
    assert fresh["records"] == 0
    site.put(site.order())
    assert cairn("worker", "--once", "--site-dir", site.folder.root)[0] == 0
    after = json.loads(cairn("status", "--json", "--site-dir", site.folder.root)[1])
    assert (after["last"]["run"], after["last"]["code"]) == ("run-1", 0)
    assert after["records"] == 2
    assert after["waiting"] == [0, 1]
    assert "answered with OK" in after["log"]
    text = cairn("status", "--site-dir", site.folder.root)[1]
    assert "run-1, round 0 (begin): done" in text


def test_failures_are_told_in_the_sites_own_log_with_their_traceback(cairn, site):
    for image in (site.folder.root.parent / "images").glob("*.nii.gz"):
        image.write_bytes(b"not an image")
    site.put(site.order())
    assert cairn("worker", "--once", "--site-dir", site.folder.root)[0] == 0
    log = site.folder.worker_log.read_text()
    assert "Traceback" in log
    assert "case-0" in log


def test_sigterm_ends_a_worker_in_good_order(site):
    process = subprocess.Popen(
        commands(site.folder.root)["worker"], stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert "ready" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "stopped" in rest


def test_nothing_but_the_worker_imports_torch(site, invite_file, tmp_path):
    program = """
import sys
from common.cli import run
from site_client.cli import cli
try:
    run(cli, sys.argv[1:])
except SystemExit:
    pass
heavy = [name for name in ("torch", "SimpleITK", "flwr") if name in sys.modules]
print("HEAVY", *heavy)
"""
    root = site.folder.root
    allowed = {
        ("status", "--site-dir", str(root)): [],
        ("--help",): [],
        ("join", str(invite_file), "--data", str(tmp_path), "--site-dir", str(tmp_path / "s")): [],
        ("check", "--site-dir", str(root)): [],
    }
    for words, may in allowed.items():
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert done.stdout.splitlines()[-1].split() == ["HEAVY", *may], words


def test_the_courier_imports_neither_torch_nor_an_image_reader():
    program = (
        "import sys, site_client.cli, site_client.courier; "
        "print([n for n in ('torch', 'SimpleITK') if n in sys.modules])"
    )
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == "[]"


def test_only_the_worker_needs_the_compiler(site, invite_file, tmp_path):
    program = """
import sys
sys.modules.update({"numba": None, "llvmlite": None})  # every import of them fails
import site_client.courier, common.audit.cli
from common.cli import run
from site_client.cli import cli
audit = sys.argv[1] == "cairn-audit"
run(common.audit.cli.cli if audit else cli, sys.argv[2:])
"""
    folder = site.folder
    root, key = str(folder.root), read_signing_key(folder.ledger_key)
    origin = ledger_origin(folder.settings().site)
    with Ledger.open(folder.ledger, origin, key, lambda: datetime.now(UTC)):
        pass
    joined = ("--data", str(tmp_path), "--site-dir", str(tmp_path / "s"), "--offline")
    for words, may_end in {
        ("cairn-site", "join", str(invite_file), *joined): {0},
        ("cairn-site", "status", "--site-dir", root): {0},
        ("cairn-site", "check", "--site-dir", root, "--json"): {5},  # nobody answers
        ("cairn-site", "courier", "--help"): {0},
        ("cairn-audit", "show", str(folder.ledger)): {0},
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode in may_end, (words, done.stdout, done.stderr)
        assert "numba" not in done.stdout + done.stderr, words


# Keeping running.


def python(text):
    return [sys.executable, "-c", text]


def test_a_child_that_dies_is_started_again_after_a_pause(monkeypatch, tmp_path):
    monkeypatch.setattr(supervise, "FIRST_PAUSE_S", 0.05)
    said, stop, marks = [], threading.Event(), tmp_path / "marks"

    def say(line):
        said.append(line)
        if sum("started" in text for text in said) == 3:
            stop.set()

    child = Child("worker", python(f"open({str(marks)!r}, 'a').write('x'); exit(7)"), say)
    assert keep_running([child], stop, say) == 0
    assert sum("ended with exit 7" in line for line in said) == 2
    assert child.pid is None


def test_a_child_that_found_a_broken_ledger_ends_everything_with_its_code():
    said = []
    lasting = Child("courier", python("import time; time.sleep(60)"), said.append)
    broken = Child("worker", python("exit(4)"), said.append)
    assert keep_running([lasting, broken], threading.Event(), said.append) == 4
    assert lasting.pid is None
    assert any("restart would not help" in line for line in said)


def test_stopping_forwards_sigterm_and_kills_only_what_does_not_listen(monkeypatch):
    monkeypatch.setattr(supervise, "GRACE_S", 2.0)
    stop, said = threading.Event(), []
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(60)"
    )
    children = [
        Child("courier", python("import time; time.sleep(60)"), said.append),
        Child("worker", python(deaf), said.append),
    ]
    threading.Timer(2.0, stop.set).start()
    assert keep_running(children, stop, said.append) == 0
    assert [line for line in said if "killed" in line] == [
        "worker did not stop in time and was killed"
    ]


# The agent on its own.


def test_a_plans_agent_is_trained_alone_for_as_many_updates_and_evaluated(
    cairn, site, plan_file, tmp_path
):
    data, out = site.folder.root.parent / "images", tmp_path / "out"
    whole = ("--set", "data.validation_share=0")
    code, text, _ = cairn("train", "--plan", plan_file, "--data", data, "-o", out, *whole, "--json")
    told = json.loads(text)
    assert code == 0
    assert (told["updates"], told["planned"], told["finished"]) == (40, 40, True)
    code, text, _ = cairn("evaluate", "--checkpoint", out, "--data", data, "--json")
    assert code == 0
    assert {row["landmark"] for row in json.loads(text)["posed"]} >= {"A", "B"}


def test_settings_come_from_one_place(cairn, site, plan_file, tmp_path):
    words = ("train", "--plan", plan_file, "--config", plan_file, "--data", tmp_path)
    code, _, err = cairn(*words, "-o", tmp_path / "out")
    assert code == 2
    assert "--config or --plan, not both" in err


def test_check_counts_slides_where_the_policy_serves_pixels(site):
    policy = site.folder.policy_file
    text = policy.read_text()
    policy.write_text(text.replace('kinds = ["training", "no-op"]', 'kinds = ["pixels"]'))
    (site.folder.data() / "slide.npy").touch()
    facts = {fact.name: fact for fact in checks.check_site(site.folder)}
    assert "slides" in facts["images"].says
    policy.write_text(text)
    facts = {fact.name: fact for fact in checks.check_site(site.folder)}
    assert "scans" in facts["images"].says
