"""Third witnesses of this site's ledger: who they are, what they say, and what follows.

``asking`` is the worker's half: it asks through the door, verifies answers, and keeps
cosignatures beside the ledger. ``carry`` is the courier's half. ``standing`` is what both
`check` and `status` show, and ``rule`` what a refusal does to releases.
"""
