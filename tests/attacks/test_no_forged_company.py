"""It must not get a hospital to work alone among sites that do not exist.

Invented sites, sybils, a roster that grows, views that are split: what stands behind a sum
must be the run's sites, each once, enough of them known to this hospital's own staff.
"""

import pytest

from common.crypto.keyed import FederationKey
from common.sums.addition import add_records, encode_sum, sum_digest
from common.sums.chain import next_link
from common.wire.codes import ReplyCode
from common.wire.orders import RosterEntry
from site_client.worker.tagging import tagged
from tests.aggregated import Past, ledger_key_of, roster_of
from tests.attacks.conftest import OTHERS, confirm, forge, make_past, plan_of
from tests.conftest import FEDERATION_KEY


def test_a_hospital_whose_staff_know_nobody_takes_part_in_nothing(hospital):
    from tests.attacks.conftest import approve

    plan = plan_of()
    approve(hospital, plan)
    assert hospital.ask(plan).code is ReplyCode.UNKNOWN_PEERS
    confirm(hospital, "east")
    assert hospital.ask(plan, run="run-2").code is ReplyCode.UNKNOWN_PEERS
    confirm(hospital, "west")
    assert hospital.ask(plan, run="run-3").code is ReplyCode.OK


def test_invented_sites_do_not_count_however_many(trusting):
    plan = plan_of()
    sybils = [f"sybil-{n}" for n in range(20)]
    roster = roster_of("north", trusting.own_key, sybils)
    assert trusting.ask(plan, roster=roster).code is ReplyCode.UNKNOWN_PEERS
    assert trusting.got_nothing()


def test_an_invented_key_under_a_known_name_is_refused_whatever_else_holds(trusting):
    plan = plan_of()
    stolen = ledger_key_of("mallory").public.fingerprint
    roster = [
        entry.model_copy(update={"ledger_key": stolen}) if entry.site == "east" else entry
        for entry in roster_of("north", trusting.own_key, (*OTHERS, "south", "upland"))
    ]
    confirm(trusting, "south", "upland")
    assert trusting.ask(plan, roster=roster).code is ReplyCode.UNKNOWN_PEERS


@pytest.mark.parametrize("own", ["missing", "another key"])
def test_a_roster_without_the_hospital_itself_is_refused(trusting, own):
    roster = [entry for entry in trusting.roster if entry.site != "north"]
    if own == "another key":
        key = ledger_key_of("mallory").public.fingerprint
        roster = sorted([*roster, RosterEntry(site="north", ledger_key=key)], key=lambda e: e.site)
    assert trusting.ask(plan_of(), roster=roster).code is ReplyCode.UNKNOWN_PEERS


def test_a_roster_cannot_grow_in_the_middle_of_a_run(trusting):
    plan = plan_of()
    assert trusting.ask(plan).code is ReplyCode.OK
    roster = roster_of("north", trusting.own_key, (*OTHERS, "sybil"))
    past = Past(plan, "run-1", roster, FEDERATION_KEY)
    heard = trusting.ask(plan, 2, "train", roster=roster, sums=past.until(2))
    assert heard.code is ReplyCode.CHANGED_PLAN
    assert trusting.got_nothing()


def first_sum(liar, plan, members, key=FEDERATION_KEY, doubled=False):
    """A first round's sum of these sites, tagged with ``key``."""
    past = make_past(liar, plan)
    answers = {s: tagged(past.training_records(s, 1), key, past.links[0]) for s in members}
    if doubled:
        answers["west"] = answers["east"]
    return encode_sum(add_records("run-1", 1, answers))


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (("east",), ReplyCode.FORGED_SUM),  # below the plan's quorum
        (("east", "sybil"), ReplyCode.FORGED_SUM),  # not of the roster
        (("sybil-1", "sybil-2"), ReplyCode.FORGED_SUM),
    ],
)
def test_a_sum_of_too_few_or_of_strangers_is_refused(trusting, members, code):
    plan = plan_of()
    data = first_sum(trusting, plan, members)
    assert trusting.ask(plan, 2, "train", sums={1: data}).code is code
    assert trusting.got_nothing()


