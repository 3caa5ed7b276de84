"""The only door of a site.

``policy`` what the site's owner allows; ``gate`` every rule, without I/O;
``release`` check, record, then hand over; ``keys`` the same for sealed federation
keys; ``outbox`` the only writer of the outbox.
Nothing outside this folder may write into the outbox, and nothing reaches the
outbox that the ledger has not recorded.
"""
