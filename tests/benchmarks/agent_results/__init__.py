"""How well the agents find landmarks in real images, measured in a way anybody can repeat.

``python -m tests.benchmarks.agent_results run STUDY…`` computes what is not computed yet,
one JSON file per fold, seed and method under ``build/agent-results``; ``… report`` turns
the files into ``deploy/results/RESULTS.md`` and its plots. The data is not part of the
repository: see `data`. Nothing here chooses settings by looking at a test fold.
"""
