"""Planning a federation: a run of a plan with many made-up sites, in one folder, no network.

The conductor, the archive, the merges are the aggregator's own; the sites are real workers
with real doors and ledgers, held by processes of ``cairn-site``, which this room starts and
does not import. What it measures is what a plan would cost; nothing of it is a federation
that anybody joined.
"""
