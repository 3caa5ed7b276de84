"""Which scan is not like the others, and why: every slip is planted and must be named."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from site_client.data_check.review import review_scans
from site_client.imaging.folders import list_folder
from site_client.imaging.judging import judge, nearest_name, orientation
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.imaging.leftovers import take_inventory
from site_client.imaging.opening import Scan
from site_client.imaging.synthesis import Grid, RawImage, write_raw

SHAPE = {
    "left eye": (28.0, -35.0, 5.0),
    "right eye": (-28.0, -35.0, 5.0),
    "crown": (2.0, 5.0, 42.0),
    "nape": (0.0, 38.0, -20.0),
    "left ear": (38.0, 8.0, -4.0),
}


def head(folder, number, **changes):
    """An ellipsoid with five landmarks, elsewhere in its field of view every time."""
    rng = np.random.default_rng(number)
    size, spacing = (70, 80, 66), changes.get("spacing", 2.0)
    origin = rng.uniform(-6, 6, 3) - (np.array(size) - 1) / 2 * spacing + (15, -20, 40)
    centre = origin + (np.array(size) - 1) / 2 * spacing + rng.uniform(-5, 5, 3)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    inside = (((origin + index * spacing - centre) / (48, 58, 50)) ** 2).sum(axis=-1) < 1
    voxels = inside * 100.0 + rng.normal(0, 3, size)
    grid = Grid(size, (spacing,) * 3, tuple(origin), np.eye(3))
    raw = RawImage(np.ascontiguousarray(voxels.T.astype(np.int16)), grid)
    write_raw(folder / f"head-{number}.nii.gz", raw)
    marks = {n: centre + p + rng.normal(0, 2, 3) for n, p in SHAPE.items()}
    write_landmarks(folder / f"head-{number}.mrk.json", marks)
    return centre, origin


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    places = [head(folder, number) for number in range(6)]
    return folder, places


@pytest.fixture
def folder(heads, tmp_path):
    shutil.copytree(heads[0], tmp_path / "data")
    return tmp_path / "data"


def change(folder, number, how):
    path = folder / f"head-{number}.mrk.json"
    write_landmarks(path, {n: np.asarray(p) for n, p in how(read_landmarks(path)).items()})


def faults(folder, number=2, wanted=()):
    review = review_scans(folder, wanted, side=48)
    scan = next(s for s in review.scans if s.name == f"head-{number}")
    others = [f for s in review.scans if s is not scan for f in s.faults]
    assert others == [], "the sound ones are left in peace"
    return {fault.kind: fault for fault in scan.faults}


def each(function):
    return lambda marks: {name: function(point) for name, point in marks.items()}


def test_sound_scans_have_no_faults(folder):
    review = review_scans(folder, tuple(SHAPE), side=48)
    assert review.named_faults == ()
    assert review.fact.level == "ok"
    assert review.judgement.typical_mm < 8
    assert set(review.judgement.distances_mm["head-0"]) == set(SHAPE)


def test_left_and_right_exchanged_looks_mirrored_and_says_by_what(folder, heads):
    x = heads[1][2][0][0]
    change(folder, 2, each(lambda p: p * (-1, 1, 1) + (2 * x, 0, 0)))
    says = faults(folder)["mirrored"].says
    assert "left and right exchanged" in says
    assert "'right eye' lies to the left of 'left ear' here" in says or "eye' lies to the" in says
    assert "in the others" in says


def test_ras_written_as_lps_is_named(folder):
    change(folder, 2, each(lambda p: p * (-1, -1, 1)))
    assert "RAS written as LPS" in faults(folder)["frame"].says


def test_voxel_indices_are_named(folder, heads):
    origin = heads[1][2][1]
    change(folder, 2, each(lambda p: (p - origin) / 2.0))
    assert "voxel indices" in faults(folder)["voxel indices"].says


def test_centimetres_are_named(folder):
    change(folder, 2, each(lambda p: p / 10))
    assert "centimetres" in faults(folder)["unit"].says


def test_a_shift_is_named_with_its_way(folder):
    change(folder, 2, each(lambda p: p + np.array([0, 25, 0])))
    says = faults(folder)["shifted"].says
    assert "mostly to the back" in says


def test_two_exchanged_names_are_named(folder):
    def exchange(marks):
        return marks | {"crown": marks["nape"], "nape": marks["crown"]}

    change(folder, 2, exchange)
    assert "'crown' and 'nape' look exchanged" in faults(folder)["exchanged"].says


def test_one_landmark_elsewhere_is_named_alone(folder):
    change(folder, 2, lambda marks: marks | {"crown": marks["crown"] + (0, 24, -10)})
    says = faults(folder)["far off"].says
    assert "'crown'" in says
    assert "'nape'" not in says


def test_a_landmark_outside_the_image_is_bad(folder):
    change(folder, 2, lambda marks: marks | {"nape": marks["nape"] + (300, 0, 0)})
    fault = faults(folder)["outside"]
    assert fault.level == "bad"
    assert "nape" in fault.says


def test_two_slips_in_six_scans_are_both_found(folder):
    change(folder, 2, each(lambda p: p * (-1, -1, 1)))
    change(folder, 4, each(lambda p: p + np.array([0, 0, 30])))
    review = review_scans(folder, side=48)
    kinds = {scan.name: [f.kind for f in scan.faults] for scan in review.scans if scan.faults}
    assert kinds == {"head-2": ["frame"], "head-4": ["shifted"]}


def test_a_name_that_a_plan_asks_for_is_suggested(folder):
    change(folder, 2, lambda marks: {n.replace("crown", "Crown "): p for n, p in marks.items()})
    assert "'crown' (has 'Crown': is it that?)" in faults(folder)["names"].says
    review = review_scans(folder, ("vertex",), side=48)
    assert all(scan.faults[0].level == "bad" for scan in review.scans)


def test_duplicates_are_named(folder):
    shutil.copy(folder / "head-1.nii.gz", folder / "head-2.nii.gz")
    shutil.copy(folder / "head-1.mrk.json", folder / "head-2.mrk.json")
    assert "the same image as head-1" in faults(folder)["duplicate"].says


def test_landmarks_copied_to_another_image_are_named(folder):
    shutil.copy(folder / "head-1.mrk.json", folder / "head-2.mrk.json")
    assert "same positions as in head-1" in faults(folder)["copied landmarks"].says


def test_one_subject_spelt_in_two_ways_is_named():
    scans = [Scan(f"{s}_T1w", s, Path(s), None) for s in ("sub-01", "sub-1", "sub-02")]
    told = [[f.kind for f in scan.faults] for scan in judge(scans).scans]
    assert told == [[], ["duplicate"], []]


def test_a_wild_spacing_is_named(folder, tmp_path):
    head(folder, 2, spacing=7.0)
    assert (
        "spacing 7 x 7 x 7 mm; the others have about 2 x 2 x 2 mm" in faults(folder)["spacing"].says
    )


@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), "cut short"),
        (lambda p: p.write_bytes(gzip.compress(b"Dear colleague")), "unreadable"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.rename(p.with_name("head-2.mha")), "wrong suffix"),
    ],
    ids=["cut", "letter", "nothing", "misnamed"],
)
def test_what_does_not_open_is_told_apart(folder, break_it, kind):
    break_it(folder / "head-2.nii.gz")
    assert faults(folder)[kind].level == "bad"


def test_a_constant_image_and_a_half_filled_one_are_told(folder):
    path = folder / "head-2.nii.gz"
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:352] + bytes(len(raw) - 352)))
    assert "constant" in faults(folder)["empty"].says
    path.write_bytes(gzip.compress(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2)))
    assert "upper end" in faults(folder)["blank part"].says


def test_an_unlabelled_image_is_opened_too(folder):
    (folder / "head-2.mrk.json").unlink()
    assert faults(folder)["unlabelled"].level == "look"
    (folder / "head-2.nii.gz").write_bytes(b"\x1f\x8b")
    assert set(faults(folder)) == {"unlabelled", "unreadable"} or "cut short" in faults(folder)


def test_what_lies_beside_is_sorted(folder):
    shutil.copy(folder / "head-0.nii.gz", folder / "old.img")
    (folder / "more").mkdir()
    shutil.copy(folder / "head-0.nii.gz", folder / "more" / "x.nii.gz")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_landmarks(folder / "nobody.mrk.json", {})
    (folder / "README.md").write_text("notes")
    found = take_inventory(list_folder(folder))
    assert found.takes == (("*.nii.gz", 6),)
    assert found.misnamed == (("old.img", "gzipped NIfTI", "old.nii.gz"),)
    assert found.orphans == ("nobody.mrk.json",)
    assert {left.what: left.count for left in found.leaves} == {"*.png": 1, "more/*": 1}


def test_the_nearest_name_does_not_mind_case_or_punctuation():
    assert nearest_name("genu of CC", ["Genu_of_cc", "PC"]) == "Genu_of_cc"
    assert nearest_name("AC", ["splenium"]) is None


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_an_orientation_names_every_axis_once(order, signs):
    code = orientation(np.eye(3)[:, list(order)] * np.array(signs))
    pairs = [{"L", "R"}, {"P", "A"}, {"S", "I"}]
    assert all(len(pair & set(code)) == 1 for pair in pairs)


def test_real_brains_agree_and_a_mirrored_one_does_not(tmp_path):
    source = Path(__file__).parents[4] / "shared" / "data" / "brain_templates"
    if not source.is_dir():
        pytest.skip("no real data beside this checkout")
    asym, linear = "tpl-MNI152NLin2009cAsym_res-0", "tpl-MNI152NLin6Asym_res-01"
    for image, marks in {
        "ch2": "tpl-MNIColin27_desc-groundtruth_afids",
        f"{asym}2_T1w": f"{asym}1_desc-groundtruth_afids",
        f"{linear}_T1w": f"{linear}_desc-groundtruth_afids",
    }.items():
        shutil.copy(source / f"{image}.nii.gz", tmp_path)
        shutil.copy(source / f"{marks}.fcsv", tmp_path / f"{image}.fcsv")
    path = tmp_path / "ch2.fcsv"
    marks = {n: p for n, p in read_landmarks(path).items() if n not in ("29", "30")}
    path.unlink()
    write_landmarks(tmp_path / "ch2.mrk.json", marks)
    review = review_scans(tmp_path, side=64)
    told = [(name, fault.kind) for name, fault in review.named_faults if fault.level != "note"]
    assert told == [("ch2", "names")], "it lacks two, and nothing else is said of any"
    write_landmarks(tmp_path / "ch2.mrk.json", {n: p * (-1, 1, 1) for n, p in marks.items()})
    told = {scan.name: [f.kind for f in scan.faults] for scan in review_scans(tmp_path).scans}
    assert told["ch2"] == ["names", "mirrored"]
