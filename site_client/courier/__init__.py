"""The Flower client: brings orders to the spool and released replies to the aggregator.

It has the network and the node key; it has no images, no ledger key and no
torch. It cannot make a reply: it carries what the door released, or one
integer. It runs this installed code only, never an app that a run brings.
"""

from site_client.courier.carrier import CarrierName
from site_client.courier.courier import run_courier
from site_client.courier.ear import Ear

__all__ = ["CarrierName", "Ear", "run_courier"]
