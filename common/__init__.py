"""What every party must compute identically: plan, sketches, keys, wire, ledger, desk.

numpy, numba, cryptography and safetensors are welcome here, gRPC in ``desk``
alone, which none of the other rooms imports. No role
(``site_client``, ``aggregator``), no torch, no Flower, no image reader may be
imported: the import contracts in ``pyproject.toml`` forbid it.
"""
