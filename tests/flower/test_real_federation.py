"""Rounds over real Flower processes, and what happens when some of them die or lie."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def watched(real) -> str:
    """What ``round start --watch`` said of a run to its end."""
    plan = real.write_plan(rounds=2, deadline=60)
    return real.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )


def test_a_run_started_by_command_completes_at_every_site(real, watched):
    assert re.search(r"run_finished verdict=COMPLETED", watched), watched
    run = re.search(r"run_queued run=(\S+)", watched)[1]  # others may have been started since
    told = real.run("cairn-aggregator", "status", run, "--dir", "federation", "--json")
    status = json.loads(told)
    assert status["verdict"] == "COMPLETED"
    for site in ("site-a", "site-b", "site-c"):
        verdict = real.run(
            *("cairn-audit", "verify", f"{site}/worker/ledger"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
            *("--witness", "federation/pki/witness.pub"),
            *("--journal", f"{site}/courier/journal.jsonl"),
            *("--courier-key", f"federation/sites/{site}/request.json"),
        )
        assert "chain intact" in verdict
        assert "0.0 % of the wire unexplained" in verdict


def mapped_libraries(process: psutil.Process) -> str:
    return " ".join(entry.path for entry in process.memory_maps())


@pytest.mark.parametrize("site", ["site-a", "site-b", "site-c"])
def test_a_courier_is_small_has_no_torch_no_images_and_no_open_port(real, site):
    courier = real.processes[f"{site}-courier"]
    assert courier.children() == [], "one process"
    assert courier.memory_info().rss < 200e6
    assert "torch" not in mapped_libraries(courier)
    assert "SimpleITK" not in mapped_libraries(courier)
    listening = [c for c in courier.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == []


@pytest.mark.parametrize("site", ["site-a", "site-b", "site-c"])
def test_a_worker_holds_no_socket(real, site):
    worker = real.processes[f"{site}-worker"]
    assert worker.net_connections() == []


@pytest.mark.parametrize("site", ["site-a", "site-b", "site-c"])
def test_a_worker_can_open_none_and_start_nothing(real, site):
    worker = real.processes[f"{site}-worker"]
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert worker.children() == []


@pytest.mark.usefixtures("watched")
def test_what_a_writer_puts_into_a_running_sites_outbox_stays_and_is_shown(real):
    image = os.urandom(1 << 20)
    outbox = real.root / "site-b" / "spool" / "outbox"
    refused = real.root / "site-b" / "spool" / "refused"
    (outbox / "Doe-1970.dcm").write_bytes(image)
    os.mkfifo(outbox / "pipe")
    real.wait(lambda: refused.is_dir() and len(list(refused.iterdir())) == 2, "refusals")
    journal = real.root / "site-b" / "courier" / "journal.jsonl"
    assert b"Doe" not in journal.read_bytes()
    told = real.run(
        *("cairn-audit", "verify", "site-b/worker/ledger", "--json"),
        *("--key", "federation/sites/site-b/ledger.pub"),
        *("--witness", "federation/pki/witness.pub"),
        *("--checkpoint", "federation/sites/site-b/checkpoint.note"),
        *("--journal", str(journal), "--courier-key", "federation/sites/site-b/request.json"),
    )
    balance = json.loads(told)["ledgers"][0]["balance"]
    assert balance["holds"] is True
    assert balance["refusals"] == 2
    assert balance["unexplained_percent"] < 1


def test_no_process_of_the_aggregator_has_torch(real):
    parent = real.processes["aggregator"]
    family = [
        process
        for process in [parent, *parent.children(recursive=True)]
        if process.status() != psutil.STATUS_ZOMBIE
    ]
    assert len(family) >= 3, "up, superlink, superexec"
    for process in family:
        assert "libtorch" not in mapped_libraries(process)


@pytest.mark.slow
def test_a_worker_and_its_courier_killed_in_a_round_cost_one_round(real):
    plan = real.write_plan(rounds=3, deadline=15)
    real.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation", "--min-sites", "3")
    )
    run = real.newest_run()

    def finished() -> dict[int, list[str]]:
        return {e["round"]: e["sites"] for e in real.events(run) if e["event"] == "round_finished"}

    real.wait(lambda: 0 in finished(), "round 0")
    # Stopped first, so that it surely dies with an order in hand.
    real.processes["site-c-worker"].send_signal(signal.SIGSTOP)
    inbox = real.root / "site-c" / "spool" / "inbox"
    real.wait(lambda: any(inbox.glob("*.order")), "order in the inbox")
    real.kill("site-c-worker")
    real.kill("site-c-courier")
    real.wait(lambda: any(e["event"] == "site_late" for e in real.events(run)), "late site")
    real.start_site("site-c")
    real.wait(
        lambda: any(e["event"] == "run_finished" for e in real.events(run)), "end of run", 240
    )

    last = next(e for e in real.events(run) if e["event"] == "run_finished")
    assert last["verdict"] == "DEGRADED"
    sites = finished()
    late = {(e["round"], e["site"]) for e in real.events(run) if e["event"] == "site_late"}
    assert any(site == "site-c" for _, site in late), "the round in which both were killed"
    for number, names in sites.items():
        # On a busy machine another site may be late, too; whoever was not took part.
        expected = {s for s in ("site-a", "site-b", "site-c") if (number, s) not in late}
        assert set(names) == expected
    assert set(sites[4]) == {"site-a", "site-b", "site-c"}, "rejoined"
    text = real.run(
        *("cairn-audit", "verify", "site-c/worker/ledger"),
        *("--key", "federation/sites/site-c/ledger.pub"),
        *("--checkpoint", "federation/sites/site-c/checkpoint.note"),
        *("--witness", "federation/pki/witness.pub"),
    )
    assert "chain intact" in text


@pytest.mark.slow
def test_a_killed_superlink_ends_up_and_the_run_resumes_after_its_last_finished_round(real):
    plan = real.write_plan(rounds=4, deadline=30)
    real.run(
        *("cairn-aggregator", "round", "start", plan, "--dir", "federation", "--min-sites", "3")
    )
    run = real.newest_run()

    def finished() -> list[int]:
        return [e["round"] for e in real.events(run) if e["event"] == "round_finished"]

    real.wait(lambda: 1 in finished(), "round 1")
    parent = real.processes["aggregator"]
    superlink = next(p for p in parent.children() if "guarded_superlink" in " ".join(p.cmdline()))
    superlink.kill()
    assert parent.wait(30) == 7
    assert "superlink ended by itself" in real.log("aggregator")
    done = len(finished())
    assert done < 6, "interrupted"

    (real.root / "logs" / "aggregator.log").unlink()
    real.start_aggregator()
    text = real.run(
        *("cairn-aggregator", "round", "resume", run.name, "--dir", "federation", "--watch")
    )
    assert "run_finished verdict=" in text
    told = text.partition("run_queued")[2].partition("run_queued")[2]  # of the resumption
    assert "verdict=FAILED" not in told
    assert "the aggregator ended while the run went on" in text
    assert finished() == list(range(6)), "every round counts once"
    for site in ("site-a", "site-b", "site-c"):
        verdict = real.run(
            *("cairn-audit", "verify", f"{site}/worker/ledger"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--checkpoint", f"federation/sites/{site}/checkpoint.note"),
            *("--witness", "federation/pki/witness.pub"),
        )
        assert "chain intact" in verdict


def ends_with(real, name: str, folder: str, code: int) -> str:
    """The courier of a folder exits by itself with ``code``; returns what it said."""
    process = real.start(name, "cairn-site", "courier", "--site-dir", folder)
    assert process.wait(30) == code, real.log(name)
    return real.log(name)


def test_an_unregistered_site_key_is_refused_at_once_with_code_4(real, stranger):
    said = ends_with(real, "unregistered", stranger.name, 4)
    assert "node key" in said
    assert "not admitted" in said


def test_a_wrong_ca_is_refused_at_once_with_code_4(real, stranger, tmp_path):
    real.run(
        *("cairn-aggregator", "init", str(tmp_path / "other"), "--name", "other"),
        *("--address", "127.0.0.1:9"),
    )
    (stranger / "courier" / "ca.crt").write_bytes((tmp_path / "other/pki/ca.crt").read_bytes())
    said = ends_with(real, "wrong-ca", stranger.name, 4)
    assert "certificate does not verify" in said


def test_an_unreachable_aggregator_is_tried_again_until_told_to_stop(real, stranger):
    settings = stranger / "site.toml"
    settings.write_text(settings.read_text().replace(str(real.port), "9"))
    process = real.start("unreachable", "cairn-site", "courier", "--site-dir", stranger.name)
    real.wait(lambda: real.log("unreachable").count("cannot be reached") >= 2, "second try")
    assert process.is_running()
    process.terminate()
    assert process.wait(10) == 0


# The worker has read its settings by then: only the courier meets others.
@pytest.mark.usefixtures("watched")
def test_a_run_whose_app_is_not_the_pinned_one_gets_a_number_and_nothing_else(real):
    settings = real.root / "site-c" / "site.toml"
    honest = settings.read_text()
    real.processes["site-c-courier"].terminate()
    real.processes["site-c-courier"].wait(15)
    settings.write_text(re.sub(r'(app_sha256 = ")[0-9a-f]{64}', r"\g<1>" + "0" * 64, honest))
    real.start("site-c-courier", "cairn-site", "courier", "--site-dir", "site-c")
    try:
        time.sleep(1)
        plan = real.write_plan(rounds=1, deadline=20)
        text = real.run(
            *("cairn-aggregator", "round", "start", plan, "--dir", "federation"),
            *("--min-sites", "3", "--watch"),
        )
        assert "UNAPPROVED_APP" in text
        assert "verdict=DEGRADED" in text
        assert not any((real.root / "site-c/spool/inbox").iterdir())
    finally:
        real.processes["site-c-courier"].terminate()
        real.processes["site-c-courier"].wait(15)
        settings.write_text(honest)
        real.start("site-c-courier", "cairn-site", "courier", "--site-dir", "site-c")
