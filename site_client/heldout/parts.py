"""A site's cases in their two parts, as its folder, policy and memory have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import CairnError
from site_client.egress.policy import HeldOut, Policy, read_policy
from site_client.heldout.choice import Division, divide
from site_client.heldout.memory import read_memory, write_memory
from site_client.imaging.folders import list_folder, usable_cases
from site_client.imaging.landmarks import read_landmarks
from site_client.site import SiteFolder


@dataclass(frozen=True)
class Parts:
    """The division of a site's cases.

    Attributes:
        site: whose memory.
        setting: ``[held_out]`` of its policy.
        least: ``floors.images`` of its policy.
        remember: whether a choice is written down, as it must be before anybody trains;
            False where nothing may be changed.
    """

    site: SiteFolder
    setting: HeldOut
    least: int
    remember: bool = False

    @classmethod
    def of(cls, site: SiteFolder, policy: Policy, *, remember: bool = False) -> Parts:
        """Take what a policy says."""
        return cls(site, policy.held_out, policy.floors.images, remember)

    def divide(self, names: Sequence[str]) -> Division:
        """Divide labelled cases, and remember it where that is asked for.

        Raises:
            InputDataError: the memory is lost or damaged, or see ``choice.divide``.
        """
        memory = read_memory(self.site.held_out)
        division = divide(names, self.setting, self.least, memory)
        if self.remember and division.memory != memory:
            write_memory(self.site.held_out, division.memory)
        return division


def labelled_names(site: SiteFolder) -> list[str]:
    """Name the scans of a site's folder that training would take; opens no image.

    Raises:
        InputDataError: there are none, or landmarks cannot be read.
    """
    cases = usable_cases(list_folder(site.data()))
    return [name for name, _, marks in cases if read_landmarks(marks)]


def look_at_parts(site: SiteFolder) -> Division:
    """Divide the labelled scans of a site's folder as training would; change nothing.

    Raises:
        InputDataError: no scans, no memory, or see ``choice.divide``.
    """
    return Parts.of(site, read_policy(site.policy_file)).divide(labelled_names(site))


def parts_or_none(site: SiteFolder) -> Division | None:
    """Return the same, or None where it cannot be told: no scans, or files out of sight."""
    try:
        return look_at_parts(site)
    except (CairnError, OSError):
        return None
