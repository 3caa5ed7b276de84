"""From an order in the inbox to an answer at the door.

``failures`` errors as numbers; ``experience`` the keyed sketch and the counts
for rare-first replay; ``study`` one run's work behind one interface, with
``training`` and ``noop``; ``state`` what survives a restart; ``loop`` the
long-lived process; ``dry_run`` a round that leaves nothing.

The worker has images and no network. It hands records to ``site_client.egress``
and writes nothing into the outbox itself.
"""
