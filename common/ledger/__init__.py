"""The tamper-evident record of everything a site released, refused or failed to send.

``merkle`` is the RFC 6962 tree, ``notes`` the signed checkpoints, ``records``
the closed form of one line, ``log`` the writer, ``proof`` what the aggregator
checks at intake, ``verify`` the offline audit. Records name digests, shapes,
counts and codes; no value taken from an image, a file name or a patient may
stand in one. Nothing here opens the network.
"""
