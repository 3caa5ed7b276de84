"""The only door of a site.

``policy`` what the site's owner allows, and of which field of a plan; ``gate`` every
rule about what leaves, without I/O; ``history`` what was answered before, and how much;
``question`` which order an answer is to;
``release`` check, record, then hand over; ``keys`` the same for sealed federation
keys; ``outbox`` the only writer of the outbox.
Nothing outside this folder may write into the outbox, and nothing reaches the
outbox that the ledger has not recorded.
"""
