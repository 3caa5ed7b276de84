"""The kinds of task: one room each behind one interface, `TaskKind`.

Nothing outside this folder may ask which kind a task is: commands, training,
evaluation, films and pages ask the kind. A new one is a room here and an entry in
`common.settings.kinds`.
"""
