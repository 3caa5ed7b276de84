"""A run, from the coordinator's command to the last averaged model.

``machine`` decides and does no I/O; ``store`` persists; ``events`` is the
journal that ``status``, ``watch`` and ``report`` read; ``server`` speaks
Flower. No record is merged here that ``aggregator.intake`` has not accepted.
"""
