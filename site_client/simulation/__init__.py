"""Made-up sites for planning a federation: real doors, ledgers and workers, no patient.

Driven by ``cairn-aggregator simulate`` over pipes and a folder. What a site says goes through
its own door and into its own ledger as always. Nothing here reads an image that it has not
made, and nothing speaks over a network.
"""
