"""Mutated messages for everything that reads what another party wrote.

``decoders`` lists the readers and the valid messages they start from, ``mutations`` knows the
grammars, ``campaign`` runs seeded cases and counts. `python -m tests.fuzz` runs as many as
one likes; the default suite a few thousand.
"""
