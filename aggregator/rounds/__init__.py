"""A run, from the coordinator's command to what it was for: a model, keys, counts.

``course`` decides and does no I/O; ``exchange`` talks to the sites and ``conduct``
carries out; ``work`` is what the plan's kind does, in ``training``, ``pixels`` and
``embedding``, and ``ask`` what it wants of the sites; ``store`` persists; ``events``
is the journal that ``status``, ``watch`` and ``report`` read; ``server`` speaks
Flower. No record is merged here that ``aggregator.intake`` has not accepted.
"""
