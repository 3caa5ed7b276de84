"""A worker and its slides: what an order must hold, what is told, and what stays."""

import json
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import sha256_hex
from common.errors import InputDataError, RefusedError, SketchError
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import codec_text, family, read_codec
from common.plan import parse_plan
from common.policy import check_plan, read_policy
from common.sketching import SketchSpec
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from site_client.cli import cli
from site_client.egress.policy import default_policy_text
from site_client.pixels.counting import PixelTables
from site_client.worker import pixels as pixels_module
from site_client.worker.dry_run import rehearse
from site_client.worker.hidden import hide, show
from site_client.worker.loop import Worker
from site_client.worker.slide_folder import find_slides
from tests.aggregated import as_if_of
from tests.site_client.worker.asking import refusals
from tests.site_client.worker.conftest import (
    BANDS,
    KINDS,
    allow,
    answer,
    code,
    instead,
    pixel_plan,
)


def test_a_begin_order_is_answered_with_the_family_and_the_number_of_slides(slides):
    report = answer(slides, slides.order())["RoundReport"].record
    assert report.code is ReplyCode.OK
    assert (report.images, report.codec) == (2, family(slides.plan))
    assert report.weights_sha256 is None


def test_the_survey_is_the_sum_over_all_pixels_of_all_slides(slides):
    sums = answer(slides, slides.order(1, "survey"))["PixelStatistics"]
    files = sorted(slides.folder.data().glob("*.npy"))
    every = np.concatenate([np.load(path).reshape(-1, 4) for path in files]).astype(np.int64)
    np.testing.assert_array_equal(sums.arrays["gram"], every.T @ every)
    assert (sums.record.slides, sums.record.pixels) == (2, len(every))


def test_the_tables_are_those_of_every_key_under_the_federation_key(slides, codec, tables):
    exact = {}
    for path in sorted(slides.folder.data().glob("*.npy")):
        for key in codec.encode(np.load(path).reshape(-1, 4))[0].tolist():
            exact[key] = exact.get(key, 0) + 1
    secret = pixels_key(slides)
    expected = PixelTables.empty(codec, SketchSpec(3, 64, secret))
    keys = np.array(list(exact), np.uint64)
    counts = np.array(list(exact.values()), np.int64)
    expected.views.update(keys, counts)
    expected.presence.update(keys)
    np.testing.assert_array_equal(tables.arrays["full"], expected.views.full.table)
    np.testing.assert_array_equal(tables.arrays["prefix"], expected.views.prefix.table)
    np.testing.assert_array_equal(tables.arrays["presence"], expected.presence.table)
    spec = expected.views.full.spec
    np.testing.assert_array_equal(
        show(tables.arrays["prefix_counts"], spec), expected.views.histogram
    )
    assert tables.record.key_id == spec.key_id


def pixels_key(site):
    from common.crypto.keyed import read_federation_key

    return read_federation_key(site.folder.federation_key).derive("pixel sketch", 16)


def test_keys_that_a_single_site_has_are_not_named(slides, codec, tables):
    nothing = {name: np.zeros_like(array) for name, array in tables.arrays.items()}
    others = as_if_of("east", [Envelope(tables.record, nothing)])
    instead(slides, 3, {"north": [tables], "east": others})
    found = answer(slides, slides.order(4, "recover", codec=codec_text(codec)))["HeavyHitters"]
    assert found.arrays["keys"].size == 0
    kept = slides.folder.worker / "codecs" / f"{codec.identity}.json"
    assert read_codec(kept.read_text()).identity == codec.identity


def test_two_sites_tables_name_the_frequent_keys_of_both(slides, codec, tables):
    found = answer(slides, slides.order(4, "recover", codec=codec_text(codec)))["HeavyHitters"]
    named = dict(zip(found.arrays["keys"].tolist(), found.arrays["counts"].tolist(), strict=True))
    assert len(named) >= 4
    assert min(named.values()) >= 50
    assert sum(named.values()) <= 2 * tables.record.pixels


