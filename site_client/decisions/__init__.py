"""Decisions of a person at this site: which plans may run, and which other sites are known.

``standing`` reads the decisions out of the ledger, which is the only place where they
stand; ``making`` puts one there, by way of the running worker or in its absence.
Nothing here decides anything, and no order can write here.
"""
