"""The page of an evaluation: self-contained, for a screen or for paper, no request to anywhere.

What it says is the kind's; how it looks is the same for all. Every text is escaped by
the template. With pictures the page shows patients' images, and says so.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from common.cli import counted
from site_client.agent_app.tables import Table, error_digits

if TYPE_CHECKING:
    from site_client.agent_app.evaluating import Evaluation


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        name: of the part, for links.
        title: over it.
        note: below the title.
        table: of numbers.
        drawing: inline SVG, and what it shows.
        pictures: of cases, and what they show.
        legend: of the pictures, with colours.
    """

    name: str
    title: str
    note: str
    table: Table | None = None
    drawing: tuple[Markup, str] | None = None
    pictures: tuple[tuple[Image.Image, str], ...] = ()
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def render_page(evaluation: Evaluation, *, pictures: bool) -> str:
    """Render the page; the same evaluation gives the same page."""
    environment = Environment(
        loader=PackageLoader("site_client.agent_app"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["png"] = _png
    kind, measured, checkpoint = evaluation.kind, evaluation.measured, evaluation.checkpoint
    tone, verdict, sentence = _verdict(evaluation)
    return environment.get_template("evaluation.html.j2").render(
        headline=f"{kind.headline(measured)}, {counted(evaluation.cases, 'case')}",
        lead=f"{checkpoint.origin}, {checkpoint.updates:,} updates",
        tone=tone,
        verdict=verdict,
        sentence=sentence,
        numbers=kind.numbers(measured),
        sections=kind.sections(measured, pictures=pictures),
        facts=_facts(evaluation),
    )


def _verdict(evaluation: Evaluation) -> tuple[str, str, str]:
    """Say whether the agent is better than an answer that never looks: tone, headline, sentence."""
    kind, report = evaluation.kind, evaluation.measured.report
    digits = error_digits(report.unit)
    found = f"{report.mean:{digits}} {report.unit} on average{kind.over} under random poses"
    if report.prior is None or not np.isfinite(report.prior):
        return "warn", "NO PRIOR TO COMPARE WITH", f"{found}. {kind.no_prior}".rstrip()
    sentence = f"{found}; {kind.constant} {report.prior:{digits}} {report.unit}."
    if report.mean >= report.prior:
        return "warn", f"NO BETTER THAN {kind.rival}", sentence
    ratio = report.prior / report.mean if report.mean > 0 else np.inf
    return "good", kind.better.format(ratio=ratio, rival=kind.rival), sentence


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Say what was measured, and how."""
    config = evaluation.config
    settings, pose = config.evaluation, config.pose
    return [
        ("checkpoint", str(evaluation.place)),
        ("network", f"{config.network.architecture}, seed {config.run.seed}"),
        ("working spacing", f"{config.task.spacing_mm:g} mm"),
        *evaluation.kind.facts(config),
        ("searches", f"{settings.poses} poses per case, {settings.starts} starts each"),
        (
            "random poses",
            f"up to {pose.rotation_deg:g}°, {pose.scale_fraction:.0%} size, "
            f"{pose.shift_mm:g} mm shift",
        ),
    ]


def _png(picture: Image.Image) -> str:
    """Encode a picture for the page."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
