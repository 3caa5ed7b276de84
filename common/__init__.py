"""What every party must compute identically: plan, sketches, keys, wire, ledger.

numpy, numba, cryptography and safetensors are welcome here. No role
(``site_client``, ``aggregator``), no torch, no Flower, no image reader may be
imported: the import contracts in ``pyproject.toml`` forbid it.
"""
