"""``cairn-aggregator codebook``: from released keys to named tissues."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table

from common.cli import echo_json, json_option
from common.errors import InputDataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aggregator.embedding.plane import EmbeddingSettings
    from aggregator.embedding.profiles import Profiles
    from common.keys.codebook import Codebook
    from common.keys.key_counts import KeyCounts

REST: Final = "rest"
_LOOK_S: Final = 0.1  # between looks for keys that are not there yet

_FILE = click.Path(path_type=Path, dir_okay=False)
_OUTPUT = click.option("-o", "--output", required=True, type=_FILE)
_SEED = click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Of the embedding and k-means.",
)
_NEIGHBOURS = click.option(
    "--neighbours",
    default=50,
    show_default=True,
    type=click.IntRange(2, 1000),
    help="Nearest keys that each key is laid out by.",
)
_BANDS = click.option(
    "--bands",
    type=_FILE,
    help="The pixel codec as JSON, to show bands instead of components.",
)


@click.group()
def codebook() -> None:
    """Make a codebook of tissues from released keys, and name its clusters.

    \b
      codebook build keys.safetensors -o codebook.json --page codebook.html
      (look at the page: which clusters are tumour?)
      codebook label codebook.json --group tumour=1,4,7 --group other=rest -o labelled.json
      codebook show labelled.json

    keys.safetensors is what the sites released after recovery: int64 "keys" and
    "counts", and the codec. No step here opens an image or queries a sketch.
    """  # noqa: D301 - \b is click's, and must not be an escape


@codebook.command()
@click.argument("keys", metavar="KEYS.safetensors", type=_FILE)
@_OUTPUT
@click.option(
    "--clusters",
    default="kmeans:10",
    show_default=True,
    metavar="kmeans:N|hdbscan[:KEYS]",
    help="So many clusters, or crowds of at least KEYS keys.",
)
@_SEED
@_NEIGHBOURS
@_BANDS
@click.option("--page", type=_FILE, help="Also write the picture, one self-contained HTML file.")
@click.option("--points", type=_FILE, help="Also write where keys lie: .npy, float32[keys, 2].")
@click.option(
    "--wait",
    "wait_s",
    default=0.0,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Begin before KEYS is there: load and compile meanwhile, and wait so long for it.",
)
@json_option
def build(
    keys: Path,
    output: Path,
    clusters: str,
    seed: int,
    neighbours: int,
    bands: Path | None,
    page: Path | None,
    points: Path | None,
    wait_s: float,
    as_json: bool,
) -> None:
    """Embed and cluster KEYS into a codebook.

    20,000 keys take about half a minute on one core, the first time about a minute.
    Some ten seconds of that go by before keys are needed: --wait spends them while
    the sites are still counting. KEYS must then appear whole, by renaming.
    """
    from aggregator.embedding.clusters import ClusterMethod, make_codebook
    from aggregator.embedding.page import write_codebook_page
    from aggregator.embedding.plane import EmbeddingSettings, embed
    from common.keys.key_counts import read_key_counts

    method = ClusterMethod.parse(clusters)
    settings = EmbeddingSettings(seed=seed, neighbours=neighbours)
    if wait_s:
        _await(keys, settings, wait_s)
    released = read_key_counts(keys)
    started = time.perf_counter()
    with Console(stderr=True).status(f"Embedding {released.keys.size:,} keys"):
        embedding = embed(released, settings)
        book = make_codebook(released, embedding, method)
    seconds = time.perf_counter() - started
    profiles = _profiles(book, released, bands)
    _write(output, book.to_bytes())
    if page is not None:
        write_codebook_page(page, book, embedding, profiles)
    if points is not None:
        _write(points, _npy(embedding.points))
    if as_json:
        made = {
            "clusters_by": str(method),
            "neighbours": settings.neighbours,
            "seconds": round(seconds, 3),
            "seed": settings.seed,
        }
        echo_json({**_document(book, profiles), "made": made})
        return
    Console().print(_table(book, profiles))
    click.echo(f"Wrote {output} in {seconds:.1f} s; digest {book.digest[:16]}.")
    if page is not None:
        click.echo(f"Wrote {page}. Look at it, then: codebook label {output} --group NAME=1,2 …")


@codebook.command()
@click.argument("file", metavar="CODEBOOK", type=_FILE)
@click.option(
    "--group",
    "groups",
    multiple=True,
    required=True,
    metavar="NAME=1,4,7|NAME=rest",
    help="Clusters of one group; once, NAME=rest for all others. Repeat per group.",
)
@_OUTPUT
@json_option
def label(file: Path, groups: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Name groups of clusters. Group numbers follow the alphabet: other 0, tumour 1."""
    book = _read(file)
    labelled = book.label(parse_groups(groups, book.cluster_count))
    _write(output, labelled.to_bytes())
    if as_json:
        echo_json(_document(labelled))
        return
    Console().print(_table(labelled))
    click.echo(f"Wrote {output}; digest {labelled.digest[:16]}.")