def test_the_same_order_again_gets_the_same_bytes_and_a_different_one_none(slides, codec):
    order = slides.order(3, "sketch", codec=codec_text(codec))
    first, again = answer(slides, order), answer(slides, order)
    assert np.array_equal(
        first["PixelSketches"].arrays["full"], again["PixelSketches"].arrays["full"]
    )
    second = slides.order(3, "sketch", codec=codec_text(codec), deadline_s=61)
    assert code(answer(slides, second)) is ReplyCode.BACKWARDS


# What makes an order bad.


def test_a_phase_out_of_its_place_makes_the_order_bad(slides):
    for round_, phase in ((0, "survey"), (2, "survey"), (1, "begin"), (5, "recover"), (1, "train")):
        order = slides.order(round_, phase, sums={})
        assert code(answer(slides, order)) is ReplyCode.BAD_ORDER


def test_a_codec_that_is_missing_or_not_the_plans_makes_the_order_bad(slides, codec):
    text = codec_text(codec)
    wide = text.replace('"bins":6', '"bins":7')
    assert wide != text
    for bad in (None, "", "{}", wide, text.replace(":", ": ", 1)):
        assert code(answer(slides, slides.order(3, "sketch", codec=bad))) is ReplyCode.BAD_ORDER
    assert code(answer(slides, slides.order(1, "survey", codec=text))) is ReplyCode.BAD_ORDER


def test_weights_or_tables_beside_an_order_about_pixels_make_it_bad(slides):
    for name in ("weights", "tables", "full"):
        order = slides.order(1, "survey", beside={name: b"whatever it is"})
        assert answer(slides, order) is None
        assert refusals(slides)[-1].code == ReplyCode.BAD_ORDER


def test_slides_that_lack_a_band_are_bad_data_and_their_names_stay(slides, caplog):
    plan = pixel_plan(bands=(*BANDS[:3], "ki67"))
    order = slides.order(1, "survey", plan=plan)
    assert code(answer(slides, order)) is ReplyCode.BAD_DATA
    raw = slides.spool.read_reply(sha256_hex(order))
    assert b"CANARY" not in raw
    assert b"CANARY" not in (slides.folder.ledger / "log.jsonl").read_bytes()
    assert "CANARY" in caplog.text, "the site's own log says which slide"


def test_a_worker_that_is_told_to_stop_leaves_the_order_for_the_next_start(slides, monkeypatch):
    stop = threading.Event()
    digest = slides.put(slides.order(1, "survey"))
    honest = pixels_module.Slides.open

    def opened(self, what):
        stop.set()
        return honest(self, what)

    monkeypatch.setattr(pixels_module.Slides, "open", opened)
    with Worker(slides.folder, stop) as worker:
        assert worker.turn()
    assert slides.spool.orders() == [digest]
    assert slides.reply(digest) is None


# What the policy says of such plans.


def test_plans_about_slides_are_refused_until_the_hospital_allows_them(slides):
    slides.folder.policy_file.write_text(default_policy_text())
    assert code(answer(slides, slides.order())) is ReplyCode.REFUSED_BY_POLICY


def test_a_policy_without_bounds_for_pixels_serves_no_such_plan(slides):
    text = slides.folder.policy_file.read_text()
    a, b = text.index("[pixels]"), text.index("[plans]")
    slides.folder.policy_file.write_text(text[:a] + text[b:])
    policy = read_policy(slides.folder.policy_file)
    with pytest.raises(RefusedError, match="none about slides"):
        check_plan(policy, slides.plan)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key_pixels": 49}, "pixels.key_pixels"),
        ({"rows": 64}, "pixels.rows"),
        ({"rows": 32, "columns": 400_000}, "pixels"),
    ],
)
def test_a_plan_beyond_the_policys_bounds_is_refused_before_a_slide_is_opened(
    slides, change, field
):
    policy = read_policy(slides.folder.policy_file)
    check_plan(policy, slides.plan)
    with pytest.raises(RefusedError) as caught:
        check_plan(policy, pixel_plan(**change))
    assert caught.value.field == field


def test_a_plan_that_names_keys_of_fewer_sites_than_the_policy_is_refused(slides):
    allow(slides, **{"key_sites = 2": "key_sites = 3"})
    with pytest.raises(RefusedError) as caught:
        check_plan(read_policy(slides.folder.policy_file), slides.plan)
    assert caught.value.field == "pixels.key_sites"


