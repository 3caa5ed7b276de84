"""The page of an evaluation of boxes, planes or motions: self-contained, without pictures.

Every text is escaped by the template; the page asks for nothing from anywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from common.cli import counted
from site_client.agent_app.kinds import BOXES, REGISTRATIONS
from site_client.agent_app.results import ENOUGH_IOU, error_text

if TYPE_CHECKING:
    from site_client.agent_app.measuring import SearchEvaluation

_MEANINGS: Final = {
    "box": "The error is 1 − intersection over union with the best fitting box of the label.",
    "plane": "The error is the distance of two angles and an offset from the true ones in mm, "
    "a degree weighed by the lever; angle, offset and the landmarks’ distance stand beside.",
    "motion": "The error is the distance of translation and rotation from the drawn ones in mm, "
    "a degree weighed by the lever; the target registration error stands beside.",
}


def render_search_page(evaluation: SearchEvaluation) -> str:
    """The page as a string; the same evaluation gives the same page."""
    unit = evaluation.report.unit
    environment = Environment(
        loader=PackageLoader("site_client.agent_app"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(
        error=lambda value: error_text(unit, value), figure=_figure, share=_share
    )
    checkpoint, config = evaluation.checkpoint, evaluation.config
    tone, verdict, sentence = _verdict(evaluation)
    kind = config.task.kind
    meaning = "box" if kind in BOXES else "motion" if kind in REGISTRATIONS else "plane"
    return environment.get_template("search.html.j2").render(
        headline=f"{kind}, {counted(evaluation.cases, 'case')}",
        lead=f"{checkpoint.origin}, {checkpoint.updates:,} updates",
        tone=tone,
        verdict=verdict,
        sentence=sentence,
        meaning=_MEANINGS[meaning],
        figures=evaluation.figures,
        tables={"native": {}, **evaluation.tables()},
        detection=evaluation.detection,
        enough=f"{ENOUGH_IOU:g}",
        facts=[
            ("checkpoint", str(evaluation.place)),
            ("network", f"{config.network.architecture}, seed {config.run.seed}"),
            ("working spacing", f"{config.task.spacing_mm:g} mm"),
            (
                "searches",
                f"{config.evaluation.poses} poses per case, {config.evaluation.starts} starts each",
            ),
        ],
    )


def _verdict(evaluation: SearchEvaluation) -> tuple[str, str, str]:
    report = evaluation.report
    found = f"{error_text(report.unit, report.mean)} {report.unit} on average under random poses"
    if report.prior is None or not np.isfinite(report.prior):
        return "warn", "NO PRIOR TO COMPARE WITH", f"{found}."
    prior = f"{error_text(report.unit, report.prior)} {report.unit}"
    beside = f"{found}; an answer that never looks gives {prior}."
    if report.mean >= report.prior:
        return "warn", "NO BETTER THAN NOT LOOKING", beside
    return "good", "BETTER THAN NOT LOOKING", beside


def _figure(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "unknown"
