"""Studies of the tasks beside landmarks, boxes, planes and motions.

Traces, turned boxes, seeds, sequences, glimpses: each by DQN, by path supervision and by an
answer that never looks, over several seeds, on cases that were not trained on.

    python -m tests.benchmarks.task_results run STUDY… --seeds 0 1 2 3 4
    python -m tests.benchmarks.task_results report

``run`` adds to ``deploy/results/tasks.json`` and leaves alone what is there; ``report``
writes ``deploy/results/TASKS.md`` from it.
"""
