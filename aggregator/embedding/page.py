"""A codebook as one self-contained page: the picture a coordinator names clusters with.

Opens offline and prints; no script, font or picture is fetched. The same inputs
give the same bytes on the same installation. Holds clusters' sizes and profiles,
no single key.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from aggregator.embedding import drawings
from aggregator.embedding.clusters import propose_groups
from aggregator.embedding.plane import Embedding
from aggregator.embedding.profiles import ClusterProfile, Profiles
from aggregator.report import text
from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.page import signed_scale
from common.page.templates import render as render_template

_TOLD = 4  # bands named in the table: those farthest above the mean
_LEAST = 0.25  # standard deviations above it that are worth a name
_SCALE = signed_scale(drawings.FULL_CONTRAST, drawings.FULL_CONTRAST / 2)


@dataclass(frozen=True)
class _Row:
    profile: ClusterProfile
    colour: str
    group: str
    group_colour: str
    high: str


@dataclass(frozen=True)
class _Group:
    name: str
    colour: str
    clusters: str
    keys: int
    count: int
    share: float


def write_codebook_page(
    path: Path, codebook: Codebook, embedding: Embedding, profiles: Profiles
) -> None:
    """Write the page; the file appears whole or not at all.

    Raises:
        InputDataError: profiles of another codebook.
    """
    page = render(codebook, embedding, profiles)
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def render(codebook: Codebook, embedding: Embedding, profiles: Profiles) -> str:
    """Return the page as a string."""
    if len(profiles.clusters) != codebook.cluster_count:
        raise InputDataError(
            "profiles of another codebook",
            field="profiles",
            expected=f"{codebook.cluster_count} clusters",
            got=f"{len(profiles.clusters)}",
        )
    return render_template(
        "aggregator.embedding",
        "codebook.html.j2",
        _context(codebook, embedding, profiles),
        {"count": text.count, "percent": text.percent},
    )


def _context(codebook: Codebook, embedding: Embedding, profiles: Profiles) -> dict[str, object]:
    if codebook.labelled:
        of, names = codebook.group_of, codebook.group_names
    else:
        of = propose_groups(codebook, embedding)
        names = tuple(string.ascii_uppercase[: max(of) + 1])
    clusters = codebook.lookup(embedding.keys).astype(np.int64)
    numbers = tuple(str(cluster) for cluster in range(codebook.cluster_count))
    colours = tuple(drawings.colour(cluster) for cluster in range(codebook.cluster_count))
    group_colours = tuple(drawings.group_colour(group) for group in range(len(names)))
    # Side by side what belongs together: by group, then by size, which is the number.
    order = tuple(sorted(range(codebook.cluster_count), key=lambda c: (of[c], c)))
    called = tuple(f"{names[of[c]]} · {c}" for c in range(codebook.cluster_count))
    return {
        "codebook": codebook,
        "embedding": embedding,
        "profiles": profiles,
        "scale": Markup(_SCALE),  # noqa: S704 - ours, and it holds numbers
        "rows": [_row(profiles, c, names[of[c]], of[c]) for c in order],
        "groups": [_group(profiles, n, name, of) for n, name in enumerate(names)],
        "drawings": {
            "clusters": drawings.plane(embedding, clusters, numbers, colours, "clusters"),
            "groups": drawings.plane(
                embedding, np.array(of)[clusters], names, group_colours, "groups"
            ),
            "profiles": drawings.profiles(profiles, order, called),
        },
    }


def _row(profiles: Profiles, cluster: int, group: str, number: int) -> _Row:
    profile = profiles.clusters[cluster]
    contrast = np.array(profile.contrast)
    top = [int(i) for i in np.argsort(-contrast, kind="stable")[:_TOLD] if contrast[i] >= _LEAST]
    high = ", ".join(f"{profiles.axes[i]} +{contrast[i]:.1f}" for i in top) or "–"
    return _Row(profile, drawings.colour(cluster), group, drawings.group_colour(number), high)


def _group(profiles: Profiles, number: int, name: str, of: tuple[int, ...]) -> _Group:
    members = [p for p in profiles.clusters if of[p.cluster] == number]
    return _Group(
        name,
        drawings.group_colour(number),
        ", ".join(str(p.cluster) for p in members),
        sum(p.keys for p in members),
        sum(p.count for p in members),
        sum(p.share for p in members),
    )
