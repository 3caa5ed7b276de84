"""A result for every slide: kept, sealed, bound, and put together from shards bit for bit."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from common.errors import InputDataError
from common.keys.pixel_agreement import codec_text
from common.plan import parse_plan
from common.sketching import SketchSpec
from site_client.pixels import passes
from site_client.pixels.checkpoints import open_sealed, write_sealed
from site_client.pixels.counting import PixelCounter, tables_of
from site_client.pixels.digests import digest_of
from site_client.pixels.passes import part_name
from site_client.pixels.shards import Listed, Shard, dealt, merge, read_merged, write_seen
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import survey
from site_client.pixels.tallies import KeyTally, Run, as_bytes, merged
from site_client.worker.slide_tasks import slide_task

SECRET = bytes(range(16))
SPEC = SketchSpec(5, 400, SECRET)
PLAN = {
    "name": "tissue",
    "kind": "pixels",
    "seed": 1,
    "rounds": {"quorum": 2, "deadline_s": 60.0},
}


@pytest.fixture
def plan(bands):
    return parse_plan(PLAN | {"pixels": {"bands": list(bands), "components": 5, "bins": 9}})


@pytest.fixture
def data(tmp_path, fitted, bands):
    """Five slides of several sizes, on disk."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "bands.txt").write_text("\n".join(bands))
    image = fitted[1][0].image
    for number, rows in enumerate((30, 10, 60, 20, 40)):
        np.save(folder / f"s{number}.npy", np.roll(image, number * 7, axis=0)[:rows])
    return folder


@pytest.fixture
def whole(plan, fitted, tmp_path):
    def make(phase="sketch", name="kept", threads=1, spec=SPEC, plan=plan, distinct=200):
        codec = None if phase == "survey" else fitted[0]
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        spec = spec if codec is None else replace(spec, domain=codec.identity)
        task = slide_task(plan, phase, codec)
        return replace(task.slide_pass(spec, folder, threads), distinct=distinct)

    return make


def look(whole, data, only=None, progress=None):
    """Results by the names of the slides."""
    return {
        path.name: whole.part(path, open_slide(path, whole.section.bands), progress)
        for path in sorted(data.glob("*.npy"))
        if only is None or path in only
    }


def listed(data, bands):
    return [Listed(path, open_slide(path, bands).pixels) for path in sorted(data.glob("*.npy"))]


def same(one, other):
    """Whether two results are equal in every bit."""
    if isinstance(one, passes.Counts):
        sides = [
            [np.concatenate(each) for each in zip(*counts.merged(), strict=True)]
            for counts in (one, other)
        ]
        pairs = zip(*sides, strict=True)
        return one.pixels == other.pixels and all(np.array_equal(a, b) for a, b in pairs)
    arrays = ("histogram", "gram") if hasattr(one, "gram") else ("histogram",)
    return one.pixels == other.pixels and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def together(parts):
    found = [parts[name].found for name in sorted(parts)]
    total = found[0]
    for one in found[1:]:
        total = total + one
    return total


@pytest.mark.parametrize("distinct", [3, 40, 1 << 12])
def test_a_tally_is_exact_however_little_fits_in_memory(distinct, tmp_path):
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 900, 8000).astype(np.uint64) << np.uint64(50)
    tally = KeyTally(distinct, np.uint64(7), tmp_path)
    for part in np.array_split(keys, 5):
        tally.add(part)
    found = [np.concatenate(each) for each in zip(*tally.drain(), strict=True)]
    expected = np.unique(keys, return_counts=True)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [part for part in tally.drain() if part[0].size] == []
    assert list(tmp_path.iterdir()) == []  # runs had no name, and are gone


def test_runs_that_do_not_ascend_or_end_early_are_refused(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(as_bytes(np.array([5, 4], np.uint64), np.array([1, 1])))
    with pytest.raises(InputDataError, match="ascending"):
        list(merged([Run(path, 0, 2)]))
    with pytest.raises(InputDataError, match="cut short"):
        list(merged([Run(path, 0, 3)]))


@pytest.mark.parametrize("phase", ["survey", "range", "sketch"])
@pytest.mark.parametrize("threads", [1, 3])
def test_shards_put_together_are_one_process_in_every_bit(whole, data, phase, threads, tmp_path):
    alone = together(look(whole(phase, "alone"), data))
    slides = listed(data, whole().section.bands)
    folders = []
    for number in (3, 1, 2):  # in whatever order they end
        one, shard = whole(phase, f"shard{number}", threads), Shard(number, 3)
        own = {slide.path for slide in dealt(slides, shard)}
        write_seen(one, shard, slides, look(one, data, own))
        folders.append(one.folder)
    found, count = merge(whole(phase), folders, tmp_path / "merged")
    assert count == 5
    assert same(found, alone)
    assert same(read_merged(whole(phase), tmp_path / "merged", slides), alone)


def test_merged_counts_make_the_tables_of_one_counter(whole, data, fitted):
    one = whole()
    total = together(look(one, data))
    counter = PixelCounter(fitted[0], SPEC, 10)
    for path in sorted(data.glob("*.npy")):
        counter.add(fitted[0].encode(np.load(path).reshape(-1, 12))[0])
    assert total.pixels == counter.pixels
    expected = counter.tables()
    found = tables_of(fitted[0], SPEC, 10, total.merged())
    for ours, theirs in zip(found.sketches, expected.sketches, strict=True):
        assert np.array_equal(ours.table, theirs.table)
    assert np.array_equal(found.views.histogram, expected.views.histogram)
    assert found.presence.table.any()


def test_every_shard_count_deals_every_slide_once(data, whole):
    slides = listed(data, whole().section.bands)
    for of in (1, 2, 4, 9):
        hands = [dealt(slides, Shard(number, of)) for number in range(1, of + 1)]
        names = [slide.path.name for hand in hands for slide in hand]
        assert sorted(names) == [slide.path.name for slide in slides]
    loads = [sum(s.pixels for s in dealt(slides, Shard(n, 2))) for n in (1, 2)]
    assert abs(loads[0] - loads[1]) <= 1000  # of 16,000 pixels


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "-1/2", "1/10001", "1/2/3"])
def test_no_such_shard(text):
    with pytest.raises(InputDataError, match="--shard"):
        Shard.parse(text)


