"""The page of an evaluation: self-contained, for a screen or for paper, no request to anywhere.

What it says is the kind's; how it looks is the same for all. Every text is escaped by
the template. With pictures the page shows patients' images, and says so.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.cli import counted
from common.page.templates import render
from common.settings import AgentSettings
from site_client.agent.evaluation import EvaluationReport
from site_client.agent_app.checkpoint import Checkpoint
from site_client.kinds.kind import TaskKind
from site_client.kinds.tables import error_digits
from site_client.kinds.values import Measured


def render_page(
    kind: TaskKind[Any, Any],
    measured: Measured[Any, Any],
    checkpoint: Checkpoint,
    place: Path,
    *,
    pictures: bool,
) -> str:
    """Render the page; the same evaluation gives the same page.

    Args:
        kind: of task; says what stands on the page.
        measured: what it shows.
        checkpoint: what was measured.
        place: where it lies.
        pictures: show slices of the cases, if the kind has such pictures.
    """
    tone, verdict, sentence = _verdict(kind, measured.report)
    cases = counted(len(measured.built.cases), "case")
    context = {
        "headline": f"{kind.headline(measured)}, {cases}",
        "lead": f"{checkpoint.origin}, {checkpoint.updates:,} updates",
        "tone": tone,
        "verdict": verdict,
        "sentence": sentence,
        "numbers": kind.numbers(measured),
        "sections": kind.sections(measured, pictures=pictures),
        "facts": _facts(kind, measured.config, checkpoint, place),
    }
    return render("site_client.agent_app", "evaluation.html.j2", context, {"png": _png})


def _verdict(kind: TaskKind[Any, Any], report: EvaluationReport) -> tuple[str, str, str]:
    """Say whether the agent is better than an answer that never looks: tone, headline, sentence."""
    digits = error_digits(report.unit)
    verdict = f"{report.mean:{digits}} {report.unit} on average{kind.over} under random poses"
    if report.prior is None or not np.isfinite(report.prior):
        return "warn", "NO PRIOR TO COMPARE WITH", f"{verdict}. {kind.no_prior}".rstrip()
    sentence = f"{verdict}; {kind.constant} {report.prior:{digits}} {report.unit}."
    if report.mean >= report.prior:
        return "warn", f"NO BETTER THAN {kind.rival}", sentence
    ratio = report.prior / report.mean if report.mean > 0 else np.inf
    return "good", kind.better.format(ratio=ratio, rival=kind.rival), sentence


def _facts(
    kind: TaskKind[Any, Any], config: AgentSettings, checkpoint: Checkpoint, place: Path
) -> list[tuple[str, str]]:
    """Say what was measured, and how."""
    settings, pose = config.evaluation, config.pose
    return [
        ("checkpoint", str(place)),
        ("network", f"{config.network.architecture}, seed {checkpoint.config.run.seed}"),
        ("working spacing", f"{config.task.spacing_mm:g} mm"),
        *kind.facts(config),
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
