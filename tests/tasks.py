"""Tests' own way from a plan and volumes to what a worker makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from common.plan import FederationPlan
from site_client.agent.task import Task
from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.worker.site_cases import SiteCases


def site_cases(plan: FederationPlan, volumes: Sequence[Case]) -> SiteCases:
    """Volumes with the plan's landmarks, as a worker holds them."""
    return SiteCases(Cases(plan.task.landmarks, volumes=tuple(volumes)), plan)


def planned_task(plan: FederationPlan, volumes: Sequence[Case]) -> Task:
    """The plan's search over volumes."""
    return site_cases(plan, volumes).task