def shards(whole, data, numbers, of=2, folder="shared", **terms):
    slides = listed(data, whole().section.bands)
    one = whole(name=folder, **terms)
    for number in numbers:
        shard = Shard(number, of)
        own = {slide.path for slide in dealt(slides, shard)}
        write_seen(one, shard, slides, look(one, data, own))
    return one.folder


def test_shards_that_do_not_make_a_whole_are_refused_by_name(whole, data, tmp_path, plan):
    target = tmp_path / "merged"
    first = shards(whole, data, [1], folder="a")
    with pytest.raises(InputDataError, match="none of 2/2"):
        merge(whole(), [first], target)
    with pytest.raises(InputDataError, match="1/2 and 1/2 in b and a"):
        merge(whole(), [first, shards(whole, data, [1, 2], folder="b")], target)
    with pytest.raises(InputDataError, match=r"all of 2.*3/3"):
        merge(whole(), [first, shards(whole, data, [3], of=3, folder="c")], target)
    other = SketchSpec(5, 400, bytes(16))
    with pytest.raises(InputDataError, match="key_id"):
        merge(whole(), [first, shards(whole, data, [2], folder="d", spec=other)], target)
    renamed = parse_plan(plan.model_dump(mode="json") | {"name": "another"})
    with pytest.raises(InputDataError, match="plan"):
        merge(whole(), [first, shards(whole, data, [2], folder="e", plan=renamed)], target)
    with pytest.raises(InputDataError, match="seen: phase"):
        merge(whole(), [first, shards(whole, data, [2], folder="f", phase="range")], target)
    with pytest.raises(InputDataError, match="at least one"):
        merge(whole(), [tmp_path / "nowhere"], target)
    np.save(data / "s9.npy", np.load(data / "s1.npy"))
    with pytest.raises(InputDataError, match="list of slides that shard 1/2 saw"):
        merge(whole(), [first, shards(whole, data, [2], folder="g")], target)
    assert not target.exists()


def test_a_result_that_was_exchanged_after_its_shard_is_refused(whole, data, tmp_path):
    folder = shards(whole, data, [1, 2])
    victim = folder / part_name(data / "s2.npy")
    whole_file = victim.read_bytes()
    victim.write_bytes(whole_file[:-40] + bytes(40))
    with pytest.raises(InputDataError, match="damaged or tampered"):
        merge(whole(), [folder], tmp_path / "merged")
    victim.write_bytes((folder / part_name(data / "s1.npy")).read_bytes())
    with pytest.raises(InputDataError, match=r"its result of s2\.npy"):
        merge(whole(), [folder], tmp_path / "merged")
    victim.unlink()
    with pytest.raises(InputDataError, match="cannot read what was counted"):
        merge(whole(), [folder], tmp_path / "merged")


def test_merged_shards_of_slides_that_changed_since_are_refused(whole, data, tmp_path):
    folder = shards(whole, data, [1, 2])
    merge(whole(), [folder], tmp_path / "merged")
    os.utime(data / "s3.npy", (1, 1))
    now = listed(data, whole().section.bands)
    with pytest.raises(InputDataError, match="of other slides"):
        read_merged(whole(), tmp_path / "merged", now)


def counted_anew(whole, data, monkeypatch):
    """Names of the slides that a pass looks through, where the others' results are kept."""
    names = []
    honest = passes.SlidePass._look_through

    def spy(self, path, slide, place, progress):
        names.append(path.name)
        honest(self, path, slide, place, progress)

    with monkeypatch.context() as patched:
        patched.setattr(passes.SlidePass, "_look_through", spy)
        parts = look(whole, data)
    return names, parts


