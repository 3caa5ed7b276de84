"""Sites to ask, what their ledgers say they refused, and the sums of a run about slides."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from common.keys.pixel_agreement import codec_text, fit_ranges, fit_widest
from common.plan import FederationPlan, parse_plan
from common.sums.addition import decode_sum
from common.sums.pixels import ranges_of, survey_of
from common.wire.envelope import Envelope
from site_client.egress.policy import default_policy_text
from site_client.worker import studies
from site_client.worker.loop import Worker
from site_client.worker.noop import NoOpStudy
from site_client.worker.training import TrainingStudy
from tests.aggregated import as_if_of
from tests.conftest import loosen
from tests.site_client.worker.asking import after_round_1

BANDS = ("dna", "keratin", "cd3", "cd20")
KINDS = np.array([[9, 1, 1, 1], [1, 9, 1, 1], [1, 2, 9, 3], [3, 1, 2, 9]], np.float64)
SECTION = {
    "bands": BANDS,
    "components": 3,
    "bins": 6,
    "rows": 3,
    "columns": 64,
    "floor": 10_000,
    "min_pixels": 500,
    "top": 50,
}
RECORDS = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """What opened an image, trained or evaluated: the name of each time."""
    seen: list[str] = []

    def noted(owner, name):
        honest = getattr(owner, name)

        def note(*args, **kwargs):
            seen.append(name)
            return honest(*args, **kwargs)

        monkeypatch.setattr(owner, name, note)

    noted(studies, "make_study")
    noted(TrainingStudy, "answer")
    noted(NoOpStudy, "answer")
    return seen


@pytest.fixture
def quick(make_site):
    """A site of a plan without work, whose chain is a plan's like any other."""
    return make_site(kind="no-op")


@pytest.fixture
def trained(make_site):
    """A site that has trained round 1; its answer; the honest sum of that round."""
    return after_round_1(make_site())


def pixel_plan(**changes) -> FederationPlan:
    return parse_plan({"name": "tissue", "seed": 1, "kind": "pixels", "pixels": SECTION | changes})


def allow(site, **bounds) -> None:
    """A policy that serves plans about slides, with ``bounds`` written otherwise."""
    text = default_policy_text().replace('"RoundReport"]', RECORDS)
    text = text.replace('"no-op"]', '"no-op", "pixels", "embed"]').replace("10_000", "500")
    for old, new in bounds.items():
        text = text.replace(old, new)
    site.folder.policy_file.write_text(text)
    loosen(site.folder)


def answer(site, order) -> dict[str, Envelope] | None:
    """What a worker that starts, answers one order and ends says to it."""
    digest = site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
    return site.reply(digest)


def code(reply):
    assert set(reply) == {"RoundReport"}
    return reply["RoundReport"].record.code


@pytest.fixture
def slides(make_site):
    """A site with two slides, allowed to serve plans about them."""
    site = replace(make_site(images=0), plan=pixel_plan())
    data = site.folder.data()
    (data / "bands.txt").write_text("\n".join(BANDS))
    for number in range(2):
        rng = np.random.default_rng(number)
        image = rng.integers(1, 9, (40, 30, 4)).astype(np.float64)
        kind = KINDS[rng.integers(0, 4, (20, 30))]
        image[:20] = kind * rng.integers(30, 300, (20, 30, 1))
        np.save(data / f"CANARY-{number}.npy", image.astype(np.uint16))
    allow(site)
    return site


def tell(site, reply, others=("east",)) -> bytes:
    """The round's sum: what the site sent, and others that have the very same slides."""
    sent = list(reply.values())
    return site.past().add({"north": sent} | {name: as_if_of(name, sent) for name in others})


def instead(site, round_, sent) -> bytes:
    """A sum of a round in place of what is known of it and after it; its tags hold."""
    past = site.past()
    del past.links[round_:]
    past.sums = {number: data for number, data in past.sums.items() if number < round_}
    return past.add(sent)


def came_to(data, kind):
    return decode_sum(data).group(kind).summand


@pytest.fixture
def widest(slides):
    """The codec that an aggregator makes of two sites' surveys."""
    data = tell(slides, answer(slides, slides.order(1, "survey")))
    asked = slides.plan.pixels
    return fit_widest(asked, survey_of(asked, came_to(data, "PixelStatistics")))


@pytest.fixture
def codec(slides, widest):
    """The codec that an aggregator makes of their surveys and ranges."""
    reply = answer(slides, slides.order(2, "range", codec=codec_text(widest)))
    ranges = came_to(tell(slides, reply), "PixelStatistics")
    return fit_ranges(slides.plan.pixels, widest, ranges_of(widest, ranges))


@pytest.fixture
def tables(slides, codec):
    """What the site sent of its keys; the sum of two such sites is told."""
    reply = answer(slides, slides.order(3, "sketch", codec=codec_text(codec)))
    tell(slides, reply)
    return reply["PixelSketches"]
