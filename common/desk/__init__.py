"""The desk: what sites and coordinators say to the aggregator beside Flower, over gRPC.

``desk.proto`` is the one description of it; ``desk_pb2*`` are generated from it by
`make proto` and never edited. ``signing`` and ``failures`` are what both ends must
do alike, ``channel`` is the client's end. Here lies the only gRPC of ``common``;
no decision about a site, and no key of anybody, is made here.
"""
