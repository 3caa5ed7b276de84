"""Everything that comes from outside comes in here first: bounded, strict, contained.

The road of anything that arrives: its size is bounded before it is read (``files``), a
signature or MAC holds before it is decoded (``crypto``), its text has one meaning and a
bounded depth (``texts``), and whatever goes wrong all the same stays with the one thing
that it went wrong with (``boundary``): it is refused by name, kept for people to look at
(``quarantine``), and the process goes on with the next one.

No secret, no network and no decision about what arrived may be in here.
"""
