"""Figures for Prometheus: how the federation stands, and how the desk is used.

Read from the folder at every scrape, so that it is right after a restart. Site
and run names are labels; nothing else of a site is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aggregator.desk.local import LocalDesk
from aggregator.report.state import RunState
from common.crypto.certificates import days_left, read_certificate
from common.errors import CairnError

STATES = ("waiting", "training", "sent", "late", "rejected", "failed")
VERDICTS = ("COMPLETED", "DEGRADED", "FAILED", "STOPPED")


class Metrics:
    """A registry of its own, with the desk's counter and the federation's gauges."""

    def __init__(self, desk: LocalDesk) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "cairn_desk_requests",
            "Requests that the desk has answered.",
            ("method", "outcome"),
            registry=self.registry,
        )
        self.registry.register(_Federation(desk))

    def count(self, method: str, outcome: str) -> None:
        """One request was answered."""
        self._requests.labels(method, outcome).inc()


class _Federation(Collector):
    def __init__(self, desk: LocalDesk) -> None:
        self._desk = desk

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not read the folder."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield self._certificates()
        yield from self._sites()
        names = self._desk.folder.run_names()
        runs = GaugeMetricFamily("cairn_runs", "Runs that were ever started.")
        runs.add_metric((), len(names))
        yield runs
        if names:
            try:
                yield from _run(names[-1], self._desk.state(names[-1]))
            except CairnError:
                return  # a damaged journal is for `status` to explain; the rest still holds

    def _certificates(self) -> Metric:
        days = GaugeMetricFamily(
            "cairn_certificate_days_left", "Days until a certificate expires.", labels=("of",)
        )
        for name in ("ca", "server"):
            certificate = read_certificate(self._desk.folder.pki / f"{name}.crt")
            days.add_metric((name,), days_left(certificate))
        return days

    def _sites(self) -> Iterator[Metric]:
        lines = self._desk.sites()
        gauge = GaugeMetricFamily("cairn_sites", "Sites by their standing.", labels=("state",))
        for state in ("invited", "waiting", "admitted", "revoked"):
            gauge.add_metric((state,), sum(line.state == state for line in lines))
        yield gauge
        online = GaugeMetricFamily(
            "cairn_site_online", "Whether a site's courier is connected.", labels=("site",)
        )
        days = GaugeMetricFamily(
            "cairn_site_certificate_days_left",
            "Days until a site's certificate expires.",
            labels=("site",),
        )
        for line in lines:
            if line.state != "admitted":
                continue
            if line.online is not None:
                online.add_metric((line.name,), float(line.online))
            if line.certificate_days is not None:
                days.add_metric((line.name,), line.certificate_days)
        yield from (online, days)


def _run(name: str, state: RunState) -> Iterator[Metric]:
    """Yield the newest run's metrics."""
    for metric, text, value in (
        ("cairn_run_round", "Round of work that goes on, or the last one.", state.round),
        ("cairn_run_rounds", "Rounds of work that the plan has.", state.planned_rounds),
        ("cairn_run_rounds_finished", "Rounds of work that count.", state.trained),
        ("cairn_run_seconds", "Seconds that the run has been at work.", state.elapsed_s),
    ):
        gauge = GaugeMetricFamily(metric, text, labels=("run",))
        gauge.add_metric((name,), value)
        yield gauge
    verdict = GaugeMetricFamily(
        "cairn_run_verdict", "1 for how the newest run ended.", labels=("run", "verdict")
    )
    for word in VERDICTS:
        verdict.add_metric((name, word), float(state.verdict == word))
    yield verdict
    now = GaugeMetricFamily(
        "cairn_run_site_state", "1 for what a site does in the run.", labels=("site", "state")
    )
    sent = GaugeMetricFamily(
        "cairn_run_site_bytes_out", "Envelope bytes that a site sent in the run.", labels=("site",)
    )
    for site_name in state.sites:
        site = state.site(site_name)
        sent.add_metric((site_name,), site.bytes_out)
        for word in STATES:
            now.add_metric((site_name, word), float(site.status == word))
    yield from (now, sent)
