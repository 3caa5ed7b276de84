"""From an order in the inbox to an answer at the door.

``failures`` errors as numbers; ``experience`` the keyed sketch and the counts
for rare-first replay; ``study`` one run's work behind one interface, with
``training``, ``noop``, ``pixels`` (its prefix counts ``hidden``) and ``embedding``;
``state`` what survives a restart; ``loop`` the long-lived process; ``dry_run``
orders whose answers go nowhere, attacked by ``site_client.exposure`` before they could.

The worker has images and no network. It hands records to ``site_client.egress``
and writes nothing into the outbox itself.
"""
