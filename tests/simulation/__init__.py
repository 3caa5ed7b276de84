"""Whole federations under faults and lies, drawn by a seed and played again by it.

Real folders, keys, ledgers, doors and the real conductor; what is simulated is the
way between them, their disks' failures, and time. ``disks`` fails the disks, ``faults``
draws what goes wrong, ``world`` lets it happen, ``laws`` says what must hold all the same.
``make simulate-faults SEEDS=0:1000`` runs many; ``--replay SEED`` tells one as a story.
"""
