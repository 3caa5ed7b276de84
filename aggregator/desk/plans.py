"""Say beside a plan, before it starts, which sites lack the federation key.

What the plan itself asks is said in ``common.words``, in the words that the sites read.
"""

from __future__ import annotations

from aggregator.admin import sealed
from aggregator.admin.folder import FederationFolder
from common.words.kind import few


def key_fact(folder: FederationFolder) -> list[tuple[str, str]]:
    """Name the sites that lack the newest federation key; nothing before there is one.

    Every run needs it, one of public sketches, too: sums are proved under it. Sites whose
    key a person carries are not known here; round 0 asks all of them.
    """
    newest = sealed.newest(folder)
    if newest.generation == 0:
        return []
    has = {name: sealed.fetch(folder, name) for name in folder.admitted()}
    lacking = [
        name for name, box in has.items() if box is None or box.generation < newest.generation
    ]
    says = f"generation {newest.generation}, id {newest.key_id}"
    if sealed.must_renew(folder):
        says += "; a site was revoked: another is being made"
    if lacking:
        says += f"; not yet at {few(tuple(lacking))}, for which the run waits a while (--wait)"
    return [("federation key", says)]
