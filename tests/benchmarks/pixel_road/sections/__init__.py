"""The sections of ``PIXELS.md``: each a function of the computed figures alone."""
