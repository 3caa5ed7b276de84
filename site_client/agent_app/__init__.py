"""The agent on its own, without a federation: train, evaluate, play, import weights.

Lives here: a researcher's configuration, the files of a run, its commands and the page
of an evaluation. May be imported: kinds of task, images and the agent. May not: the
door, the courier, the worker, anything of a federation. Every file that is
written may hold case names, positions and pictures, and stays where it was asked for.
"""
