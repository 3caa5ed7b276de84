"""The commands of ``cairn-aggregator``, by what they are about.

They parse, call and print; what is done lives in the rooms beside. ``options``
finds the desk that a command speaks to, here (``--dir``) or elsewhere (``--desk``).
"""
