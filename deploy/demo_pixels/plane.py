"""The picture's points, computed beside the coordinator's own work, by the same function.

``codebook build`` lays out the released keys and keeps clusters and a page, not the points.
The same keys, seed and neighbours give the same points, so they are computed again here,
on the second core. Starts before the keys exist, because importing UMAP takes seconds and,
the first time on a machine, compiles for a minute.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from aggregator.embedding.plane import PlaneSettings, embed
from common.errors import InternalError
from common.keys.key_counts import read_key_counts

POLL_S = 0.1


@click.command()
@click.argument("keys", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--seed", required=True, type=int)
@click.option("--neighbours", required=True, type=int)
@click.option("--limit", "limit_s", default=600.0)
def main(keys: Path, output: Path, seed: int, neighbours: int, limit_s: float) -> None:
    """Lay out KEYS once they are there: float32[n, 2] in ascending order of keys."""
    import umap  # noqa: F401  # early, as said above

    until = time.monotonic() + limit_s
    while not keys.exists():
        if time.monotonic() > until:
            raise InternalError("no keys appeared", field=keys.name)
        time.sleep(POLL_S)
    made = embed(read_key_counts(keys), PlaneSettings(seed=seed, neighbours=neighbours))
    np.save(output, made.points)


if __name__ == "__main__":
    main()
