"""A relay: between the aggregator and some of its sites, to both what the other is.

It puts the aggregator's orders to its sites unchanged, checks every reply by intake's rules,
archives it, passes on what is not added, and adds what is. It holds no key but its own
connections', signs nothing, cosigns nothing, and decides nothing: which sites are added is the
aggregator's choice, and whether a sum holds is the sites'. ``aggregator.rounds.relayed`` is the
other end. The design and its limits: deploy/decisions/0031-relays.md.
"""
