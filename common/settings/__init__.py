"""An agent's settings: the sections that a federation's plan and a configuration share.

One vocabulary: what ``cairn-site train`` reads and what a plan says of an agent are the
same sections with the same keys, and nothing is translated between them. A misspelt key
is an error and not a default; a value that cannot be used is refused before any image
is opened.

Lives here: the sections (``task``, ``agent``, ``searches``), the ``whole`` that holds
them, the ``kinds`` of task with their ``spaces``, the ``parameters`` of their networks,
``reading`` and ``rendering``.
May not: whatever depends on a machine, an image or a framework.
"""

from __future__ import annotations

from common.settings.agent import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from common.settings.fields import Frozen, LandmarkName, Names, Positive, Rungs, Share
from common.settings.kinds import (
    CUBE,
    DEFAULT_KIND,
    KINDS,
    MM,
    TEAM,
    KindEntry,
    kinds_with,
    sections_of,
)
from common.settings.misfit import MisfitError
from common.settings.parameters import ABSENCE_SIGNS, Parameter, parameters_of
from common.settings.reading import check_keys, describe_validation, parse_settings
from common.settings.rendering import render_sections
from common.settings.searches import (
    BoxSettings,
    CentrelineSettings,
    GlimpseSettings,
    GrowingSettings,
    PlaneSettings,
    RegistrationSettings,
)
from common.settings.spaces import Space, mixed_labels, plane_labels, reach_mm, team_labels
from common.settings.task import TaskName, TaskSettings
from common.settings.whole import FEDERATED, AgentSettings, with_defaults

__all__ = [
    "ABSENCE_SIGNS",
    "CUBE",
    "DEFAULT_KIND",
    "FEDERATED",
    "KINDS",
    "MM",
    "TEAM",
    "AgentSettings",
    "BoxSettings",
    "CentrelineSettings",
    "EvaluationSettings",
    "Frozen",
    "GlimpseSettings",
    "GrowingSettings",
    "KindEntry",
    "LadderSettings",
    "LandmarkName",
    "LearnerSettings",
    "MisfitError",
    "Names",
    "NetworkSettings",
    "Parameter",
    "PlaneSettings",
    "PoseSettings",
    "Positive",
    "RegistrationSettings",
    "Rungs",
    "Share",
    "Space",
    "TaskName",
    "TaskSettings",
    "check_keys",
    "describe_validation",
    "kinds_with",
    "mixed_labels",
    "parameters_of",
    "parse_settings",
    "plane_labels",
    "reach_mm",
    "render_sections",
    "sections_of",
    "team_labels",
    "with_defaults",
]
