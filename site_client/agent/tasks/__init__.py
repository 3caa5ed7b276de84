"""The searches an agent can be trained for, one module per kind of parameter.

Lives here: what a situation of the task is, what is seen in it, how far it is
from the truth. May not live here: networks, learning, files, and anything that
draws on randomness it was not given.
"""
