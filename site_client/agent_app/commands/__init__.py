"""The agent's own commands, one a module: train, evaluate, play, import-weights.

They parse, call and print; what they do lives in the modules beside this folder.
Torch, SimpleITK and matplotlib are imported when a command runs, so that
``cairn-site --help`` needs none. ``changes`` reads what --set changes.
"""
