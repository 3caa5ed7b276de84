"""A plan in words: short where it is a table, complete where a person decides by it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from common.cli import shown
from common.plan import RUNS, parse_plan, read_plan
from common.schedule import schedule
from common.words import about_kind, all_words, facts_of, in_words, leavings
from common.words.kind import KindWords, words_of
from common.words.leaving import most_in_a_round, most_in_a_run
from common.words.plan import _TOLD_OF_RUNS, fields_of

SHIPPED = sorted((Path(__file__).parents[2] / "deploy" / "plans").glob("*.toml"))
TRAINING = {"name": "p", "seed": 1, "task": {"landmarks": ["A", "B"]}}
COUNTED = TRAINING | {"learner": {"replay": "rare-first"}}
NO_OP = TRAINING | {"kind": "no-op"}
BANDS = {"bands": ["a", "b", "c", "d"]}
PIXELS = {"name": "p", "kind": "pixels", "seed": 1, "pixels": BANDS | {"components": 3}}
EMBED = {
    "name": "p",
    "kind": "embed",
    "seed": 1,
    "embed": {"codec": "0" * 64, "codebook": "1" * 64, "groups": ["g1", "g2"]},
}
ALL_BANDS = PIXELS | {"pixels": BANDS | {"codec": "all-bands"}}


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (8, "b0, b1, b2, b3, b4, b5, b6, b7"),
        (200, "b0, b1, b2, b3, b4, b5, … (200 in all)"),
    ],
)
def test_bands_are_shown_whole_when_they_are_few_and_else_the_first_with_their_number(count, said):
    bands = [f"b{i}" for i in range(count)]
    plan = parse_plan({"name": "p", "kind": "pixels", "seed": 1, "pixels": {"bands": bands}})
    assert dict(about_kind(plan))["bands"] == said


def test_a_plan_of_all_bands_says_levels_and_five_sketches():
    section = {"bands": [f"b{i}" for i in range(35)], "codec": "all-bands", "columns": 100_000}
    plan = parse_plan({"name": "p", "kind": "pixels", "seed": 1, "pixels": section})
    facts = dict(about_kind(plan))
    assert facts["codec"] == "35 bands of 3 levels"
    assert facts["sketches"].startswith("5 of 15 x 100000")
    assert "range" not in facts["rounds"]


def text_of(plan):
    return "\n".join(s for passage in in_words(plan) for s in passage.sentences)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_plan_is_told_whole_and_alike_for_scripts(path):
    plan = read_plan(path)
    headings = [passage.heading for passage in in_words(plan)]
    assert len(set(headings)) == len(headings) == 6
    assert all(passage.sentences for passage in in_words(plan))
    assert plan.fingerprint in text_of(plan)
    told = all_words(plan)
    assert told["fields"] == dict(fields_of(plan))
    assert [each["record"] for each in told["leaves"]] == [each.record for each in leavings(plan)]
    assert dict(facts_of(plan, 3))["quorum"] == f"{plan.rounds.quorum} of 3 admitted sites"


ELSE = {
    "learner.method": "displacement",
    "task.landmarks": ["A", "Zed"],
    "task.spacing_mm": 3.25,
    "task.missing": "allow",
    "task.crops": 3,
    "task.shown": "structure",
    "task.contrasts": 5,
    "network.private_heads": True,
    "task.roi": 31,
    "network.width": 23,
    "start": "4" * 64,
    "learner.updates": 77,
    "learner.batch": 33,
    "learner.searches": 29,
    "learner.episode_steps": 37,
    "learner.learning_rate": 0.0375,
    "learner.gradient_clip": 41.5,
    "evaluation.starts": 43,
    "evaluation.poses": 3,
    "rounds.training": 47,
    "rounds.quorum": 53,
    "rounds.deadline_s": 59.0,
    "rounds.server_momentum": 0.61,
    "rounds.train_s": 41.25,
    "rounds.late_weight": 0.27,
    "experience.rows": 7,
    "experience.columns": 6700,
    "experience.key": "place",
    "limits.update_l2": 71.5,
    "limits.min_images": 73,
    "limits.min_transitions": 7900,
    "limits.min_sketch_fill": 0.083,
    "limits.privacy_tier": 0,
    "limits.max_envelope_bytes": 89_000_000,
    "seed": 97,
    "pixels.bands": ["a", "b", "c", "Zed"],
    "pixels.codec": "all-bands",
    "pixels.components": 4,
    "pixels.bins": 17,
    "pixels.levels": 5,
    "pixels.smoothing": 1.125,
    "pixels.rows": 19,
    "pixels.columns": 151_000,
    "pixels.top": 103,
    "pixels.key_pixels": 107,
    "pixels.key_sites": 109,
    "pixels.min_slides": 113,
    "pixels.min_pixels": 12_700,
    "pixels.presence_floor": 131,
    "embed.codec": "2" * 64,
    "embed.codebook": "3" * 64,
    "embed.groups": ["g1", "Zed"],
    "embed.min_slides": 137,
    "embed.min_pixels": 13_900,
    "embed.group_pixels": 149,
}


ONE_VALUE = {
    *("task.kind", "task.plane_landmarks", "task.more_planes", "network.architecture"),
    *("pixels.codec", "experience.kept"),
}
"""Told, and of one value, or of another one only with other fields beside it."""


def told_fields():
    bases = {"training": TRAINING, "no-op": NO_OP, "pixels": PIXELS, "embed": EMBED}
    told = [
        (COUNTED if base is TRAINING and name != "learner.method" else base, name)
        for base in bases.values()
        for name in sorted(
            (words_of(parse_plan(base)).fields | _TOLD_OF_RUNS) - ONE_VALUE - {"pixels.levels"}
        )
    ]
    told.append((ALL_BANDS, "pixels.levels"))
    return [pytest.param(*case, id=f"{case[0].get('kind', 'training')}-{case[1]}") for case in told]


def with_field(base, name, value):
    section, _, field = name.rpartition(".")
    if not section:
        return parse_plan(base | {field: value})
    return parse_plan(base | {section: dict(base.get(section, {})) | {field: value}})


def test_the_codec_of_pixels_changes_the_sentences():
    assert in_words(parse_plan(PIXELS))[0] != in_words(parse_plan(ALL_BANDS))[0]


@pytest.mark.parametrize(("base", "name"), told_fields())
def test_a_field_that_counts_as_told_changes_the_sentences(base, name):
    before, after = in_words(parse_plan(base)), in_words(with_field(base, name, ELSE[name]))
    assert before[:-1] != after[:-1], "told in no passage but the last, which lists the rest"


@pytest.mark.parametrize("base", [TRAINING, NO_OP, PIXELS, ALL_BANDS, EMBED])
def test_every_field_is_told_or_listed(base):
    plan = parse_plan(base)
    told = {"version", "name", "kind"} | _TOLD_OF_RUNS | words_of(plan).fields
    rest = {entry.split(" = ")[0] for entry in in_words(plan)[-1].sentences[0].split("; ")}
    for name, _ in fields_of(plan):
        assert (name in told) != (name in rest), name


@pytest.mark.parametrize("base", [TRAINING, NO_OP, PIXELS, ALL_BANDS, EMBED])
def test_a_round_and_a_run_hold_every_record_that_the_schedule_asks_for(base):
    plan = parse_plan(base)
    found = leavings(plan)
    assert sum(each.times for each in found if each.record == "RoundReport") == len(schedule(plan))
    assert most_in_a_round(plan) <= most_in_a_run(plan)
    assert all(each.most_bytes <= plan.limits.max_envelope_bytes for each in found)


def test_no_envelope_is_said_to_be_larger_than_the_plan_lets_one_be():
    plan = parse_plan(TRAINING | {"limits": {"max_envelope_bytes": 4096}})
    assert {each.most_bytes for each in leavings(plan)} <= set(range(4097))


def test_a_plan_without_a_key_says_that_anybody_can_look_up_its_sketches():
    open_plan = parse_plan(COUNTED | {"limits": {"privacy_tier": 0}})
    assert "asks for no key" in text_of(open_plan)
    assert "asks for no key" not in text_of(parse_plan(COUNTED))


def test_what_somebody_wrote_cannot_steer_a_terminal_and_keeps_its_script():
    assert shown("a\x1b[2J\x9b\u202eb\nc\u2028") == "a?[2J??b?c?"
    for name in ("Дмитро", "森 鷗外", "فاطمه\u200cزهرا", "क\u094d\u200dष"):
        assert shown(name) == name


def test_every_kind_of_run_brings_its_own_words():
    """Its entry names them: whoever adds a kind and forgets its words is told so here."""
    for kind, run in RUNS.items():
        words = import_module(run.words).WORDS
        assert isinstance(words, KindWords), kind
        assert words.fields, kind


def test_a_plan_of_displacements_speaks_of_no_experience():
    task = {"kind": "landmark-2d", "landmarks": ["A"]}
    plan = {"name": "p", "seed": 1, "task": task, "learner": {"method": "displacement"}}
    for kind in ("training", "no-op"):
        told = " ".join(
            str(passage.as_dict()) for passage in in_words(parse_plan({**plan, "kind": kind}))
        )
        for word in ("experience", "sketch", "table"):
            assert word not in told.split("The rest of the plan")[0], word
