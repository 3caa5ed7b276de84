"""The card: read by people, so nothing that others named may bend it."""

from __future__ import annotations

import json

import pytest

from common.errors import VerificationError
from common.released.card import NOT_FOR, Card, CardErrors, CardSite, decode_card, render_card


def card(**changes) -> Card:
    about = {
        "name": "brains",
        "federation": "test",
        "run": "run-1",
        "verdict": "COMPLETED",
        "reason": "",
        "finished": "2030-01-02T03:04:05Z",
        "plan": "ab" * 32,
        "weights": "cd" * 32,
        "start": "ef" * 32,
        "from_seed": True,
        "kind": "training",
        "task": "landmark-3d",
        "looks_for": ("AC", "PC"),
        "unit": "mm",
        "spacing_mm": 1.0,
        "architecture": "triplanar",
        "parameters": 12_345,
        "updates": 2000,
        "server_momentum": 0.0,
        "sites": (CardSite(site="site-a", images=40, rounds=3),),
        "errors": (),
    }
    return Card(**(about | changes))


def errors(after, part, label="", mean=2.0, far=0.25):
    return CardErrors(
        after=after, part=part, label=label, searches=8, mean=mean, prior=9.5, over_10mm=far
    )


def test_what_was_written_is_read_back():
    whole = card(errors=(errors(0, "training"), errors(3, "held-out", "AC", far=None)))
    assert decode_card(whole.encode()) == whole
    assert render_card(decode_card(whole.encode())) == render_card(whole)


def test_a_card_says_what_was_shown_of_an_image_unless_it_was_its_greys():
    greys, structure = card(), card(shown="structure")
    assert "shown" not in json.loads(greys.encode())
    assert "shown" not in render_card(greys)
    assert decode_card(structure.encode()) == structure
    assert "| shown of an image | structure |" in render_card(structure)


def test_the_page_says_what_it_is_not_for_and_never_leaves_it_out():
    page = render_card(card())
    assert all(line in page for line in NOT_FOR)
    assert "Nobody measured it" in page


def test_held_out_errors_come_first_and_each_part_says_which_cases():
    rows = [errors(n, part) for n in (0, 3) for part in ("training", "held-out")]
    page = render_card(card(errors=(*rows, errors(3, "held-out", "AC", 1.25))))
    first, second = page.index("cases that were held out"), page.index("cases that were trained on")
    assert first < second
    assert "| AC | 1.25 | 9.50 | 25 % |" in page[first:second]


def test_a_model_that_is_worse_than_not_looking_says_so():
    told = "no better than an answer that never looks"
    assert told in render_card(card(errors=(errors(0, "training"), errors(3, "training", "", 9.5))))
    assert told not in render_card(
        card(errors=(errors(0, "training", "", 12.0), errors(3, "training")))
    )


def test_a_name_cannot_end_its_cell_or_its_line():
    named = CardSite(site="a | b\n# approved", images=1, rounds=1)
    assert "| a / b # approved | 1 | 1 |" in render_card(card(sites=(named,)))


def test_a_degraded_run_stands_in_the_first_lines():
    page = render_card(card(verdict="DEGRADED", reason="round 2: site-c was late"))
    assert "**DEGRADED**" in page[: page.index("##")]
    assert "site-c was late" in page


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_card_is_refused(data):
    with pytest.raises(VerificationError):
        decode_card(data)
    more = json.loads(card().encode()) | {"approved_by": "everybody"}
    with pytest.raises(VerificationError):
        decode_card(json.dumps(more).encode())
