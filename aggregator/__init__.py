"""The coordinator's side: verify what arrives, merge it, start rounds, report.

Runs without torch and never opens an image.
"""
