"""The founding paper's own experiment: from bands to a place that a federated agent finds.

Bands are smoothed and counted by three sites together, the frequent keys become a
codebook, four consecutive slices become the four channels of one map, and a federation of
``paper2d`` agents looks for landmarks in those maps: beside raw bands, principal
components, agents of single sites, one agent of all images, and a constant answer.

    python -m tests.benchmarks.founding run scene --seeds 0 1 2
    python -m tests.benchmarks.founding report -o deploy/results
"""
