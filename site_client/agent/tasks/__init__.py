"""The searches an agent can be trained for, one module per kind of parameter.

Lives here: what a situation of the task is, what is seen in it, how far it is
from the truth; what the searches share (`poses`, `geometry`, `points`, `boxes`), and
`detection`, which makes a list of boxes out of many searches with a network it is
given. May not live here: building networks, learning, files, and anything that
draws on randomness it was not given.
"""
