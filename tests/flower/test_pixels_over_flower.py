"""A run of pixels over real Flower processes: from slides on disk to named keys."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest

from common.keys.key_counts import read_key_counts
from common.keys.pixel_agreement import read_codec
from site_client.egress.policy import default_policy_text

pytestmark = [pytest.mark.flower, pytest.mark.timeout(180)]

SITES = ("site-a", "site-b", "site-c")
BANDS = ("dna", "keratin", "cd3", "cd20")
KINDS = np.array([[9, 1, 1, 1], [1, 9, 1, 1], [1, 2, 9, 3], [3, 1, 2, 9]], np.float64)
PLAN = """
name = "tissue"
kind = "pixels"
seed = 1
[pixels]
bands = ["dna", "keratin", "cd3", "cd20"]
components = 3
bins = 6
rows = 3
columns = 256
floor = 10_000
min_pixels = 500
[rounds]
quorum = 3
deadline_s = 60
"""
ALLOWED = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'


def slide(seed: int) -> np.ndarray:
    """uint16[40, 30, bands]: half background, half tissue of four kinds."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 9, (40, 30, len(BANDS))).astype(np.float64)
    image[:20] = KINDS[rng.integers(0, 4, (20, 30))] * rng.integers(30, 300, (20, 30, 1))
    return image.astype(np.uint16)


@pytest.fixture
def slides(real):
    """Each site's data is two slides for a while, and its policy allows them to be counted."""
    before = {}
    text = default_policy_text().replace('"RoundReport"]', ALLOWED).replace("10_000", "500")
    text = text.replace('"no-op"]', '"no-op", "pixels"]')
    for number, site in enumerate(SITES):
        folder = real.root / "slides" / site
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bands.txt").write_text("\n".join(BANDS))
        for which in range(2):
            np.save(folder / f"s{which}.npy", slide(10 * number + which))
        for path in (real.root / site / "site.toml", real.root / site / "policy.toml"):
            before[path] = path.read_text(encoding="utf-8")
        settings = real.root / site / "site.toml"
        line = f"data = {json.dumps(str(folder))}"
        settings.write_text(re.sub(r"(?m)^data = .*$", line, before[settings]))
        (real.root / site / "policy.toml").write_text(text)
    yield real.root / "slides"
    for path, words in before.items():
        path.write_text(words)


def test_three_sites_name_the_frequent_keys_of_all_their_slides(real, slides):
    (real.root / "pixels.toml").write_text(PLAN)
    said = real.run(
        *("cairn-aggregator", "round", "start", "pixels.toml", "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said
    assert "cairn-aggregator codebook build" in said
    kept = real.newest_run() / "rounds" / "0004"
    codec = read_codec((kept / "codec.json").read_text(encoding="utf-8"))
    named = read_key_counts(kept / "keys.safetensors")
    exact, sites = Counter(), Counter()
    for site in SITES:
        here = Counter()
        for path in (slides / site).glob("*.npy"):
            here.update(codec.encode(np.load(path).reshape(-1, len(BANDS)))[0].tolist())
        exact.update(here)
        sites.update(here.keys())
    passing = {key for key, count in exact.items() if count >= 50 and sites[key] >= 2}
    assert len(passing) >= len(KINDS)
    assert set(named.keys.tolist()) == passing
    for site in SITES:
        verdict = real.run(
            *("cairn-audit", "verify", f"{site}/worker/ledger"),
            *("--key", f"federation/sites/{site}/ledger.pub"),
            *("--witness", "federation/pki/witness.pub", "--sent", f"{site}/courier/sent.jsonl"),
        )
        assert "chain intact" in verdict
        assert "0 undeclared" in verdict
    shown = real.run("cairn-audit", "show", "site-a/worker/ledger", "--json")
    assert "PixelSketches" in shown
    assert "HeavyHitters" in shown
    real.run("cairn-aggregator", "report", "--dir", "federation", "-o", "report.html")
    page = (real.root / "report.html").read_text(encoding="utf-8")
    assert "4 of 4 rounds" in page