def test_the_sites_floors_hold_where_they_are_stricter_than_the_plans(slides):
    allow(slides, **{"slides = 1\n": "slides = 3\n"})
    assert code(answer(slides, slides.order())) is ReplyCode.REFUSED_AT_DOOR


def test_tier_0_needs_both_the_plan_and_the_policy(slides):
    plan = parse_plan(slides.plan.model_dump(mode="json") | {"limits": {"privacy_tier": 0}})
    order = slides.order(plan=plan)
    assert code(answer(slides, order)) is ReplyCode.REFUSED_BY_POLICY
    allow(slides, **{"least_tier = 1": "least_tier = 0"})
    later = slides.order(plan=plan, run="run-2")
    assert answer(slides, later)["RoundReport"].record.code is ReplyCode.OK


# The rehearsal, the hidden order, the folder.


def test_a_rehearsal_shows_every_record_of_a_pixels_run_and_changes_nothing(slides):
    before = {path for path in slides.folder.root.rglob("*") if path.is_file()}
    rehearsal = rehearse(slides.folder, slides.plan)
    assert rehearsal.allowed
    shown = [(f.phase, f.record_type) for f in rehearsal.findings]
    assert shown == [
        ("begin", "RoundReport"),
        *(("survey", kind) for kind in ("PixelStatistics", "RoundReport")),
        *(("range", kind) for kind in ("PixelStatistics", "RoundReport")),
        *(("sketch", kind) for kind in ("PixelSketches", "RoundReport")),
        *(("recover", kind) for kind in ("HeavyHitters", "RoundReport")),
    ]
    sketch = next(f for f in rehearsal.findings if f.record_type == "PixelSketches")
    assert sketch.fill > 0.01
    assert {path for path in slides.folder.root.rglob("*") if path.is_file()} == before


FROZEN_ORDER = [4, 5, 7, 1, 8, 3, 2, 10, 6, 9, 0, 11]


def spec(key=bytes(16), domain="d"):
    return SketchSpec(3, 16, key, domain=domain)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=60), st.binary(min_size=16, max_size=16)
)
def test_hidden_counts_add_up_and_are_shown_again_by_the_key(values, key):
    counts = np.array(values, np.int64)
    both = hide(counts, spec(key)) + hide(counts[::-1].copy(), spec(key))
    np.testing.assert_array_equal(show(both, spec(key)), counts + counts[::-1])


def test_the_hidden_order_depends_on_key_and_domain_and_is_frozen():
    counts = np.arange(12, dtype=np.int64)
    orders = [
        hide(counts, spec()).tolist(),
        hide(counts, spec(key=bytes(15) + b"1")).tolist(),
        hide(counts, spec(domain="e")).tolist(),
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] == FROZEN_ORDER


def test_without_the_key_the_order_stays_hidden():
    public = SketchSpec.public(3, 16, key_id="0" * 16, domain="d")
    with pytest.raises(SketchError, match="hidden"):
        show(np.zeros(4, np.int64), public)


def test_slides_are_files_and_folders_of_tiffs_and_nothing_else(tmp_path):
    for name in ("b.npy", "a.ome.tif", "c.mha", "bands.txt", ".hidden.npy", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "CD3.tiff").touch()
    (tmp_path / "empty").mkdir()
    assert [p.name for p in find_slides(tmp_path)] == ["a.ome.tif", "b.npy", "c.mha", "d"]
    with pytest.raises(InputDataError, match="no slides"):
        find_slides(tmp_path / "empty")
    with pytest.raises(InputDataError, match="no data folder"):
        find_slides(tmp_path / "absent")


# A slide by hand.


@pytest.fixture
def codebook(codec, tmp_path):
    keys = codec.encode((KINDS * 100).astype(np.uint16))[0]
    keys, first = np.unique(keys, return_index=True)
    book = Codebook.make(codec.digits, keys, first.astype(np.int64), codec.identity)
    book = book.label({n: "tumour" if n == 0 else "other" for n in range(len(keys))})
    (tmp_path / "book.json").write_bytes(book.to_bytes())
    (tmp_path / "codec.json").write_text(codec_text(codec))
    return tmp_path / "book.json", tmp_path / "codec.json"


