"""``cairn-audit``: what an auditor sees of a site's ledger, offline, with public keys only.

``load`` verifies and reads, ``opened`` opens what was released and holds it against plan
and policy, ``left`` answers what left in a period, ``asked`` and ``order`` say what was
asked and who agreed, ``table``, ``people`` and ``report`` show, ``cli`` and its neighbours
are the commands. Nothing here writes to a ledger, opens the network or needs a secret.
"""
