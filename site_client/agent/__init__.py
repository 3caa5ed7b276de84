"""The landmark agent: environment, Q-network, replay, learning, evaluation.

Runs on the site's images and keeps its transitions to itself. Nothing here
opens a file or a connection: the worker passes cases in and takes weights,
keys and summaries out, and the egress door decides what leaves.
"""
