"""The way of the federation key to this site, and from it to others: always sealed.

The courier's half is ``carry`` (network, no secret but its TLS key); the worker's
is ``keeper`` (secrets, no network), which settles what key this site has, over
``trust`` (who the others are), ``boxes`` (sealing and opening), ``giving`` (to whom
and when), ``ring`` (the keys on disk), ``waiting`` and ``state`` (what is shown of it). ``news``
is the file between the halves; what goes out goes through ``site_client.egress.keys``.
``first`` is both at once, for `join`. ``directory``, ``aloud`` and ``confirming`` are for
`cairn-site peers`; ``roster`` is the rule beside whom this site takes part.
Nothing here may write into the outbox, and ``carry`` may import nothing that can
open a key.
"""
