"""The agent library: tasks, Q-networks, replay, learning, greedy search, evaluation.

Runs on the site's images and keeps its transitions to itself. A `Task` says what is
searched for, `Learner` trains any network of ``networks`` that fits on any task of
``tasks`` (towards what, says `Objective`), `evaluate` says how far its searches end
from the truth; ``federated`` builds all of them from a federation's plan, ``gym``
lends a task to learners that are not ours. Nothing here opens an image or a connection: whoever
uses it passes cases in and takes weights, keys and summaries out, and at a site the
egress door decides what leaves.
"""
