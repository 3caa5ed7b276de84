"""The founding paper's road, small and whole: bands, codebook, maps, a federated agent.

Real sites, doors, ledgers and sums in one process; the data is a made-up organ of 12
bands. What agents learn in two steps is nothing: that is measured in PIXELS.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.rounds.events import SiteReplied
from common.crypto.identity import read_public_key
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import codec_text, read_codec
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from site_client.worker.embedding import MapFile, embed_alone
from site_client.worker.site_cases import read_site_cases
from tests.benchmarks.founding import agents, road, scene
from tests.benchmarks.founding.stacks import SITES
from tests.benchmarks.founding.studies import STUDIES

SMOOTHING = 2.0
TINY = {
    "updates": 20,
    "batch": 16,
    "searches": 12,
    "warmup": 112,
    "episode_steps": 7,
    "replay_capacity": 1000,
}


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """Slides of three sites, counted together; the codebook; every subject's map."""
    root, data = tmp_path_factory.mktemp("road"), scene.read(0, trained=2, held_out=1)
    road.write_slides(root, data)
    section = STUDIES["scene"].pixels | {"smoothing": SMOOTHING, "columns": 2000}
    keys = road.count_together(root, data, 0, section)
    codec = read_codec((root / "codec.json").read_text(encoding="utf-8"))
    book = road.write_codebook(root, data, _in_order(keys, codec))
    accuracy = road.write_maps(root, data)
    return root, data, codec, book, accuracy


def _in_order(keys: KeyCounts, codec):
    """A codebook without UMAP, which takes half a minute to compile: keys cut in order."""
    from common.keys.codebook import Codebook

    clusters = np.arange(keys.keys.size) * 12 // keys.keys.size
    return Codebook.make(codec.digits, keys.keys, clusters, codec.identity)


def test_the_codec_of_a_smoothed_run_says_so_and_maps_are_better_than_chance(way):
    _, _, codec, book, accuracy = way
    assert codec.smoothing == round(1000 * SMOOTHING)
    assert book.codec == codec.identity
    assert accuracy > 0.6


def test_slides_are_mapped_with_the_smoothing_that_their_codec_names(way, tmp_path):
    root, data, codec, book, _ = way
    subject = data.subjects[0]
    slides = road.slides_of(root / "slides" / SITES[0], subject)
    other = replace(codec, projection=replace(codec.projection, smoothing=500))
    (tmp_path / "codec.json").write_text(codec_text(other), encoding="utf-8")
    (tmp_path / "book.json").write_bytes(replace(book, codec=other.identity).to_bytes())
    output = MapFile(tmp_path / "other.mha", road.GROUP)
    files = (tmp_path / "book.json", tmp_path / "codec.json")
    embed_alone(slides, *files, tmp_path, output, lambda *_: None)
    ours = road.channels_of(road.home(root, "maps", subject))
    assert ours.shape == subject.tumour.shape
    assert (ours != road.channels_of(tmp_path / "other.mha")).any()


def test_three_sites_train_the_papers_network_on_maps_of_four_slices(way):
    root, data, *_ = way
    settings = STUDIES["scene"].agent | {"learner": TINY, "rounds": 2, "starts": 1}
    plan = agents.agent_plan(data, 0, settings)
    assert plan.space.shape[0] == 4 * len(settings["zooms"])
    folders = [root / "images" / "maps" / name for name in SITES]
    federation = road.federation_of(root / "agents", folders, agents.served)
    store, transport = federation.create_run(plan, min_sites=3), federation.transport()
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    codes = {e.code for e in federation.events(store) if isinstance(e, SiteReplied)}
    assert codes == {ReplyCode.OK}
    for site in transport.sites.values():
        verdict = verify_ledger(
            site.ledger,
            read_public_key(site.ledger / "ledger.pub"),
            read_public_key(site.witness_key),
        )
        assert verdict.intact
    weights = agents.weights_of(store)
    held_out = read_site_cases(root / "images" / "maps" / "held-out", plan, lambda *_: None)
    prior = agents.pooled([agents.read(folder, plan) for folder in folders]).prior
    figures = agents.judge(weights, plan, held_out, prior, data.tolerance_mm)
    for pose in ("posed", "native"):
        assert 0 < figures[pose]["mean"] < 2 * scene.SIDE * scene.PIXEL_MM
        assert figures[pose]["prior"] > 0
