"""Kinds of task: one file each behind one interface, `TaskKind`.

Lives here: what a kind reads of its cases, how it searches, what it finds, and how that is
written, tabled and drawn. Nothing outside this room may ask which kind a task is: commands,
training, evaluation, films, pages and a federation's sites ask the kind. A new one is a file
here and an entry in `common.settings.kinds`. May be imported: images and the agent. May not:
commands, the files of a run, anything of a federation.
"""
