"""From an order in the inbox to an answer at the door.

``loop`` the long-lived process, which takes orders and ends them; ``order`` opens one;
``answering`` the straight road from there to the door; ``refusals`` what becomes of one
that got no answer, and ``failures`` errors as numbers. ``study`` one run's work behind one
interface, with ``training``, ``noop``, ``pixels`` (its prefix counts ``hidden``) and
``embedding``; ``studies`` the one in hand; ``state`` and ``chain_file`` what survives a
restart; ``experience`` the keyed sketch and the counts for rare-first replay; ``dry_run``
orders whose answers go nowhere, attacked by ``site_client.exposure`` before they could.

The worker has images and no network. It hands records to ``site_client.egress``
and writes nothing into the outbox itself.
"""
