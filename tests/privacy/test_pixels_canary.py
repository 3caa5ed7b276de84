"""Canaries in slides: names, folders and pixels are looked for in all that leaves of a run."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from common.keys.pixel_agreement import codec_text, fit_ranges, fit_widest
from common.plan import parse_plan
from common.sums.addition import decode_sum
from common.sums.pixels import ranges_of, survey_of
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from common.wire.parcel import unwrap
from site_client.egress.policy import default_policy_text
from site_client.worker.loop import Worker
from tests.aggregated import as_if_of
from tests.conftest import loosen

PERSON, FOLDER = "CANARY-DOE-JANE-19700101", "CANARY-FOLDER-ST-ELSEWHERE"
BANDS = ("dna", "keratin", "cd3")
RECORDS = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'
PLAN = {
    "name": "tissue",
    "seed": 1,
    "kind": "pixels",
    "pixels": {
        "bands": BANDS,
        "components": 3,
        "bins": 4,
        "rows": 5,
        "columns": 512,
        "floor": 100,
        "min_pixels": 500,
    },
}


@pytest.fixture
def planted(make_site, tmp_path, new_scanner):
    """A site whose slide's name, folder and every pixel can be recognised again."""
    site = replace(make_site(images=0, root=tmp_path / FOLDER), plan=parse_plan(PLAN))
    data = site.folder.data()
    slide = np.random.default_rng(5).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    np.save(data / f"{PERSON}.npy", slide)
    (data / "bands.txt").write_text("\n".join(BANDS))
    text = default_policy_text().replace('"RoundReport"]', RECORDS).replace("10_000", "500")
    site.folder.policy_file.write_text(text.replace('"no-op"]', '"no-op", "pixels"]'))
    loosen(site.folder)
    # As stored, with bands side by side, and every band as an image by itself.
    images = [slide.reshape(48, -1), *np.moveaxis(slide, -1, 0)]
    return site, new_scanner([PERSON, FOLDER], images)


def reply(site, order) -> bytes:
    site.put(order)
    with Worker(site.folder, threading.Event()) as worker:
        while worker.turn():
            pass
    return max(site.spool.outbox.iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes()


def part(data: bytes, kind: str):
    return decode(unwrap(data)[f"{kind}.envelope"])


def came_to(site, data: bytes, kind: str):
    """The sum of what the site sent and another one that has the same slide."""
    sent = [part(data, kind)]
    total = site.past().add({"north": sent, "east": as_if_of("east", sent)})
    return decode_sum(total).group(kind).summand


def test_no_answer_of_a_pixels_run_holds_a_name_a_folder_or_a_run_of_pixels(planted):
    site, scanner = planted
    asked = site.plan.pixels
    answers = [reply(site, site.order()), reply(site, site.order(1, "survey"))]
    survey = came_to(site, answers[-1], "PixelStatistics")
    widest = fit_widest(asked, survey_of(asked, survey))
    answers.append(reply(site, site.order(2, "range", codec=codec_text(widest))))
    ranges = came_to(site, answers[-1], "PixelStatistics")
    text = codec_text(fit_ranges(asked, widest, ranges_of(widest, ranges)))
    answers.append(reply(site, site.order(3, "sketch", codec=text)))
    came_to(site, answers[-1], "PixelSketches")
    answers.append(reply(site, site.order(4, "recover", codec=text)))
    for answer in answers:
        assert part(answer, "RoundReport").record.code is ReplyCode.OK
        assert scanner.findings(answer) == []
    for path in (site.folder.ledger / "log.jsonl", site.folder.worker_status):
        assert scanner.findings(path.read_bytes()) == []


def test_a_slide_that_cannot_be_read_leaves_as_a_number(planted):
    site, scanner = planted
    path = site.folder.data() / f"{PERSON}.npy"
    path.write_bytes(path.read_bytes()[:4000])
    answer = reply(site, site.order(1, "survey"))
    assert part(answer, "RoundReport").record.code is ReplyCode.BAD_DATA
    assert scanner.findings(answer) == []
    assert scanner.findings((site.folder.ledger / "log.jsonl").read_bytes()) == []


def test_the_scanner_would_see_a_slide_in_an_answer(planted):
    site, scanner = planted
    slide = np.load(site.folder.data() / f"{PERSON}.npy")
    assert scanner.findings(b"x" * 99 + slide.tobytes())
    assert scanner.findings(slide[..., 1].astype("<f4").tobytes())
    assert scanner.findings(PERSON.encode("utf-16-le"))