@codebook.command()
@click.argument("file", metavar="CODEBOOK", type=_FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show the clusters and groups of CODEBOOK."""
    book = _read(file)
    if as_json:
        echo_json(_document(book))
        return
    Console().print(_table(book))
    click.echo(f"{book.keys.size:,} keys, codec {book.codec[:16]}, digest {book.digest[:16]}")


@codebook.command()
@click.argument("file", metavar="CODEBOOK", type=_FILE)
@click.argument("keys", metavar="KEYS.safetensors", type=_FILE)
@_OUTPUT
@_SEED
@_NEIGHBOURS
@_BANDS
def page(
    file: Path, keys: Path, output: Path, seed: int, neighbours: int, bands: Path | None
) -> None:
    """Draw CODEBOOK, e.g. once it is labelled, over KEYS; the build's seed gives its picture."""
    from aggregator.embedding.page import write_codebook_page
    from aggregator.embedding.plane import EmbeddingSettings, embed
    from common.keys.key_counts import read_key_counts

    book, released = _read(file), read_key_counts(keys)
    profiles = _profiles(book, released, bands)
    settings: EmbeddingSettings = EmbeddingSettings(seed=seed, neighbours=neighbours)
    with Console(stderr=True).status(f"Embedding {released.keys.size:,} keys"):
        embedding = embed(released, settings)
    write_codebook_page(output, book, embedding, profiles)
    click.echo(f"Wrote {output}")


def _await(keys: Path, settings: EmbeddingSettings, seconds: float) -> None:
    """Until KEYS is there, with everything loaded; who reads it says what is wrong with it."""
    from aggregator.embedding.plane import prepare

    until = time.monotonic() + seconds
    if not keys.exists():
        prepare(settings)
    while not keys.exists() and time.monotonic() < until:
        time.sleep(_LOOK_S)


def _npy(points: NDArray[np.float32]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, points, allow_pickle=False)
    return buffer.getvalue()


def parse_groups(groups: tuple[str, ...], clusters: int) -> dict[int, str]:
    """``("tumour=1,4", "other=rest")`` as the group of each of so many clusters.

    Raises:
        InputDataError: a spelling, a cluster that does not exist or comes twice, or two rests.
    """
    named: dict[int, str] = {}
    rest = ""
    for group in groups:
        name, equals, numbers = (part.strip() for part in group.rpartition("="))
        if not equals or not name:
            raise _unclear("NAME=1,4,7 or NAME=rest", "another spelling")
        if numbers == REST:
            if rest:
                raise _unclear("one group that takes the rest", "two")
            rest = name
            continue
        for number in numbers.split(","):
            if not number.strip().isdecimal() or int(number) >= clusters:
                raise _unclear(f"clusters 0 to {clusters - 1}", "something else")
            if int(number) in named:
                raise _unclear("each cluster once", f"cluster {int(number)} twice")
            named[int(number)] = name
    if rest:
        named = dict.fromkeys(set(range(clusters)) - set(named), rest) | named
    return named


def _unclear(expected: str, got: str) -> InputDataError:
    return InputDataError("unclear groups", field="--group", expected=expected, got=got)


def _read(path: Path) -> Codebook:
    from common.keys.codebook import MAX_BYTES, Codebook

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputDataError(
            "no codebook", field=path.name, expected="a readable file", got=type(error).__name__
        ) from error
    return Codebook.from_bytes(data)


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    draft.replace(path)


def _profiles(book: Codebook, released: KeyCounts, bands: Path | None) -> Profiles:
    from aggregator.embedding.profiles import make_profiles, read_projection

    return make_profiles(book, released, None if bands is None else read_projection(bands))


def _document(book: Codebook, profiles: Profiles | None = None) -> dict[str, object]:
    clusters: list[dict[str, object]] = []
    for cluster in range(book.cluster_count):
        row: dict[str, object] = {
            "cluster": cluster,
            "group": book.group_names[book.group_of[cluster]] if book.labelled else None,
            "keys": int((book.clusters == cluster).sum()),
        }
        if profiles is not None:
            profile = profiles.clusters[cluster]
            means = dict(zip(profiles.axes, profile.means, strict=True))
            row |= {"count": profile.count, "share": profile.share, "means": means}
        clusters.append(row)
    return {
        "clusters": clusters,
        "codec": book.codec,
        "digest": book.digest,
        "groups": list(book.group_names),
        "keys": int(book.keys.size),
    }


def _table(book: Codebook, profiles: Profiles | None = None) -> Table:
    table = Table("cluster", box=None, pad_edge=False, header_style="dim")
    table.add_column("keys", justify="right")
    if profiles is not None:
        table.add_column("pixels", justify="right")
        table.add_column("share", justify="right")
    table.add_column("group")
    for cluster in range(book.cluster_count):
        cells = [str(cluster), f"{int((book.clusters == cluster).sum()):,}"]
        if profiles is not None:
            profile = profiles.clusters[cluster]
            cells += [f"{profile.count:,}", f"{100 * profile.share:.1f} %"]
        cells.append(book.group_names[book.group_of[cluster]] if book.labelled else "–")
        table.add_row(*cells)
    return table
