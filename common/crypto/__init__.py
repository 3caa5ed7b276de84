"""Keys and certificates: who signs, who may connect, what keys the sketches.

``identity`` holds Ed25519 signing identities, ``certificates`` the federation's
own TLS authority and the node keys of the couriers, ``keyed`` the federation
key. Primitives come from `cryptography`; none is built here. No secret may
appear in a ``repr``, an error or a log line, and no file that holds one may be
overwritten or be readable by anybody but its owner.
"""
