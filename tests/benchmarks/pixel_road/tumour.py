"""What a codebook of tissue is worth: epithelium against other, beside one site alone.

The four epithelial channels (PanKRT, CK5, CK7, ECAD) are left out of the sketch, which sees
31 bands, and make the reference: their sum, smoothed, above Otsu's threshold. Released keys
become clusters; ``tumour`` are the clusters with more reference pixels than average at ONE
site; agreement is measured at the two others, over the foreground of the federation's
codec. Beside it the same with codec, keys and clusters of that one site alone, and the most
that any naming of the same keys could reach.

The reference is epithelium, malignant or not, by four antibodies: no pathologist drew it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from aggregator.embedding.clusters import ClusterMethod, make_codebook
from aggregator.embedding.plane import EmbeddingSettings, embed
from common.keys.key_counts import KeyCounts
from site_client.pixels.release import ReleaseRule, release
from tests.benchmarks.pixel_road.federation import TOP, encode, federate, fit, plan_of, pool
from tests.benchmarks.pixel_road.fields import EPITHELIAL, GRAINS, SITES, read_fields, without

CLUSTERS = (10, 30)
REFERENCE_BLUR = 2.0  # pixels
MAJORITY_BLUR = 3.0  # pixels
ALONE = tuple(f"site {site} alone" for site in range(SITES))


def jobs(seeds, per_site):
    for grain in GRAINS:
        for seed in seeds:
            for who in ("federation", *ALONE):

                def job(grain=grain, seed=seed, who=who):
                    return judge(grain, seed, who, per_site)

                yield f"{grain}/seed{seed}/{who}", job


@dataclass(eq=False)
class Tissue:
    """Fields, their reference, and what the federation's codec makes of them."""

    fields: list
    reference: list
    threshold: float
    asked: object
    codec: object
    encoded: list

    def at(self, site, *, others=False):
        return [i for i, field in enumerate(self.fields) if (field.site == site) != others]


@lru_cache(maxsize=1)
def read_tissue(grain, per_site):
    fields = without(read_fields(grain, per_site=per_site), EPITHELIAL)
    asked = plan_of(fields, "reduced")
    codec = fit(fields, asked)
    return Tissue(fields, *references(fields), asked, codec, encode(fields, codec))


@dataclass(eq=False)
class Made:
    """Keys, where they lie in the plane, and the cluster of every field's every pixel."""

    encoded: list
    books: dict
    released: KeyCounts
    layout: object


def of_federation(tissue, seed):
    tables = federate(tissue.fields, tissue.codec, tissue.asked, seed)
    rule = ReleaseRule(tissue.asked.key_pixels, tissue.asked.key_sites)
    named = release(tables, rule, TOP)
    return _make(tissue.codec, named.keys, named.counts, seed, tissue.encoded)


def of_one_site(tissue, site, seed):
    """What one site can do by itself: its own codec, and exact counts of its own keys."""
    own = [tissue.fields[i] for i in tissue.at(site)]
    codec = fit(own, tissue.asked)
    keys, counts = pool(encode(own, codec))
    enough = counts[:TOP] >= tissue.asked.key_pixels
    encoded = encode(tissue.fields, codec)
    return _make(codec, keys[:TOP][enough], counts[:TOP][enough], seed, encoded)


def _make(codec, keys, counts, seed, encoded):
    released = KeyCounts.of(codec.digits, keys, counts, codec.identity)
    layout = embed(released, EmbeddingSettings(seed=seed))
    books = {n: make_codebook(released, layout, ClusterMethod("kmeans", n)) for n in CLUSTERS}
    return Made(encoded, books, released, layout)


def judge(grain, seed, who, per_site):
    tissue = read_tissue(grain, per_site)
    if who == "federation":
        made, naming = of_federation(tissue, seed), range(SITES)
    else:
        site = ALONE.index(who)
        made, naming = of_one_site(tissue, site, seed), [site]
    judged = [mask for _, mask in tissue.encoded]
    rows = []
    for site in naming:
        where = tissue.at(site, others=True)
        for n, book in made.books.items():
            said = maps(made, tissue, book, tissue.at(site))
            row = {"clusters": n, "named_at": site}
            rows.append(row | compare(said, tissue.reference, judged, where))
    result = {"bands": len(tissue.asked.bands), "keys": int(made.released.keys.size), "rows": rows}
    if who == "federation":
        positive = [r[m] for r, m in zip(tissue.reference, judged, strict=True)]
        book = made.books[max(CLUSTERS)]
        result |= {
            "reference_counts": tissue.threshold,
            "reference_share": float(np.concatenate(positive).mean()),
            "ceiling": [
                ceiling(made, tissue.reference, tissue.at(site, others=True))
                for site in range(SITES)
            ],
            "plane": {
                "points": np.round(made.layout.points.astype(float), 2).tolist(),
                "counts": made.layout.counts.tolist(),
                "clusters": book.lookup(made.layout.keys).tolist(),
                "epithelium": shares(made, tissue),
            },
        }
    return result


