"""A site that failed is mended, and the run is resumed: it is asked again, not quoted."""

from __future__ import annotations

from aggregator.rounds.events import SiteReplied
from common.plan import parse_plan
from common.wire.codes import ReplyCode


def test_a_run_that_failed_for_a_site_without_its_images_is_resumed_when_they_are_back(
    three, no_op_plan
):
    asked = no_op_plan.model_dump(mode="json")
    asked["rounds"]["quorum"] = 3
    store = three.create_run(parse_plan(asked), min_sites=3)
    images = three.root / "data" / "site-b"
    away = images.rename(three.root / "away")
    failed = three.conduct(store, three.transport())
    assert (failed.verdict, failed.rounds) == ("FAILED", 0)
    away.rename(images)
    resumed = three.conduct(store, three.transport())
    assert resumed.rounds == 2
    told = [e.code for e in three.events(store) if isinstance(e, SiteReplied) and e.round == 0]
    assert told.count(ReplyCode.BAD_DATA) == 1
    assert told[-3:] == [ReplyCode.OK] * 3
