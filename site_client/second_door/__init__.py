"""The courier's own door: what lies in the outbox is believed to be a release by nobody's word.

The worker's door decides what may leave; this one decides whether what lies there *is* what
that door recorded. It asks for exact names, closed record types, and of every record the
ledger's signed proof. It knows the ledger's public key, no policy, no plan and no image.
"""

from site_client.second_door.check import Asked, Passed, SecondDoor
from site_client.second_door.opening import second_door
from site_client.second_door.outbox import Outbox

__all__ = ["Asked", "Outbox", "Passed", "SecondDoor", "second_door"]
