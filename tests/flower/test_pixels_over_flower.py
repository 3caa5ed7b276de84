"""Pixels over real Flower processes: from slides on disk to named keys, tissues and maps."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import SimpleITK

from common.canonical import sha256_hex
from common.keys.codebook import Codebook
from common.keys.key_counts import read_key_counts
from common.keys.pixel_agreement import read_codec
from site_client.egress.policy import default_policy_text

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]

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
deadline_s = 240
"""
PRESENT = 10  # the plan's default: pixels that a key needs at a site to count as present
EMBED_PLAN = """
name = "maps"
kind = "embed"
seed = 1
[embed]
codec = "{codec}"
codebook = "{codebook}"
groups = ["other", "tumour"]
min_pixels = 500
group_pixels = 100
[rounds]
quorum = 3
deadline_s = 240
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
    text = text.replace('"no-op"]', '"no-op", "pixels", "embed"]')
    text = text.replace('approval = "each"', 'approval = "bounded"')
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


@pytest.mark.slow
def test_three_sites_name_the_frequent_keys_of_all_their_slides(real, slides):
    (real.root / "pixels.toml").write_text(PLAN)
    said = real.run(
        *("cairn-aggregator", "round", "start", "pixels.toml", "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said
    assert "cairn-aggregator codebook build" in said
    assert "dna, keratin, cd3, cd20" in said
    kept = real.newest_run() / "rounds" / "0004"
    codec = read_codec((kept / "codec.json").read_text(encoding="utf-8"))
    named = read_key_counts(kept / "keys.safetensors")
    exact, sites = Counter(), Counter()
    for site in SITES:
        here = Counter()
        for path in (slides / site).glob("*.npy"):
            here.update(codec.encode(np.load(path).reshape(-1, len(BANDS)))[0].tolist())
        exact.update(here)
        sites.update(key for key, many in here.items() if many >= PRESENT)
    passing = {key for key, count in exact.items() if count >= 50 and sites[key] >= 2}
    assert len(passing) >= len(KINDS)
    assert set(named.keys.tolist()) == passing
    for site in SITES:
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
    shown = real.run("cairn-audit", "show", "site-a/worker/ledger", "--json")
    assert "PixelSketches" in shown
    assert "HeavyHitters" in shown
    real.run("cairn-aggregator", "report", "--dir", "federation", "-o", "report.html")
    page = (real.root / "report.html").read_text(encoding="utf-8")
    assert "4 of 4 rounds" in page
    make_maps(real, kept)


def make_maps(real, kept):
    """What the coordinator types next: clusters, names for them, and a run that maps slides."""
    codec_file = kept / "codec.json"
    (real.root / "book.json").write_bytes(two_clusters(kept).to_bytes())
    real.run(
        *("cairn-aggregator", "codebook", "label", "book.json", "-o", "named.json"),
        *("--group", "tumour=0", "--group", "other=rest"),
    )
    digests = {
        "codec": sha256_hex(codec_file.read_bytes()),
        "codebook": sha256_hex((real.root / "named.json").read_bytes()),
    }
    (real.root / "maps.toml").write_text(EMBED_PLAN.format(**digests))
    said = real.run(
        *("cairn-aggregator", "round", "start", "maps.toml", "--dir", "federation"),
        *("--codec", str(codec_file), "--codebook", "named.json", "--min-sites", "3", "--watch"),
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said
    run = real.newest_run()
    told = json.loads((run / "rounds" / "0001" / "groups.json").read_text(encoding="utf-8"))
    assert set(told["sites"]) == set(SITES)
    for site in SITES:
        maps = sorted((real.root / site / "worker" / "maps" / run.name).glob("*.mha"))
        assert [path.name for path in maps] == ["s0.npy.mha", "s1.npy.mha"]
        labels = np.concatenate([read_map(path).ravel() for path in maps])
        counts = np.bincount(labels, minlength=3)
        assert counts[0] >= 2 * 20 * 30, "the dark half of every slide is background"
        groups = told["sites"][site]["groups"]
        assert groups == dict(
            zip(("background", "other", "tumour"), np.where(counts < 100, 0, counts), strict=True)
        )


def two_clusters(kept):
    """What `codebook build` makes, without UMAP, which takes half a minute to compile.

    The command itself is tested in tests/aggregator/embedding.
    """
    keys = read_key_counts(kept / "keys.safetensors").keys
    codec = read_codec((kept / "codec.json").read_text(encoding="utf-8"))
    clusters = np.arange(keys.size) * 2 // keys.size
    return Codebook.make(codec.digits, keys, clusters, codec.identity)


def read_map(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
