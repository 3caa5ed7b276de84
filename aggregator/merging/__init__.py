"""How accepted contributions become one: weighted averaging and sketch addition.

Pure numpy on what ``aggregator.intake`` accepted. The order of summation is
the order of the sites' names, so that the same contributions give the same bits.
"""
