"""The pixel road on data: what it finds, what it is worth, measured so that anybody can repeat it.

``python -m tests.benchmarks.pixel_road run STUDY…`` computes what is not computed yet, one
JSON file per setting and seed under ``build/pixel-results``; ``… report`` turns the files
into ``deploy/results/PIXELS.md``. Tissue is not part of the repository and no picture of it
may leave ``build``: see `fields`. Nothing here is typed by hand into a report.
"""
