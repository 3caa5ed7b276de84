"""Nothing of worth leaves a site whose ledger a witness has seen otherwise, or nobody sees."""

from __future__ import annotations

import pytest

from common.wire.codes import ReplyCode
from site_client.files import write_atomically
from site_client.join import settings_text
from site_client.witnesses.answers import mark_of
from site_client.witnesses.standing import Seen, Standing, note_standing
from tests.attacks.conftest import make_past, plan_of
from tests.common.witness.conftest import Bench

URL = "http://127.0.0.1:9"


@pytest.fixture
def watched(trusting, tmp_path):
    """The hospital names a witness that answers nobody."""
    policy = f"{Bench(tmp_path).line('north', URL)}quorum north\n"
    settings = trusting.site.settings().model_copy(update={"witness_policy": policy})
    write_atomically(trusting.site.settings_file, settings_text(settings))
    return trusting


def trained(liar, round_):
    plan = plan_of()
    sums = make_past(liar, plan).until(round_)
    return liar.ask(plan, round_, "train", sums=sums)


def contradict(liar, *, proven: bool) -> None:
    seen = Seen(("north",), URL, trouble="it has seen other records", contradicts=True)
    standing = Standing("north", 0, "", {mark_of(URL): seen})
    if proven:
        standing = Standing("north", 0, "", {mark_of(URL): Seen(**(vars(seen) | {"proven": True}))})
    note_standing(liar.site, standing)


def set_policy(liar, old: str, new: str) -> None:
    text = liar.site.policy_file.read_text()
    assert text.count(old) == 1
    liar.site.policy_file.write_text(text.replace(old, new))


def test_a_contradicted_site_answers_with_a_number_and_nothing_else(watched):
    contradict(watched, proven=False)
    assert trained(watched, 1).code is ReplyCode.CONTRADICTED
    assert watched.got_nothing()


def test_a_site_that_wants_proof_stops_when_there_is_one(watched):
    set_policy(watched, 'contradicted = "stop"', 'contradicted = "proven"')
    contradict(watched, proven=True)
    assert trained(watched, 1).code is ReplyCode.CONTRADICTED
    assert watched.got_nothing()


def test_a_witness_that_is_kept_away_stops_a_site_after_a_few_releases(watched):
    set_policy(watched, "unwitnessed = 100", "unwitnessed = 1")
    assert watched.ask(plan_of()).code is ReplyCode.OK
    assert trained(watched, 1).code is ReplyCode.UNWITNESSED
    assert watched.got_nothing()
