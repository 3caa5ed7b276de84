"""``cairn-audit``: what an auditor sees of a site's ledger, offline, with public keys only.

``load`` verifies and reads, ``asked`` and ``order`` say what was asked and who agreed,
``table``, ``people`` and ``report`` show, ``cli`` is the command. Nothing here writes to
a ledger, opens the network or needs a secret.
"""
