"""One hospital's side: the worker (images, no network) and the courier (network, no images).

The only role with torch and SimpleITK. Everything that leaves goes through
``site_client.egress``.
"""

import os

# Before anything here imports numpy: its matrix products are over small chunks, for which
# the threads of OpenBLAS wait for each other more than they work (measured: four times the
# processor time). Whoever sets the variable is obeyed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
