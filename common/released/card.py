"""A model's card: what it looks for, what it was made of, how good it is and what it is not for.

Written for a person who was not there. The sites' figures are added up: the card goes further
than the coordinator's report does.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from common.arrivals.texts import json_of
from common.errors import VerificationError
from common.released.provenance import Words
from common.settings import describe_validation

FORMAT: Final = "cairn-model-card/1"
INTENDED: Final = (
    "Research: finding in images, in seconds, what the model was trained to look for, for a "
    "person who looks at every answer."
)
NOT_FOR: Final = (
    "It is not a medical device and has no approval of any authority: no diagnosis, no treatment "
    "and no measurement may rest on it alone.",
    "It is not for other contrasts, devices, protocols, ages or parts of the body than those "
    "the sites' images show; on such it answers all the same, and wrongly.",
    "It does not know when it is wrong: the spread of its searches is a hint and no proof.",
    "Its errors below are the sites' own; evaluate it on images of your own first: "
    "cairn-site evaluate --checkpoint FOLDER --data IMAGES",
)
PARTS: Final = {
    "held-out": "cases that were held out",
    "training": "cases that were trained on: new ones will be worse",
}

Part = Literal["held-out", "training"]


class CardSite(Words):
    """One site: how many images it trained on, and in how many rounds' sums it is."""

    site: str
    images: int
    rounds: int


class CardErrors(Words):
    """Errors of the sites' own evaluations, weighted by searches; in the card's unit.

    Attributes:
        after: rounds of training behind the weights that were measured.
        part: of the cases.
        label: of what was looked for; "" for all together.
        searches: behind the figures.
        mean: error.
        prior: of the answer that never looks, on the same cases.
        over_10mm: share of searches that ended further away than that; None of other units.
    """

    after: int
    part: Part
    label: str
    searches: int
    mean: float
    prior: float
    over_10mm: float | None = None


class Card(Words):
    """The content of a card; ``card.json`` is this and ``card.md`` is ``render_card`` of it."""

    format: Literal["cairn-model-card/1"] = FORMAT
    name: str
    federation: str
    run: str
    verdict: str
    reason: str
    finished: str
    plan: str
    weights: str
    start: str
    from_seed: bool
    kind: str
    task: str
    looks_for: Annotated[tuple[str, ...], Field(strict=False)]
    unit: str
    spacing_mm: float
    architecture: str
    parameters: int
    updates: int
    server_momentum: float
    sites: Annotated[tuple[CardSite, ...], Field(strict=False)]
    errors: Annotated[tuple[CardErrors, ...], Field(strict=False)]
    shown: str = "greys"
    intended_use: str = INTENDED
    not_for: Annotated[tuple[str, ...], Field(strict=False)] = NOT_FOR

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without what most models show: their cards stay readable to older releases."""
        whole: dict[str, object] = serialize(self)
        return {n: v for n, v in whole.items() if n != "shown" or v != "greys"}

    def encode(self) -> bytes:
        """Return ``card.json``."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        return (text + "\n").encode()


def decode_card(data: bytes) -> Card:
    """Read ``card.json``.

    Raises:
        VerificationError: it is none.
    """
    try:
        return Card.model_validate(json_of(data))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise VerificationError(
            "not a model's card", field=field, expected=expected, got=got
        ) from error
    except ValueError as error:
        raise VerificationError(
            "not a model's card", expected=FORMAT, got=type(error).__name__
        ) from error


def render_card(card: Card) -> str:
    """Write the card as Markdown; the same card gives the same bytes."""
    images = sum(site.images for site in card.sites)
    parts = [
        f"# {card.name}",
        f"{card.task}: {', '.join(card.looks_for) or 'no names'}. A model of "
        f"{len(card.sites)} sites with {images:,} images, "
        f"none of which left its site. Federated by Cairn.",
        _ended(card),
        "## What it is for",
        card.intended_use,
        "## What it is not for",
        "\n".join(f"- {line}" for line in card.not_for),
        "## How good it is",
        *_errors(card),
        "## What it was made of",
        _sites(card),
        _made(card),
        "## How to use it",
        _USE,
    ]
    return "\n\n".join(parts) + "\n"


_USE: Final = """\
    cairn-site play --checkpoint FOLDER scan.nii.gz -o found      opens in 3D Slicer
    cairn-site evaluate --checkpoint FOLDER --data IMAGES -o result
    cairn-audit model FOLDER --witness witness.pub                where it comes from

The weights are `model.safetensors`; the settings are in `checkpoint.json`. Both are data."""


def _ended(card: Card) -> str:
    if card.verdict == "COMPLETED":
        return f"Run {card.run} of the federation {card.federation}, COMPLETED {card.finished}."
    return (
        f"Run {card.run} of the federation {card.federation}, **{card.verdict}** {card.finished}: "
        f"every round counted, but not every site was always there. {card.reason}".rstrip()
    )


def _errors(card: Card) -> list[str]:
    """Say how wrong it is, round by round and at the end, beside an answer that never looks."""
    if not card.errors:
        return ["Nobody measured it: this run has no evaluation."]
    parts = []
    for part, said in PARTS.items():
        rows = [row for row in card.errors if row.part == part]
        course = [row for row in rows if not row.label]
        if not course:
            continue
        last = max(row.after for row in course)
        parts.append(
            f"On each site's own {said}. Errors in {card.unit} of searches under "
            "random poses; *prior* is the answer that never looks, on the same cases."
        )
        parts.append(
            _table(
                ("rounds of training", "error", "prior", "searches"),
                [(str(r.after), _of(r.mean), _of(r.prior), f"{r.searches:,}") for r in course],
            )
        )
        worse = [r for r in course if r.after == last and 0 < r.prior <= r.mean]
        if worse:
            parts.append("**At the end it is no better than an answer that never looks.**")
        final = [row for row in rows if row.label and row.after == last]
        parts.append(
            _table(
                ("at the end", "error", "prior", "over 10 mm"),
                [(r.label, _of(r.mean), _of(r.prior), _share(r.over_10mm)) for r in final],
            )
        )
    return parts


def _sites(card: Card) -> str:
    return _table(
        ("site", "images", "rounds in the average"),
        [(site.site, f"{site.images:,}", str(site.rounds)) for site in card.sites],
    )


def _made(card: Card) -> str:
    start = "weights drawn from the plan's seed" if card.from_seed else "the model"
    rows = (
        ("kind of run", card.kind),
        ("network", f"{card.architecture}, {card.parameters:,} parameters"),
        ("gradient steps at each site", f"{card.updates:,}"),
        ("working resolution", f"{card.spacing_mm:g} mm"),
        *([("shown of an image", card.shown)] if card.shown != "greys" else []),
        ("server momentum", f"{card.server_momentum:g}"),
        ("start", f"{start} {card.start}"),
        ("plan", card.plan),
        ("weights", card.weights),
    )
    return _table(("what", "value"), [(name, _plain(value)) for name, value in rows])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Keep a name that somebody else gave from ending its cell or its line."""
    return " ".join(text.replace("|", "/").split())


def _of(value: float) -> str:
    return f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
