"""Everything that all parties must compute identically: plan, sketches, keys, wire, ledger, desk.

numpy, numba, cryptography and safetensors are welcome here; gRPC in ``desk``
alone, which none of the other rooms imports. No role
(``site_client``, ``aggregator``), no torch, no Flower, no image reader may be
imported: the import contracts in ``pyproject.toml`` forbid it.
"""

import os

# gRPC reads these once, when anything first imports it, so they are set before anything
# can. The federation's certificates are all EC, and no EC certificate can serve an RSA
# suite of TLS 1.2: what is left is TLS 1.3. `aggregator.desk.server` proves it at each start.
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")
# Otherwise every passer-by whose handshake fails is a line on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
