"""The pixel road on multiplex images of breast tissue: what is found, and what it is worth.

18 fields of view, one patient each, 1024 x 1024 pixels of the MIBI-TOF set of Risom et al.,
Cell 2022, split by patient into three sites; not part of the repository. In memory, through
the same library functions as a run of kind ``pixels``.

1. ``recovery``, 35 bands: pixels that the 20,000 most frequent keys cover; the share of
   those keys that comes back from merged tables of 16 x 200,000; keys that pass the gate.
2. ``tissue``, 31 bands: the four epithelial channels (PanKRT, CK5, CK7, ECAD) are left out
   of the sketch and make the reference: their sum, blurred, above Otsu's threshold. Keys
   become clusters; ``tumour`` are the clusters with more reference pixels than average at
   ONE site; agreement is measured at the two others. Beside it the same with codec, keys
   and clusters of that one site alone, and the most that any naming of keys could reach.

3. ``scene``: how pure k-means makes clusters of the pixel demonstration's scene, when all
   spectra lie in one place and are neither reduced, counted nor sent: the demonstration's
   own figure is in its summary.json.

The reference is epithelium, malignant or not, by four antibodies: no pathologist drew it.
``--blur`` smooths the bands (not the reference) before anything else, as many do with the
few counts per pixel of such images. Pictures go to ``--pictures`` and are not for
publication: the terms of the images are unknown.
"""

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from aggregator.embedding.clusters import ClusterMethod, make_codebook
from aggregator.embedding.plane import PlaneSettings
from aggregator.embedding.plane import embed as lay_out
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import fit_ranges, fit_survey
from common.plan import Pixels
from common.sketching import SketchSpec
from site_client.pixels.counting import PixelCounter, PixelTables, count_slides, keys_of
from site_client.pixels.release import ReleaseRule, release
from site_client.pixels.slides import open_slide
from site_client.pixels.statistics import component_ranges, survey

FIELDS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dcis_mibi"
LEFT_OUT = ("CD56", "FOXP3", "HIF1a", "Nuc", "P", "PD1")
EPITHELIAL = ("CK5", "CK7", "ECAD", "PanKRT")
SITES = 3
TOP = 20_000
RECALL_TARGET = 0.99
BLURRED_UNIT = 16  # integers per count once bands are blurred
REFERENCE_BLUR = 2.0  # pixels
CHUNK = 1 << 16


@dataclass(eq=False)
class Field:
    """A slide in memory, as ``site_client.pixels`` wants it, with its site and reference."""

    name: str
    status: str
    site: int
    bands: tuple[str, ...]
    array: np.ndarray
    keratin: np.ndarray

    @property
    def pixels(self):
        return self.array.shape[0] * self.array.shape[1]

    @property
    def shape(self):
        return self.array.shape

    def chunks(self):
        flat = self.array.reshape(-1, len(self.bands))
        for start in range(0, len(flat), CHUNK):
            yield flat[start : start + CHUNK]


def names_of_bands(folder):
    first = sorted(path.stem for path in next(p for p in folder.iterdir() if p.is_dir()).iterdir())
    bands = tuple(name for name in first if name not in LEFT_OUT)
    assert len(bands) == 35
    assert set(EPITHELIAL) <= set(bands)
    return bands


