"""Passes one and two: what three sites count together, and their slices as maps.

Real sites with their doors, ledgers and policies, and a real coordinator, in one process:
the federation of ``tests/federation``. The clusters are named by the truth of the training
slides of ONE site, as a pathologist of one hospital would.
"""

import time
from contextlib import contextmanager

import numpy as np

from aggregator.embedding.clusters import ClusterMethod, make_codebook
from aggregator.embedding.plane import EmbeddingSettings, embed
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import read_codec
from common.plan import parse_plan
from site_client.egress.policy import default_policy_text
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.multiband import write_labels
from site_client.pixels.counting import keys_of
from site_client.pixels.slides import open_slide
from site_client.pixels.smoothing import smoothed
from site_client.worker.embedding import MapFile, embed_alone
from tests.benchmarks.founding.stacks import SITES, SLICES
from tests.conftest import loosen
from tests.federation.conftest import Federation

GROUP = "tumour"
NAMING = 0  # the site whose truth names the clusters
SHOWN = 1  # the slice that is shown where one slice is
CHANNELS = 4


class Costs(dict):
    """Processor seconds by what they were spent on."""

    @contextmanager
    def of(self, what):
        began = time.process_time()
        yield
        self[what] = round(self.get(what, 0.0) + time.process_time() - began, 2)


def slides_of(folder, subject):
    return [folder / f"{subject.name}-z{z}.npy" for z in range(SLICES)]


def write_slides(root, data):
    """Every site's slides: ``slides/<site>`` for what is counted, ``kept/<site>`` for the rest."""
    for subject in data.subjects:
        folder = root / ("kept" if subject.held_out else "slides") / SITES[subject.site]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bands.txt").write_text("\n".join(data.bands), encoding="utf-8")
        for path, slide in zip(slides_of(folder, subject), subject.slices, strict=True):
            np.save(path, slide)


def allow(site):
    """What a hospital types to have plans about slides served."""
    text = default_policy_text()
    records = '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"]'
    text = text.replace('"RoundReport"]', records)
    site.policy_file.write_text(text.replace('"no-op"]', '"no-op", "pixels", "embed"]'))
    loosen(site)


def federation_of(root, folders, served=allow):
    """Three admitted sites whose data lie in ``folders``, by site."""
    federation = Federation(root)
    for name, folder in zip(SITES, folders, strict=True):
        site = federation.add_site(name, images=0)
        served(site)
        (root / "data" / name).rmdir()
        (root / "data" / name).symlink_to(folder.resolve(), target_is_directory=True)
    return federation


def pixel_plan(data, seed, **section):
    return parse_plan(
        {
            "name": f"founding-{data.name}",
            "kind": "pixels",
            "seed": seed,
            "pixels": {"bands": data.bands, **section},
            "rounds": {"quorum": 3, "deadline_s": 3600.0},
        }
    )


def count_together(root, data, seed, section):
    """The first pass as a run: the codec, the named keys, and the coordinator's verdict."""
    federation = federation_of(root / "counting", [root / "slides" / name for name in SITES])
    store = federation.create_run(pixel_plan(data, seed, **section), min_sites=3)
    finished = federation.conduct(store, federation.transport())
    if finished.verdict != "COMPLETED":
        raise RuntimeError(f"counting: {finished.verdict} {finished.reason}")
    last = store.load(store.finished_rounds()[-1])
    (root / "codec.json").write_bytes(last.documents["codec.json"])
    return KeyCounts.from_bytes(last.documents["keys.safetensors"])


def name_clusters(root, data, keys, clusters, seed):
    """The labelled codebook, laid out and clustered as ``cairn-aggregator codebook`` does."""
    layout = embed(keys, EmbeddingSettings(seed=seed, neighbours=min(50, keys.keys.size - 2)))
    book = make_codebook(keys, layout, ClusterMethod.parse(f"kmeans:{clusters}"))
    return write_codebook(root, data, book)


def write_codebook(root, data, book):
    """Write the codebook, labelled by ``names_of``."""
    labelled = book.label(names_of(root, data, book))
    (root / "codebook.json").write_bytes(labelled.to_bytes())
    return labelled


