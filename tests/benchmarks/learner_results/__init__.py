"""Learners beside DQN, absent landmarks, published networks, a later site: measured, with a page.

    python -m tests.benchmarks.learner_results run STUDY… --seeds 0 1 2
    python -m tests.benchmarks.learner_results report

Figures are gathered in ``deploy/results/learners.json``; ``LEARNERS.md`` is written from them.
"""