def test_a_sum_of_nobody_that_the_staff_know_is_refused(trusting):
    """Two sites of the roster that hold the key, and that people here never confirmed."""
    plan = plan_of()
    roster = roster_of("north", trusting.own_key, (*OTHERS, "hamlet", "meadow"))
    past = Past(plan, "run-1", roster, FEDERATION_KEY)
    past.add({s: past.training_records(s, 1) for s in ("hamlet", "meadow")})
    heard = trusting.ask(plan, 2, "train", roster=roster, sums=past.until(2))
    assert heard.code is ReplyCode.UNKNOWN_PEERS
    assert trusting.got_nothing()


def test_invented_sites_cannot_make_tags_without_the_key(trusting):
    plan = plan_of()
    guessed = FederationKey(bytes(16))
    data = first_sum(trusting, plan, OTHERS, key=guessed)
    assert trusting.ask(plan, 2, "train", sums={1: data}).code is ReplyCode.FORGED_SUM


def test_one_sites_update_in_another_sites_name_is_refused(trusting):
    plan = plan_of()
    data = first_sum(trusting, plan, OTHERS, doubled=True)
    assert trusting.ask(plan, 2, "train", sums={1: data}).code is ReplyCode.FORGED_SUM


# Split views: every site shown something else.


def test_other_weights_for_one_site_are_refused_by_all_in_the_next_round(trusting):
    """The hospital is shown a first round of its own; its tag then fits nobody else's."""
    plan = plan_of()
    ours, theirs = make_past(trusting, plan), make_past(trusting, plan)
    ours.add({s: ours.training_records(s, 1, scale=2000) for s in OTHERS})
    theirs.add({s: theirs.training_records(s, 1) for s in OTHERS})
    assert ours.links[1] != theirs.links[1]
    answer = trusting.ask(plan, 2, "train", sums=ours.until(2)).released
    mixed = {s: tagged(theirs.training_records(s, 2), theirs.key, theirs.links[1]) for s in OTHERS}
    mixed["north"] = [answer["ModelUpdate"], answer["SketchTable"]]
    spoilt = encode_sum(add_records("run-1", 2, mixed))
    # Refused here ...
    heard = trusting.ask(plan, 3, "train", sums={**ours.until(2), 2: spoilt})
    assert heard.code is ReplyCode.FORGED_SUM
    # ... and, by the same rule, by whoever holds the other view.
    from common.errors import RefusedError
    from common.sums.addition import decode_sum, verify_sum

    for past in (ours, theirs):
        with pytest.raises(RefusedError):
            verify_sum(decode_sum(spoilt), FEDERATION_KEY, past.links[1])


def test_a_second_first_round_cannot_replace_the_one_that_was_taken(trusting):
    plan = plan_of()
    taken, other = make_past(trusting, plan), make_past(trusting, plan)
    assert trusting.ask(plan, 2, "train", sums=taken.until(2)).code is ReplyCode.OK
    other.add({s: other.training_records(s, 1, scale=2000) for s in OTHERS})
    heard = trusting.ask(plan, 3, "train", sums=other.until(3))
    assert heard.code is ReplyCode.FORGED_SUM


@pytest.mark.parametrize("kind", ["ModelUpdate/conv1.weight", "SketchTable/table"])
def test_one_unit_more_in_one_coordinate_of_a_real_sum_is_refused(trusting, kind):
    plan = plan_of()
    honest = make_past(trusting, plan).until(2)[1]

    def bend(arrays):
        arrays[kind].reshape(-1)[3] += 1

    assert trusting.ask(plan, 2, "train", sums={1: forge(honest, bend)}).code is (
        ReplyCode.FORGED_SUM
    )
    assert trusting.got_nothing()


def test_another_rounds_and_another_runs_sum_are_refused(trusting):
    plan = plan_of()
    past = make_past(trusting, plan)
    past.until(3)
    elsewhere = make_past(trusting, plan, run="run-2")
    for data in (past.sums[2], elsewhere.until(2)[1]):
        heard = trusting.ask(plan, 2, "train", sums={1: data})
        assert heard.code is ReplyCode.FORGED_SUM
    assert next_link(past.links[0], sum_digest(past.sums[1])) == past.links[1]