def names_of(root, data, book):
    """Cluster to name: one that holds more tumour than average, at ONE site, is tumour."""
    codec = read_codec((root / "codec.json").read_text(encoding="utf-8"))
    hits, whole = np.zeros(book.cluster_count), np.zeros(book.cluster_count)
    for subject in data.of(held_out=False, site=NAMING):
        folder = root / "slides" / SITES[NAMING]
        for path, truth in zip(slides_of(folder, subject), subject.tumour, strict=True):
            label, mask = _clusters(path, codec, book)
            hits += np.bincount(label, truth.ravel()[mask], book.cluster_count)
            whole += np.bincount(label, minlength=book.cluster_count)
    share = hits / np.maximum(whole, 1)
    average = hits.sum() / whole.sum()
    return {k: GROUP if share[k] > average else "other" for k in range(book.cluster_count)}


def _clusters(path, codec, book):
    parts = list(keys_of(open_slide(path, codec.bands), codec))
    label = book.lookup(np.concatenate([keys for keys, _ in parts]))
    return label, np.concatenate([mask for _, mask in parts])


def home(root, arm, subject):
    """Where an arm's image of a subject lies: by site what is trained on, together the rest."""
    place = "held-out" if subject.held_out else SITES[subject.site]
    folder = root / "images" / arm / place
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{subject.name}.mha"


def write_maps(root, data, arm="maps", group=GROUP):
    """The second pass: ``cairn-site embed`` of four slices a subject; also how good they are.

    With a ``group`` a channel is 255 where that is, as in the paper; without, a channel
    keeps the labels: 0 on empty glass, 1 for other tissue, 2 for tumour.
    """
    said, true = [], []
    for subject in data.subjects:
        folder = root / ("kept" if subject.held_out else "slides") / SITES[subject.site]
        path = home(root, arm, subject)
        output = MapFile(path, group, data.pixel_mm)
        files = (root / "codebook.json", root / "codec.json")
        embed_alone(slides_of(folder, subject), *files, root, output, lambda *_: None)
        mark(path, subject)
        if subject.held_out:
            said.append(channels_of(path) > (0 if group else 1))
            true.append(subject.tumour)
    return balanced_accuracy(np.stack(said), np.stack(true))


def channels_of(path):
    from SimpleITK import GetArrayFromImage, ReadImage

    return np.moveaxis(GetArrayFromImage(ReadImage(str(path))), -1, 0)


def balanced_accuracy(said, true):
    return float(((said & true).sum() / true.sum() + (~said & ~true).sum() / (~true).sum()) / 2)


def mark(path, subject):
    places = {name: np.array([*xy, 0.0]) for name, xy in subject.landmarks_mm.items()}
    write_landmarks(path.with_name(f"{subject.name}.mrk.json"), places)


def write_others(root, data, smoothing):
    """What the maps are held against: bands of one slice, and its principal components.

    The bands are the four of most energy in all sites' sum, each stretched to its own
    range; *smoothed bands* are the same after the plan's smoothing.
    """
    codec = read_codec((root / "codec.json").read_text(encoding="utf-8"))
    energy = sum(
        np.square(s.slices, dtype=np.float64).sum((0, 1, 2)) for s in data.of(held_out=False)
    )
    best = np.sort(np.argsort(-energy)[:CHANNELS])
    for subject in data.subjects:
        folder = root / ("kept" if subject.held_out else "slides") / SITES[subject.site]
        path = slides_of(folder, subject)[SHOWN]
        raw = subject.slices[SHOWN]
        source = smoothed(open_slide(path, codec.bands), smoothing, codec.scale)
        smooth = np.concatenate(list(source.chunks())).reshape(raw.shape)
        values, mask = codec.projection.components(smooth.reshape(-1, raw.shape[2]))
        parts = np.zeros((mask.size, CHANNELS))
        parts[mask] = values[:, :CHANNELS] - values[:, :CHANNELS].min(0) + 0.01
        arms = {
            "bands": raw[..., best],
            "smoothed-bands": smooth[..., best],
            "components": parts.reshape(*raw.shape[:2], CHANNELS),
        }
        for arm, image in arms.items():
            written = home(root, arm, subject)
            write_labels(written, _stretched(np.moveaxis(image, -1, 0)), data.pixel_mm)
            mark(written, subject)
    return [data.bands[k] for k in best]


def _stretched(channels):
    """uint8, every channel to its own 99.5th percentile."""
    top = np.percentile(channels, 99.5, axis=(1, 2), keepdims=True)
    return np.rint(255 * np.clip(channels / np.maximum(top, 1e-9), 0, 1)).astype(np.uint8)


def facts(root, keys, book):
    return {
        "keys": int(keys.keys.size),
        "clusters": book.cluster_count,
        "tumour_clusters": int(np.sum(np.array(book.group_of) == book.group_names.index(GROUP))),
    }