def test_a_slide_is_mapped_by_hand_and_nothing_is_recorded(slides, codebook, tmp_path):
    book, codec_file = codebook
    size = (slides.folder.ledger / "log.jsonl").stat().st_size
    words = ["embed", str(slides.folder.data() / "CANARY-0.npy"), "--codebook", str(book)]
    words += ["--codec", str(codec_file), "-o", str(tmp_path / "map.mha"), "--json"]
    words += ["--site-dir", str(slides.folder.root)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)["pixels"]
    assert said["background"] == 600
    assert said["tumour"] + said["other"] == 600
    assert (tmp_path / "map.mha").stat().st_size > 0
    assert (slides.folder.ledger / "log.jsonl").stat().st_size == size


def test_a_slide_is_mapped_with_the_codec_that_a_run_left(
    slides, codec, tables, codebook, tmp_path
):
    order = slides.order(4, "recover", codec=codec_text(codec))
    words = ["embed", str(slides.folder.data() / "CANARY-0.npy"), "--codebook", str(codebook[0])]
    words += ["-o", str(tmp_path / "map.mha"), "--site-dir", str(slides.folder.root)]
    with pytest.raises(InputDataError, match="cannot read the codec"):
        CliRunner().invoke(cli, words, catch_exceptions=False)
    answer(slides, order)
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "tumour" in done.output


def embed_plan(codec, book_file):
    section = {"codec": codec.identity, "codebook": sha256_hex(book_file.read_bytes())}
    section |= {"groups": ["other", "tumour"], "min_pixels": 500}
    return parse_plan({"name": "p", "seed": 1, "kind": "embed", "embed": section})


def test_a_rehearsal_of_an_embedding_shows_the_counts_that_would_leave_and_writes_no_map(
    slides, codec, codebook
):
    book, codec_file = codebook
    before = {path for path in slides.folder.root.rglob("*") if path.is_file()}
    rehearsal = rehearse(slides.folder, embed_plan(codec, book), None, book, codec_file)
    assert rehearsal.allowed
    shown = [(f.phase, f.record_type) for f in rehearsal.findings]
    assert shown == [
        ("begin", "RoundReport"),
        ("embed", "GroupCounts"),
        ("embed", "RoundReport"),
    ]
    assert rehearsal.findings[1].arrays[0].shape == (3,)
    assert {path for path in slides.folder.root.rglob("*") if path.is_file()} == before


def test_an_embedding_is_rehearsed_from_the_command_line_too(slides, codec, codebook, tmp_path):
    book, codec_file = codebook
    section = embed_plan(codec, book).embed
    (tmp_path / "maps.toml").write_text(
        'name = "p"\nkind = "embed"\nseed = 1\n[embed]\nmin_pixels = 500\n'
        f'codec = "{section.codec}"\ncodebook = "{section.codebook}"\n'
        'groups = ["other", "tumour"]\n'
    )
    words = ["dry-run", str(tmp_path / "maps.toml"), "--site-dir", str(slides.folder.root)]
    words += ["--codebook", str(book), "--codec", str(codec_file)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "GroupCounts" in done.output


def test_a_rehearsal_of_an_embedding_asks_for_the_codebook_and_takes_no_other(
    slides, codec, codebook, tmp_path
):
    book, codec_file = codebook
    plan = embed_plan(codec, book)
    with pytest.raises(InputDataError, match="--codebook FILE"):
        rehearse(slides.folder, plan)
    with pytest.raises(InputDataError, match="cannot read the codec"):
        rehearse(slides.folder, plan, None, book)
    other = tmp_path / "other.json"
    other.write_bytes(
        Codebook.from_bytes(book.read_bytes())
        .label({0: "tumour", 1: "tumour", 2: "tumour", 3: "other"})
        .to_bytes()
    )
    with pytest.raises(InputDataError, match="not the codebook that the plan names"):
        rehearse(slides.folder, plan, None, other, codec_file)
