"""A model that came out of a run: its folder, its card, and where it comes from, signed.

What the aggregator writes, an auditor verifies and a site opens is one form, defined here
and nowhere else. Pure: bytes in, bytes and findings out; files are read and written in
``folder`` alone. No torch, no network, and nothing in a folder is ever run.
"""
