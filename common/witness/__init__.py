"""Third witnesses: others than site and aggregator who saw that a ledger only grew.

``wire`` the protocol's bytes; ``client`` asks, ``server`` answers by ``judging``, on what
``store`` keeps; ``vkeys`` and ``keys`` name and hold the keys; ``policy`` says whose word
is enough. No room here decides for a site, and none but ``client`` and ``server`` opens a
connection.

Source: C2SP tlog-witness, tlog-cosignature, tlog-policy and tlog-proof.
"""
