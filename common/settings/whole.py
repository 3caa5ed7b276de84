"""All settings of an agent together: the part that a plan and a configuration share.

What a kind of task leaves out has the defaults of that kind. What it has no use for is
refused, so that nobody believes in a setting that does nothing.
"""

from __future__ import annotations

from typing import Final, Self

from pydantic import model_validator

from common.settings.agent import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from common.settings.fields import Frozen
from common.settings.kinds import DEFAULT_KIND, KINDS, TEAM, kinds_with, sections_of
from common.settings.misfit import MisfitError
from common.settings.searches import (
    BoxSettings,
    CentrelineSettings,
    GlimpseSettings,
    GrowingSettings,
    PlaneSettings,
    RegistrationSettings,
)
from common.settings.spaces import Space
from common.settings.task import TaskSettings

FEDERATED: Final = frozenset({("task", "missing"), ("network", "private_heads")})
"""Section and key of what only a federation's plan can say: how sites that differ are averaged."""

# Kinds whose actions are steps along axes and nothing else: no action stops their search.
_ALONG_AXES: Final = ("ladder", "plane", "registration")


class AgentSettings(Frozen):
    """The agent's own settings, a section per field."""

    task: TaskSettings = TaskSettings()
    ladder: LadderSettings = LadderSettings()
    box: BoxSettings = BoxSettings()
    plane: PlaneSettings = PlaneSettings()
    registration: RegistrationSettings = RegistrationSettings()
    centreline: CentrelineSettings = CentrelineSettings()
    growing: GrowingSettings = GrowingSettings()
    glimpse: GlimpseSettings = GlimpseSettings()
    pose: PoseSettings = PoseSettings()
    network: NetworkSettings = NetworkSettings()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_its_kind(cls, data: object) -> object:
        return with_defaults(data)

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        kind, entry = self.task.kind, KINDS[self.task.kind]
        for name in AgentSettings.model_fields:
            values = getattr(self, name)
            if name not in sections_of(kind, {name: None}) and values != type(values)():
                few = ", ".join(kinds_with(section=name))
                raise MisfitError(name, f"left out for {kind}; it is for {few}")
        if self.network.architecture not in entry.networks:
            raise MisfitError(
                "network.architecture",
                f"{' or '.join(entry.networks)} for {kind}",
                self.network.architecture,
            )
        if self.network.attention and self.network.architecture != "commnet":
            raise MisfitError(
                "network.attention",
                "false unless the architecture is commnet",
                f"true with {self.network.architecture}",
            )
        task = self.task
        if self.learner.method == "displacement":
            self._require_displaceable()
        if self.learner.moves_all_axes and entry.section not in _ALONG_AXES:
            few = ", ".join(name for name, e in KINDS.items() if e.section in _ALONG_AXES)
            expected = f"dqn for {kind}; partial-policy is for {few}"
            raise MisfitError("learner.method", expected, self.learner.method)
        steps = entry.section in ("ladder", "plane") and self.learner.method != "displacement"
        if self.evaluation.warm_start and not steps:
            few = ", ".join([*kinds_with(section="ladder"), *kinds_with(section="plane")])
            expected = f"false for {kind} and for displacements; it is for steps in {few}"
            raise MisfitError("evaluation.warm_start", expected, "true")
        if self.evaluation.active_termination and self.learner.method != "dqn":
            raise MisfitError(
                "evaluation.active_termination",
                f"false with learner.method {self.learner.method}, which has no values of actions",
                "true",
            )
        if len(self.plane.more_normals) != len(task.more_planes):
            raise MisfitError(
                "plane.more_normals",
                f"one for each of task.more_planes, {len(task.more_planes)}",
                str(len(self.plane.more_normals)),
            )
        if task.missing == "allow" and (kind, task.agents_per_landmark) == (TEAM, 1):
            raise MisfitError(
                "task.missing",
                "refuse for a team that searches a case for all landmarks at once",
                "allow",
            )
        return self

    def _require_displaceable(self) -> None:
        """Refuse what a search by displacements has no place for."""
        task = self.task
        if KINDS[task.kind].section != "ladder":
            few = ", ".join(kinds_with(section="ladder"))
            raise MisfitError(
                "learner.method", f"dqn for {task.kind}; displacement is for {few}", "displacement"
            )
        if task.frames != 1:
            raise MisfitError(
                "task.frames",
                "1 with learner.method displacement: steps of any length leave no history",
                str(task.frames),
            )
        if task.world != "cairn":
            raise MisfitError("task.world", "cairn with learner.method displacement", "rl-medical")
        if self.network.dueling:
            raise MisfitError(
                "network.dueling",
                "false with learner.method displacement, which has no values",
                "true",
            )

    @property
    def space(self) -> Space:
        """Sizes of the search; names are looked for only as far as they are configured."""
        return KINDS[self.task.kind].space(self)


def with_defaults(data: object) -> object:
    """Fill what decoded settings leave out with the defaults of their kind of task."""
    if not isinstance(data, dict):
        return data
    task = data.get("task", {})
    kind = task.get("kind", DEFAULT_KIND) if isinstance(task, dict) else DEFAULT_KIND
    if not isinstance(kind, str) or kind not in KINDS:
        return data
    filled = dict(data)
    for name, defaults in KINDS[kind].defaults.items():
        values = data.get(name, {})
        if isinstance(values, dict):
            filled[name] = {**defaults, **values}
    return filled
