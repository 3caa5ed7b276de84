"""The coordinator's desk: what can be asked of a federation, here or from another machine.

``desk`` says what can be asked; ``local`` does it in the federation's folder and
``remote`` asks the service for it, so that a command does not know which it is.
``coordinator`` and ``enrolment`` answer over gRPC, ``server`` listens, ``metrics``
counts. No one is let in here: that is decided in ``aggregator.admin``.
"""
