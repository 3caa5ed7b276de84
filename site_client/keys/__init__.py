"""How the federation key reaches this site, and leaves it for others: always sealed.

The courier's half is ``carry`` (network, no secret but its TLS key); the worker's
is ``keeper`` (secrets, no network), over ``trust`` (who the others are) and
``ring`` (the keys on disk). ``news`` is the file between them; what goes out goes
through ``site_client.egress.keys``. ``first`` is both at once, for `join`.
Nothing here may write into the outbox, and ``carry`` may import nothing that can
open a key.
"""