def shares(made, tissue):
    """Share of each key's pixels, of all sites, that the reference calls epithelium."""
    keys = np.concatenate([keys for keys, _ in made.encoded])
    truth = [tissue.reference[i][mask] for i, (_, mask) in enumerate(made.encoded)]
    place = np.searchsorted(made.layout.keys, keys)
    place = np.minimum(place, made.layout.keys.size - 1)
    known = made.layout.keys[place] == keys
    size = made.layout.keys.size
    hits = np.bincount(place[known], np.concatenate(truth)[known], size)
    pixels = np.maximum(1, np.bincount(place[known], minlength=size))
    return np.round(hits / pixels, 3).tolist()


def otsu(values, bins=512):
    """Threshold that parts a histogram best (Otsu, IEEE Trans. SMC 1979)."""
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * gap**2)])


def references(fields):
    """Epithelium of every field: blurred sum of the four channels above one threshold."""
    smooth = [np.log1p(gaussian_filter(field.keratin, REFERENCE_BLUR)) for field in fields]
    threshold = otsu(np.concatenate([image.ravel() for image in smooth]))
    return [image > threshold for image in smooth], float(np.expm1(threshold))


def names(labels, truths, where, count):
    """Which of ``count`` labels hold more reference pixels than the average of ``where``."""
    label = np.concatenate([labels[i] for i in where])
    truth = np.concatenate([truths[i] for i in where])
    hits = np.bincount(label, truth, count)
    return hits > truth.mean() * np.bincount(label, minlength=count)


def maps(made, tissue, book, naming):
    """Tumour maps of all fields; clusters are named at the fields ``naming``."""
    labels = [book.lookup(keys) for keys, _ in made.encoded]
    truths = [tissue.reference[i][mask] for i, (_, mask) in enumerate(made.encoded)]
    tumour = names(labels, truths, naming, book.cluster_count)
    out = []
    for field, label, (_, mask) in zip(tissue.fields, labels, made.encoded, strict=True):
        said = np.zeros(field.shape[:2], np.bool_)
        said[mask] = tumour[label]
        out.append(said)
    return out


def scores(said, truth):
    """Balanced accuracy and Dice of two binary vectors."""
    both = float(np.count_nonzero(said & truth))
    sensitivity = both / max(1, np.count_nonzero(truth))
    specificity = float(np.count_nonzero(~said & ~truth)) / max(1, np.count_nonzero(~truth))
    dice = 2 * both / max(1, np.count_nonzero(said) + np.count_nonzero(truth))
    return {"balanced_accuracy": (sensitivity + specificity) / 2, "dice": dice}


def smoothed(said, mask):
    """Each pixel's map by the majority of the foreground around it."""
    weight = gaussian_filter(mask.astype(np.float32), MAJORITY_BLUR)
    share = gaussian_filter(said.astype(np.float32), MAJORITY_BLUR)
    return share > 0.5 * np.maximum(weight, 1e-6)


def compare(said, reference, judged, where):
    """Scores over pooled pixels of the fields ``where``: on ``judged`` pixels, and on all."""

    def gather(images, masks):
        return np.concatenate([images[i][masks[i]] for i in where])

    every = [np.ones(mask.shape, np.bool_) for mask in judged]
    smooth = [smoothed(image, mask) for image, mask in zip(said, judged, strict=True)]
    return {
        "foreground": scores(gather(said, judged), gather(reference, judged)),
        "foreground, majority around": scores(gather(smooth, judged), gather(reference, judged)),
        "all pixels": scores(gather(said, every), gather(reference, every)),
    }


def ceiling(made, reference, where):
    """Naming every single key by the very pixels that are judged: no codebook can do better."""
    truths = np.concatenate([reference[i][made.encoded[i][1]] for i in where])
    _, label = np.unique(np.concatenate([made.encoded[i][0] for i in where]), return_inverse=True)
    hits = np.bincount(label, truths)
    return scores((hits > truths.mean() * np.bincount(label))[label], truths)