def read_fields(folder, blur, limit):
    """All fields with 35 bands, dealt to sites by patient; ``limit`` per site, 0 for all."""
    bands = names_of_bands(folder)
    with (folder / "fields.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["patient"])
    assert len({row["patient"] for row in rows}) == len(rows)
    fields = []
    for number, row in enumerate(rows):
        if limit and number >= limit * SITES:
            break
        slide = open_slide(folder / row["field"], bands)
        array = np.concatenate(list(slide.chunks())).reshape(slide.shape)
        keratin = array[..., [bands.index(name) for name in EPITHELIAL]].sum(-1, dtype=np.float32)
        if blur:
            array = blurred(array, blur)
        fields.append(Field(row["field"], row["status"], number % SITES, bands, array, keratin))
    return fields


def blurred(array, sigma):
    out = np.empty(array.shape, np.uint16)
    for band in range(array.shape[2]):
        smooth = gaussian_filter(array[..., band].astype(np.float32), sigma)
        out[..., band] = np.rint(BLURRED_UNIT * smooth)
    return out


def without(fields, names):
    """The same fields without some bands."""
    kept = [i for i, band in enumerate(fields[0].bands) if band not in names]
    bands = tuple(fields[0].bands[i] for i in kept)
    for field in fields:
        array = np.ascontiguousarray(field.array[..., kept])
        yield Field(field.name, field.status, field.site, bands, array, field.keratin)


def fit(fields, asked):
    """What a federation freezes before anything is sketched."""
    surveys = [survey(field) for field in fields]
    widest = fit_survey(asked, sum(surveys[1:], surveys[0]))
    if asked.codec == "all-bands":
        return widest
    ranges = [component_ranges(field, widest.projection) for field in fields]
    return fit_ranges(asked, widest, sum(ranges[1:], ranges[0]))


def encode(fields, codec):
    """Keys of every field's foreground, and which pixels are foreground."""
    out = []
    for field in fields:
        parts = list(keys_of(field, codec))
        keys = np.concatenate([keys for keys, _ in parts])
        out.append((keys, np.concatenate([mask for _, mask in parts]).reshape(field.shape[:2])))
    return out


def pool(encoded):
    """All keys and their exact counts, most frequent first."""
    keys, counts = np.unique(np.concatenate([keys for keys, _ in encoded]), return_counts=True)
    order = np.lexsort((keys, -counts))
    return keys[order], counts[order]


def federate(fields, codec, asked, seed):
    """Merged tables of all sites under a key made from the seed."""
    key = np.random.default_rng(seed).bytes(16)
    spec = SketchSpec(asked.rows, asked.columns, key)
    merged = PixelTables.empty(codec, spec)
    for site in range(SITES):
        counter = PixelCounter(codec, spec, asked.presence_floor)
        count_slides([field for field in fields if field.site == site], counter, codec)
        merged.merge(counter.tables())
    return merged


def recovery(fields, asked, seeds):
    """Coverage and recall, and what the gate lets through; one row per seed."""
    codec = fit(fields, asked)
    encoded = encode(fields, codec)
    keys, counts = pool(encoded)
    present = np.zeros(keys.size, np.int64)
    order = np.argsort(keys)
    for site in range(SITES):
        own = [pair for field, pair in zip(fields, encoded, strict=True) if field.site == site]
        mine, times = pool(own)
        mine = mine[times >= asked.presence_floor]
        present[order[np.searchsorted(keys[order], mine)]] += 1
    passing = keys[(counts >= asked.key_pixels) & (present >= asked.key_sites)]
    rows = []
    for seed in seeds:
        began = time.process_time()
        tables = federate(fields, codec, asked, seed)
        counted = time.process_time()
        found = tables.views.recover(TOP, floor=5).keys
        at_least = counts[min(TOP, counts.size) - 1]
        named = release(tables, ReleaseRule(asked.key_pixels, asked.key_sites), TOP)
        exact = dict(zip(keys.tolist(), counts.tolist(), strict=True))
        true = np.array([exact[key] for key in named.keys.tolist()])
        rows.append(
            {
                "seed": seed,
                "recall_top": float(np.isin(keys[:TOP], found).mean()),
                "frequent_as_the_last": float(np.isin(found, keys[counts >= at_least]).mean()),
                "named": int(named.keys.size),
                "named_coverage": float(true.sum() / counts.sum()),
                "named_of_allowed": float(np.isin(passing[:TOP], named.keys).mean()),
                "named_not_allowed": float(1 - np.isin(named.keys, passing).mean()),
                "named_least": int(true.min()) if true.size else 0,
                "named_error_p50": float(np.median(np.abs(named.counts - true))),
                "named_error_p99": float(np.quantile(np.abs(named.counts - true), 0.99)),
                "threshold": float(named.threshold),
                "cpu_s_count": counted - began,
                "cpu_s_recover": time.process_time() - counted,
            }
        )
    return {
        "bands": len(fields[0].bands),
        "pixels": int(sum(field.pixels for field in fields)),
        "foreground": int(counts.sum()),
        "floor": int(getattr(codec, "projection", codec).floor),
        "table_bytes": int(8 * (len(asked.tables) * asked.rows * asked.columns + asked.prefixes)),
        "distinct_keys": int(keys.size),
        "coverage_top": float(counts[:TOP].sum() / counts.sum()),
        "count_at_top": int(counts[min(TOP, counts.size) - 1]),
        "allowed_keys": int(passing.size),
        "seeds": rows,
    }


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


@dataclass(eq=False)
class Made:
    """A codec, its keys, and the cluster of every field's every foreground pixel."""

    encoded: list
    books: dict
    released: KeyCounts
    layout: object
    codec: object


def make_books(fields, codec, keys, counts, seed, clusters):
    """Lay keys out once, and cluster them into so many."""
    released = KeyCounts.of(codec.digits, keys, counts, codec.identity)
    layout = lay_out(released, PlaneSettings(seed=seed))
    books = {n: make_codebook(released, layout, ClusterMethod("kmeans", n)) for n in clusters}
    return Made(encode(fields, codec), books, released, layout, codec)


def of_federation(fields, asked, seed, clusters):
    codec = fit(fields, asked)
    tables = federate(fields, codec, asked, seed)
    named = release(tables, ReleaseRule(asked.key_pixels, asked.key_sites), TOP)
    return make_books(fields, codec, named.keys, named.counts, seed, clusters)


def of_one_site(fields, asked, site, seed, clusters):
    """What one site can do by itself: its own codec, and exact counts of its own keys."""
    own = [field for field in fields if field.site == site]
    codec = fit(own, asked)
    keys, counts = pool(encode(own, codec))
    frequent = counts[:TOP] >= asked.key_pixels
    return make_books(fields, codec, keys[:TOP][frequent], counts[:TOP][frequent], seed, clusters)


def names(labels, truths, where, count):
    """Which of ``count`` labels hold more reference pixels than the average of ``where``."""
    label = np.concatenate([labels[i] for i in where])
    truth = np.concatenate([truths[i] for i in where])
    hits = np.bincount(label, truth, count)
    return hits > truth.mean() * np.bincount(label, minlength=count)


def scores(said, truth):
    """Balanced accuracy and Dice of two binary vectors."""
    both = float(np.count_nonzero(said & truth))
    sensitivity = both / max(1, np.count_nonzero(truth))
    specificity = float(np.count_nonzero(~said & ~truth)) / max(1, np.count_nonzero(~truth))
    dice = 2 * both / max(1, np.count_nonzero(said) + np.count_nonzero(truth))
    return {"balanced_accuracy": (sensitivity + specificity) / 2, "dice": dice}


def maps(made, fields, reference, book, naming):
    """Tumour maps of all fields; clusters are named at the fields ``naming``."""
    labels = [book.lookup(keys) for keys, _ in made.encoded]
    truths = [reference[i][mask] for i, (_, mask) in enumerate(made.encoded)]
    tumour = names(labels, truths, naming, book.cluster_count)
    out = []
    for field, label, (_, mask) in zip(fields, labels, made.encoded, strict=True):
        said = np.zeros(field.shape[:2], np.bool_)
        said[mask] = tumour[label]
        out.append(said)
    return out


def smoothed(said, mask, sigma=3.0):
    """Each pixel's map by the majority of the foreground around it."""
    weight = gaussian_filter(mask.astype(np.float32), sigma)
    share = gaussian_filter(said.astype(np.float32), sigma)
    return share > 0.5 * np.maximum(weight, 1e-6)


def compare(said, reference, judged, where):
    """Scores over pooled pixels of the fields ``where``: on ``judged`` pixels, and on all."""

    def gather(images, masks):
        return np.concatenate([images[i][masks[i]] for i in where])

    every = [np.ones(mask.shape, np.bool_) for mask in judged]
    smooth = [smoothed(image, mask) for image, mask in zip(said, judged, strict=True)]
    return {
        "foreground": scores(gather(said, judged), gather(reference, judged)),
        "foreground_smoothed": scores(gather(smooth, judged), gather(reference, judged)),
        "all_pixels": scores(gather(said, every), gather(reference, every)),
    }


def ceiling(made, reference, where):
    """Naming every single key by the very pixels that are judged: no codebook can do better."""
    truths = np.concatenate([reference[i][made.encoded[i][1]] for i in where])
    _, label = np.unique(np.concatenate([made.encoded[i][0] for i in where]), return_inverse=True)
    hits = np.bincount(label, truths)
    return scores((hits > truths.mean() * np.bincount(label))[label], truths)


def tissue(fields, asked, seeds, clusters, pictures):
    """Agreement with the reference; rows by seed, clusters, naming site and who made the keys."""
    reference, threshold = references(fields)
    rows = []
    kept = None
    for seed in seeds:
        together = of_federation(fields, asked, seed, clusters)
        judged = [mask for _, mask in together.encoded]
        for site in range(SITES):
            naming = [i for i, field in enumerate(fields) if field.site == site]
            others = [i for i, field in enumerate(fields) if field.site != site]
            alone = of_one_site(fields, asked, site, seed, clusters)
            for who, made in (("federation", together), ("site alone", alone)):
                for n, book in made.books.items():
                    said = maps(made, fields, reference, book, naming)
                    row = {"seed": seed, "clusters": n, "named_at": site, "keys_of": who}
                    row["keys"] = int(made.released.keys.size)
                    rows.append(row | compare(said, reference, judged, others))
                    if kept is None and n == max(clusters):
                        kept = (together, book, said, site)
            top = ceiling(together, reference, others)
            rows.append({"seed": seed, "named_at": site, "keys_of": "ceiling", "foreground": top})
            print(f"seed {seed}, named at site {site}", file=sys.stderr, flush=True)
    if pictures is not None and kept is not None:
        draw(pictures, fields, reference, *kept)
    positive = np.concatenate([r[m] for r, m in zip(reference, judged, strict=True)])
    return {
        "bands": len(fields[0].bands),
        "reference_threshold_counts": threshold,
        "reference_share_foreground": float(positive.mean()),
        "rows": rows,
    }


def draw(folder, fields, reference, made, book, said, site):
    """The codebook's page, and tumour maps beside the reference."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from aggregator.embedding.page import write_codebook_page
    from aggregator.embedding.profiles import Projection, make_profiles

    folder.mkdir(parents=True, exist_ok=True)
    profiles = make_profiles(book, made.released, Projection.of_codec(made.codec))
    write_codebook_page(folder / "codebook.html", book, made.layout, profiles)
    shown = [i for i, field in enumerate(fields) if field.site != site][:4]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4 * len(shown), 8.4), dpi=90)
        axes = figure.subplots(2, len(shown), squeeze=False)
        for column, i in enumerate(shown):
            for row, (image, what) in enumerate(((said[i], "map"), (reference[i], "reference"))):
                axes[row, column].imshow(image, cmap="Greys", interpolation="nearest")
                axes[row, column].set_title(f"{fields[i].name}: {what}")
                axes[row, column].set_axis_off()
        figure.tight_layout()
        figure.savefig(folder / "maps.png")


def scene(seeds, clusters=24):
    """Purity of k-means on all unit spectra of the demonstration's scene together."""
    from sklearn.cluster import KMeans

    from deploy.demo_pixels.data import read_scene
    from deploy.demo_pixels.judge import agreement, majority

    pixels, truth = read_scene()
    spectra = pixels.reshape(-1, pixels.shape[2]).astype(np.float32)
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
    everywhere = np.ones(truth.shape, np.bool_)
    rows = []
    for seed in seeds:
        found = KMeans(clusters, n_init=2, random_state=seed).fit_predict(spectra)
        found = found.reshape(truth.shape).astype(np.int64)
        kinds = majority(found, truth, clusters, everywhere)
        rows.append({"seed": seed, "purity": agreement(kinds[found], truth, everywhere)})
    return {"clusters": clusters, "seeds": rows}


def summarise(rows):
    """Mean and range over seeds and naming sites, by keys, clusters and pixels judged."""
    table = {}
    for row in rows:
        for over in ("foreground", "foreground_smoothed", "all_pixels"):
            if over in row:
                group = (row["keys_of"], row.get("clusters"), over)
                table.setdefault(group, []).append(row[over])
    out = []
    for (who, n, over), found in table.items():
        line = {"keys_of": who, "clusters": n, "pixels": over, "runs": len(found)}
        for measure in ("balanced_accuracy", "dice"):
            values = [score[measure] for score in found]
            line[measure] = float(np.mean(values))
            line[f"{measure}_range"] = [float(min(values)), float(max(values))]
        out.append(line)
    return out


def show(result):
    found = result["recovery"]
    print(
        f"{found['bands']} bands, {found['foreground']:,} of {found['pixels']:,} pixels foreground"
    )
    print(f"{found['distinct_keys']:,} keys; the top {TOP:,} cover {found['coverage_top']:.4f}")
    for row in found["seeds"]:
        short = "" if row["recall_top"] >= RECALL_TARGET else f"  SHORT of {RECALL_TARGET}"
        print(
            f"seed {row['seed']}: recall {row['recall_top']:.4f}{short}; {row['named']:,} named, "
            f"cover {row['named_coverage']:.4f}; {row['named_of_allowed']:.4f} of the allowed"
        )
    for line in result["tissue"]["summary"]:
        print(
            f"{line['keys_of']:>11} {line['clusters'] or '':>4} {line['pixels']:<20} "
            f"balanced accuracy {line['balanced_accuracy']:.3f}  Dice {line['dice']:.3f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--fields", type=Path, default=FIELDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--blur", type=float, default=0.0, help="sigma in pixels; 0 for none")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=200_000)
    parser.add_argument("--per-site", type=int, default=0, help="fields of each site; 0 for all")
    parser.add_argument("--pictures", type=Path, help="a folder outside the repository")
    parser.add_argument("--scene", action="store_true", help="only part 3; needs tensorly's scene")
    parser.add_argument("--only-recovery", action="store_true", help="leave out part 2")
    parser.add_argument("--codec", choices=("reduced", "all-bands"), default="reduced")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.scene:
        print(json.dumps(scene(options.seeds), indent=2))
        return
    if not options.fields.is_dir():
        sys.exit("needs the DCIS multiplex fields beside the checkout, or --fields")
    fields = read_fields(options.fields, options.blur, options.per_site)
    dimensions = {"rows": options.rows, "columns": options.columns, "top": TOP}
    dimensions["codec"] = options.codec
    result = {"blur": options.blur, "seeds": options.seeds, **dimensions}
    result["recovery"] = recovery(
        fields, Pixels(bands=fields[0].bands, **dimensions), options.seeds
    )
    print("recovery done", file=sys.stderr, flush=True)
    if options.only_recovery:
        print(json.dumps(result, indent=2))
        return
    fields = list(without(fields, EPITHELIAL))
    asked = Pixels(bands=fields[0].bands, **dimensions)
    found = tissue(fields, asked, options.seeds, options.clusters, options.pictures)
    result["tissue"] = found | {"summary": summarise(found["rows"])}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
