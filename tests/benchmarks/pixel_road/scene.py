"""The demonstration's scene: the whole federation over real processes, and k-means beside it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

CLUSTERS = 24


def federations(seeds, _per_site):
    for seed in seeds:

        def job(seed=seed):
            return federate(seed)

        yield f"federation/seed{seed}", job


def plain(seeds, _per_site):
    for seed in seeds:

        def job(seed=seed):
            return kmeans(seed)

        yield f"k-means/seed{seed}", job


def federate(seed):
    """``make demo-pixels`` with another seed; its summary and what its processes spent."""
    folder = Path("build/pixel-results/demo-pixels")
    words = ("-m", "deploy.demo_pixels", "--folder", str(folder), "--seed", str(seed))
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    spent = json.loads((folder / "logs" / "processor-seconds.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return summary | {"processor_s": spent}


def kmeans(seed):
    """Purity of k-means on all unit spectra of the scene together, neither counted nor sent."""
    from sklearn.cluster import KMeans

    from deploy.demo_pixels.data import read_scene
    from deploy.demo_pixels.judge import agreement, majority

    pixels, truth = read_scene()
    spectra = pixels.reshape(-1, pixels.shape[2]).astype(np.float32)
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
    found = KMeans(CLUSTERS, n_init=2, random_state=seed).fit_predict(spectra)
    found = found.reshape(truth.shape).astype(np.int64)
    everywhere = np.ones(truth.shape, np.bool_)
    kinds = majority(found, truth, CLUSTERS, everywhere)
    return {"clusters": CLUSTERS, "purity": agreement(kinds[found], truth, everywhere)}