def test_what_is_kept_is_not_counted_again_and_what_is_stale_is(whole, data, monkeypatch):
    first = look(whole(), data)
    names, parts = counted_anew(whole(), data, monkeypatch)
    assert names == []
    assert same(together(parts), together(first))
    np.save(data / "s1.npy", np.load(data / "s1.npy")[::-1])  # the same size, other bytes
    mark = (data / "s0.npy").stat()
    os.utime(data / "s0.npy", ns=(1, 1))  # the same bytes, another time
    names, parts = counted_anew(whole(), data, monkeypatch)
    assert names == ["s1.npy"]
    assert mark.st_size == (data / "s0.npy").stat().st_size
    kept = whole().folder / part_name(data / "s2.npy")
    for damage in (kept.read_bytes()[:-1], kept.read_bytes() + b"\0", b"", bytes(200)):
        kept.write_bytes(damage)
        assert counted_anew(whole(), data, monkeypatch)[0] == ["s2.npy"]
    flipped = bytearray(kept.read_bytes())
    flipped[-60] ^= 1  # a count
    kept.write_bytes(flipped)
    names, parts = counted_anew(whole(), data, monkeypatch)
    assert names == ["s2.npy"]
    assert (kept.stat().st_mode & 0o777) == 0o600
    (data / "bands.txt").write_text("\n".join(whole().section.bands) + "\n")
    assert len(counted_anew(whole(), data, monkeypatch)[0]) == 5  # names of bands, too


@pytest.mark.parametrize("what", ["plan", "codec", "key", "phase"])
def test_a_result_of_other_counting_is_not_taken(whole, data, monkeypatch, what, plan, fitted):
    look(whole(), data)
    other = whole()
    match what:
        case "plan":
            other = replace(other, bond=replace(other.bond, plan="0" * 64))
        case "codec":
            other = replace(other, bond=replace(other.bond, codec="0" * 64))
        case "key":
            other = replace(other, bond=replace(other.bond, key_id="0" * 16, secret=bytes(16)))
        case "phase":
            other = replace(whole("range"), folder=other.folder)
    assert len(counted_anew(other, data, monkeypatch)[0]) == 5
    # Under the same names, but another secret: the seal does not fit.
    forged = replace(whole().bond, secret=bytes(16))
    look(whole(), data)
    for path in data.glob("*.npy"):
        place = whole().folder / part_name(path)
        sealed = open_sealed(place, whole().bond)
        write_sealed(place, forged, dict(sealed.head), [sealed.content()])
    assert len(counted_anew(whole(), data, monkeypatch)[0]) == 5


def test_a_slide_that_changes_while_it_is_counted_is_refused(whole, data):
    def meddle(done):
        os.utime(data / "s0.npy", ns=(done, done))

    with pytest.raises(InputDataError, match="changed while it was counted"):
        look(whole(), data, {data / "s0.npy"}, meddle)
    assert not (whole().folder / part_name(data / "s0.npy")).exists()


def test_the_digest_taken_while_reading_is_the_files_own(whole, data):
    for name, part in look(whole(), data).items():
        assert part.digest == digest_of(SECRET, data / name)
        assert part.digest != digest_of(bytes(16), data / name)
    with (data / "s0.npy").open("ab") as file:
        file.write(b"behind the pixels")
    part = look(whole(), data)["s0.npy"]
    assert part.digest == digest_of(SECRET, data / "s0.npy")


def test_a_survey_by_slides_is_the_survey(whole, data, memory_slide):
    parts = look(whole("survey"), data)
    images = np.concatenate([np.load(p) for p in sorted(data.glob("*.npy"))])
    assert same(together(parts), survey(memory_slide(images)))


def test_a_kill_loses_the_slide_in_progress_and_no_other(whole, data, plan, fitted, monkeypatch):
    """A process is killed in its third slide; the next one counts three of the five."""
    import tests

    codec_file = data.parent / "codec.json"
    codec_file.write_text(codec_text(fitted[0]))
    (data.parent / "plan.json").write_bytes(plan.canonical())
    program = f"""
import json, sys, time
from pathlib import Path
from common.keys.pixel_agreement import read_codec
from common.plan import parse_plan
from common.sketching import SketchSpec
from dataclasses import replace
from site_client.pixels.slides import open_slide
from site_client.worker.slide_tasks import slide_task
data, kept = Path({str(data)!r}), Path({str(whole().folder)!r})
codec = read_codec((data.parent / "codec.json").read_text())
plan = parse_plan(json.loads((data.parent / "plan.json").read_text()))
spec = SketchSpec(5, 400, bytes(range(16)), domain=codec.identity)
whole = replace(slide_task(plan, "sketch", codec).slide_pass(spec, kept, 1), distinct=200)
for number, path in enumerate(sorted(data.glob("*.npy"))):
    def tell(done):
        if number == 2:
            print("in the third", flush=True)
            time.sleep(600)
    whole.part(path, open_slide(path, plan.pixels.bands), tell)
"""
    root = tests.__path__[0].removesuffix("/tests")
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        assert process.stdout.readline() == b"in the third\n"
        process.send_signal(signal.SIGKILL)
    names, parts = counted_anew(whole(), data, monkeypatch)
    assert names == ["s2.npy", "s3.npy", "s4.npy"]
    assert same(together(parts), together(look(whole(name="afresh"), data)))
