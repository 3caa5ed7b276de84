"""A made-up site: joined as any other, under the usual policy but for what needs people."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from common.crypto.keyed import KEY_BYTES, FederationKey
from common.enrolment import Invite
from common.errors import InternalError
from common.plan import FederationPlan
from common.simulation import Learner
from site_client.egress.policy import default_policy_text
from site_client.files import write_atomically
from site_client.join import join
from site_client.site import SiteFolder

_WITHOUT_PEOPLE: Final = {
    'approval = "each"': 'approval = "bounded"',
    "least_known = 2": "least_known = 0",
    "least_in_sum = 1": "least_in_sum = 0",
    "share = 0.2": "share = 0.0",
}
"""What nobody is there to decide, and what would be drawn: a simulation is repeatable."""


def simulated_key(seed: int) -> FederationKey:
    """Return the federation key of a simulation: all of its sites have it, it guards nothing."""
    text = f"cairn simulated federation key v1\n{seed}"
    return FederationKey(hashlib.sha256(text.encode()).digest()[:KEY_BYTES])


def policy_without_people() -> bytes:
    """Return the policy that a site begins with, where nobody confirms or approves.

    Raises:
        InternalError: the usual policy has other words.
    """
    text = default_policy_text()
    for usual, changed in _WITHOUT_PEOPLE.items():
        if text.count(f"\n{usual}\n") != 1:
            raise InternalError("the usual policy has other words", field=usual)
        text = text.replace(f"\n{usual}\n", f"\n{changed}\n")
    return text.encode("utf-8")


def make_site(
    site: SiteFolder,
    invite: Invite,
    plan: FederationPlan,
    learner: Learner,
    images: int,
    seed: int,
) -> Path:
    """Make a site's images and join; returns the request to be admitted.

    Args:
        site: where it comes to lie.
        invite: of the simulated federation.
        plan: that will be simulated.
        learner: an agent needs images that can be opened, nothing needs names to count.
        images: so many.
        seed: of the simulation.

    Raises:
        InputDataError: images of the plan's kind of task cannot be made up.
    """
    data = site.root / "images"
    data.mkdir(parents=True)
    if learner == "agent":
        from site_client.simulation.images import make_images

        make_images(data, plan, images, (seed, invite.site))
    else:
        for number in range(images):
            (data / f"case-{number}.nii.gz").touch()
            (data / f"case-{number}.mrk.json").touch()
    write_atomically(site.policy_file, policy_without_people())
    return join(invite, site, data, simulated_key(seed), images).request
