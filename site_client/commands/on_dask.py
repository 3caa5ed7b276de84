"""Shards on the hospital's own Dask cluster. The only user of dask, an optional extra.

What crosses the scheduler is the name of a function of this release, paths and numbers of
pixels: never a pixel, a key or a secret. Dask runs whatever its peers send it, so it is
spoken to over TLS alone, and both ends show a certificate of the hospital's own authority.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import InputDataError, UnreachableError, UsageError
from common.extras import checkout_folder, install_command
from site_client.worker.slide_shards import Done, ShardWords, shard_by_words

EXTRA: Final = "dask"
_PATIENCE: Final = "20s"  # for the scheduler to answer

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Cluster:
    """Where the hospital's scheduler is, and how both ends show who they are.

    Attributes:
        scheduler: ``tls://host:port``.
        authority, certificate, key: files (PEM).
    """

    scheduler: str
    authority: Path
    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        if not self.scheduler.startswith("tls://"):
            raise UsageError(
                "Dask is spoken to over TLS alone",
                field="--scheduler",
                expected="tls://host:port",
                got=self.scheduler[:80],
                advice="Start scheduler and workers with --protocol tls and --tls-ca-file, "
                "--tls-cert, --tls-key",
            )
        for path in (self.authority, self.certificate, self.key):
            if not path.is_file():
                raise InputDataError(
                    "no certificate for the cluster", field=str(path), expected="a PEM file"
                )


def count_on(cluster: Cluster, words: ShardWords, shards: int, progress: Told) -> Done:
    """Have every shard counted by whatever worker is free; how much it was.

    Args:
        cluster: of this hospital. Its workers have this release with the extra ``worker``
            and see the same folders under the same paths.
        words: of the pass.
        shards: how many.
        progress: told about shards done.

    Raises:
        UnreachableError: no scheduler there that shows a certificate of the authority.
        InputDataError: the extra is not installed, or a shard could not be counted.
    """
    try:
        from distributed import Client, as_completed
        from distributed.security import Security
    except ModuleNotFoundError as error:
        raise InputDataError(
            "cannot speak to Dask with this installation",
            field="--engine",
            expected=f"the extra {EXTRA!r}",
            got=f"no module {error.name}",
            advice=f"Install it: {install_command(EXTRA, checkout=checkout_folder())}",
        ) from error
    security = Security(
        require_encryption=True,
        tls_ca_file=str(cluster.authority),
        tls_client_cert=str(cluster.certificate),
        tls_client_key=str(cluster.key),
    )
    try:
        client = Client(
            cluster.scheduler, security=security, timeout=_PATIENCE, set_as_default=False
        )
    except (OSError, TimeoutError) as error:
        raise UnreachableError(
            "cannot reach the Dask scheduler",
            field="--scheduler",
            expected=f"one at {cluster.scheduler} with a certificate of this authority",
            got=type(error).__name__,
            advice="See that it runs with --protocol tls and these certificates",
        ) from error
    slides = pixels = 0
    with client:
        names = [f"{number}/{shards}" for number in range(1, shards + 1)]
        # pure=False: the same words again are counted again, if slides have changed.
        waiting = {client.submit(shard_by_words, words, name, pure=False): name for name in names}
        for number, future in enumerate(as_completed(list(waiting), loop=client.loop), start=1):
            said = future.result()
            if said[0] != "done":
                raise InputDataError(
                    "a shard could not be counted", field=f"shard {waiting[future]}", got=said[1]
                )
            slides, pixels = slides + said[1], pixels + said[2]
            progress("shards on the cluster", number, shards)
    return Done(slides, pixels)
