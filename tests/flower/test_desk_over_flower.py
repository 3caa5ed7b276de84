"""A coordinator at another machine runs a federation of sites that joined over the network."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from aggregator.desk.remote import RemoteDesk
from common.desk import desk_pb2 as pb

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def desk(real_class, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Two sites that joined with tokens while the aggregator ran."""
    federation = real_class(tmp_path_factory.mktemp("desk"))
    address = f"127.0.0.1:{federation.port}"
    try:
        federation.run(
            *("cairn-aggregator", "init", "federation", "--name", "real", "--address", address)
        )
        federation.start_aggregator()
        key = "--new-federation-key"
        for site in ("site-a", "site-b"):
            data = federation.root / "data" / site
            data.mkdir(parents=True)
            for number in range(3):
                (data / f"case{number}.nii.gz").touch()
                (data / f"case{number}.mrk.json").touch()
            federation.run(*("cairn-aggregator", "--desk", CREDENTIAL, "invite", site))
            federation.run(
                *("cairn-site", "join", f"{site}.invite.toml", "--data", str(data)),
                *("--site-dir", site, *key.split()),
            )
            key = "--federation-key site-a/worker/federation.key"
        federation.acquaint("site-a", "site-b")
        for site in ("site-a", "site-b"):
            federation.allow(site, least_known="1", approval='"bounded"')
            federation.start_site(site)
        for site in ("site-a", "site-b"):
            federation.wait(
                lambda site=site: "online" in federation.log(f"{site}-courier"), f"{site} online"
            )
        yield federation
    finally:
        federation.stop()


CREDENTIAL = "federation/coordinator.toml"


@pytest.fixture(scope="module")
def followed(desk) -> str:
    """What a coordinator at another machine saw of a whole run."""
    plan = desk.write_plan(rounds=1, deadline=120)
    return desk.run(
        *("cairn-aggregator", "--desk", CREDENTIAL, "round", "start", plan),
        *("--min-sites", "2", "--watch"),
        timeout=400,
    )


def test_a_round_is_started_and_followed_from_afar(desk, followed):
    text = followed
    assert "privacy tier 1" in text
    assert "2 of 2 admitted sites" in text
    assert re.search(r"run_finished verdict=COMPLETED", text), text
    assert text.count("site_replied") == 6
    words = ("status", "--json")
    here = desk.run("cairn-aggregator", *words, "--dir", "federation")
    there = desk.run("cairn-aggregator", "--desk", CREDENTIAL, *words)
    assert here == there
    assert json.loads(there)["verdict"] == "COMPLETED"
    desk.run("cairn-aggregator", "report", "-o", "r.html", "--desk", CREDENTIAL)
    assert (desk.root / "r.html").read_text().rstrip().endswith("</html>")
    sites = json.loads(desk.run("cairn-aggregator", "sites", "--json", "--desk", CREDENTIAL))
    assert {s["name"]: (s["state"], s["online"]) for s in sites["sites"]} == {
        "site-a": ("admitted", True),
        "site-b": ("admitted", True),
    }


def test_what_a_real_run_came_to_is_fetched_from_afar_and_borne_out_by_its_sites(desk, followed):
    words = ("model", "latest", "-o", "model", "--sums", "--json")
    told = json.loads(desk.run("cairn-aggregator", "--desk", CREDENTIAL, *words))
    assert told["verdict"] == "COMPLETED"
    ledgers = [w for s in ("site-a", "site-b") for w in ("--ledger", f"{s}/worker/ledger")]
    audited = json.loads(desk.run("cairn-audit", "model", "model", *ledgers, "--json"))
    assert (audited["passed"], audited["weights"]) == (True, told["weights"])
    assert all(check["holds"] for check in audited["checks"]), audited["checks"]
    for site in ("site-a", "site-b"):
        (kept,) = json.loads(desk.run("cairn-site", "models", "--site-dir", site, "--json"))[
            "models"
        ]
        assert (kept["weights"], kept["run"]) == (told["weights"], told["run"])


def test_every_event_of_a_real_run_is_streamed_with_its_progress(desk, followed):
    remote = RemoteDesk.from_file(desk.root / CREDENTIAL)
    run = desk.newest_run()
    request = pb.WatchRoundRequest(run=run.name, follow=True)
    updates = list(remote.updates(request, threading.Event()))
    kinds = [json.loads(update.event)["event"] for update in updates]
    assert kinds[:2] == ["run_queued", "run_started"]
    assert kinds[-1] == "run_finished"
    assert kinds.count("round_finished") == 3
    rounds = [update.progress.round for update in updates]
    assert rounds == sorted(rounds)
    assert max(rounds) == 1
    states = {site.state for update in updates for site in update.progress.sites}
    assert {"training", "sent"} <= states
    assert all(site.bytes_out > 0 for site in updates[-1].progress.sites)
    journal = (run / "events.jsonl").read_bytes()
    assert b"".join(update.event + b"\n" for update in updates) == journal


def test_other_machines_reach_no_path_but_the_sites(desk):
    """A peer that a proxy on this machine names is another machine."""
    context = ssl.create_default_context(cafile=desk.root / "federation/pki/ca.crt")
    answers = {}
    for path in ("/health", "/v1/fleet/none", "/v1/control/start-run", "/v1/runtime/acquire-task"):
        with (
            socket.create_connection(("127.0.0.1", desk.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            answers[path] = int(secure.recv(4096).split()[1])
    assert answers["/v1/control/start-run"] == 403
    assert answers["/v1/runtime/acquire-task"] == 403
    assert answers["/health"] == 405  # a GET is answered; a POST reaches Flower and is not
    assert answers["/v1/fleet/none"] == 403, "the list of calls is closed"


def test_the_metrics_of_a_real_federation_show_who_is_connected(desk):
    with urlopen(f"http://127.0.0.1:{desk.port + 3}/metrics", timeout=10) as page:
        text = page.read().decode()
    assert 'cairn_site_online{site="site-a"} 1.0' in text
    assert 'cairn_sites{state="admitted"} 2.0' in text
