"""Plans at this site: which wait for a person, and what a person said about them.

``waiting`` keeps a plan's text until somebody has read it; ``approval`` is the rule
by which the worker serves a plan or not; ``finding`` finds the plan that a person
means. A decision itself is a record of the ledger (``site_client.decisions``), and a
file here never stands for one: whoever writes here can show a plan, not approve it.
"""
