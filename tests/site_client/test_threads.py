"""How many threads a site's processes take for matrix products."""

import os
import subprocess
import sys

import pytest

ASK = (
    "import site_client.cli, numpy; from threadpoolctl import threadpool_info as told; "
    "print(*{t['num_threads'] for t in told() if t['internal_api'] == 'openblas'})"
)


@pytest.mark.parametrize(("wished", "taken"), [(None, "1"), ("2", "2")])
def test_a_site_takes_one_thread_for_matrix_products_unless_told_otherwise(wished, taken):
    if wished is not None and (os.cpu_count() or 1) < int(wished):
        pytest.skip("this machine has one processor")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment |= {} if wished is None else {"OPENBLAS_NUM_THREADS": wished}
    said = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == taken
