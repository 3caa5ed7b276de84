"""A site's cases in their two parts, as its folder, policy and memory have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import CairnError
from common.policy import HeldOut, Policy, read_policy
from site_client.heldout.choice import Division, divide
from site_client.heldout.memory import read_memory, write_memory
from site_client.imaging.data_settings import DataSettings, read_data_settings
from site_client.imaging.labelled import labelled_names
from site_client.site import SiteFolder

NamesOf = Callable[[Path, DataSettings], list[str]]


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


def names_of_site(site: SiteFolder, names_of: NamesOf = labelled_names) -> list[str]:
    """Name the images of a site's folder that training would take; opens no image.

    Args:
        site: whose folder.
        names_of: the images that a kind of task takes; any labelled ones without.

    Raises:
        InputDataError: there are none, or what is known of them cannot be read.
    """
    folder = site.data()
    return names_of(folder, read_data_settings(site.data_file, folder))


def look_at_parts(site: SiteFolder, names_of: NamesOf = labelled_names) -> Division:
    """Divide the labelled images of a site's folder as training would; change nothing.

    Raises:
        InputDataError: no images, no memory, or see ``choice.divide``.
    """
    parts = Parts.of(site, read_policy(site.policy_file))
    return parts.divide(names_of_site(site, names_of))


def parts_or_none(site: SiteFolder) -> Division | None:
    """Return the same, or None where it cannot be told: no images, or files out of sight."""
    try:
        return look_at_parts(site)
    except (CairnError, OSError):
        return None
