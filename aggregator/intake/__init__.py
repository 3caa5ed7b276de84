"""The place where what a site sent is opened, verified and accepted or rejected.

Nothing reaches ``aggregator.merging`` that did not come through here: proof
and signature first, then the rules of the plan, then the comparison with the
other sites. A rejection concerns one site and one round, and has a reason.
"""
