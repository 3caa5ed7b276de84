"""Sums of what sites sent, that nobody without the federation key can forge; and what follows.

``fixed_point`` turns a difference of weights into whole numbers, which add up exactly;
``summand`` is what one record adds; ``tags`` proves a sum to holders of the key, in
the numbers of ``field``;
``addition`` adds without it; ``chain`` binds every round to all rounds before it;
``averaging`` and ``training`` say which weights follow from a sum, ``pixels`` which codec
may; ``derivation`` goes with them from a run's beginning to where it stands. Aggregator and
sites compute the same here, bit for bit. No image, no network, no disk; no torch.
The design and its limits: deploy/decisions/0013-sites-derive.md.
"""
