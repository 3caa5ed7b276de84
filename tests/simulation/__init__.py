"""Whole federations under faults and lies, drawn by a seed and played again by it.

Real folders, keys, ledgers, doors, the real conductor, and the command that a person types;
what is simulated is the way between them, their disks' failures, their backups, and time.
``disks`` fails the disks, ``backups`` puts folders back as they were, ``faults`` draws what
goes wrong, ``way`` and ``world`` let it happen, ``laws`` and ``restore_laws`` say what must
hold all the same. ``make simulate-faults SEEDS=0:1000`` runs many; ``--replay SEED`` tells
one as a story.
"""
