"""What an aggregator can learn from count sketches: `python -m tests.benchmarks.sketch_attack`.

The attacker holds every site's table and their sum, knows how sketches are made,
how pixels become keys, and can compute for as long as it likes. What it may lack
is the federation key.

- Tier 0, public seeds: it tries every key there is. All 22**8 would take hours
  here, so a random part of them is tried, which gives the time and the false
  finds per candidate; recall needs no part of it, because each candidate is judged
  alone: the true keys are tried, all of them. Then the same with the coarser
  tables that recovery uses, which makes all 22**8 a matter of seconds.
- Tier 1, keyed: it guesses keys and ranks candidates by the estimates those give,
  as if they were right. Among the candidates are all frequent keys, which is more
  than an attacker starts from. Chance finds length / candidates of them; measured
  are the finds in lists of that length, tested against the hypergeometric law
  that blind lists follow, and the mean rank of true keys. The right key goes the
  same way as a control: had the attack no power, it would show there.
- What tier 1 still tells: the second moment, inner products between sites, the
  number of distinct keys from empty cells, and the largest counts, none of which
  needs a key.

Made-up sites draw from the frozen pixel profile. Where ``../shared/data/dcis_mibi``
lies beside the checkout its fields are used too, patients dealt to three sites.
"""

import argparse
import csv
import json
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from common.keys import reduced_bands
from common.sketching import CountSketch, SketchSpec, kernels
from common.sketching.hashing import hash_functions
from common.sketching.recovery import RecoverySketch

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "tests" / "vectors" / "sketch_profile.json"
FIELDS = ROOT.parent / "shared" / "data" / "dcis_mibi"
UNUSED = {"Nuc", "P", "PD1", "FOXP3", "HIF1a", "CD56"}  # 41 channels less these are 35 bands
KEY = bytes(range(16))
SPACE = 22**8
SITES = 3
YEAR = 365.25 * 86_400
U = np.uint64


class Streams(NamedTuple):
    """Keys uint64[n] of the federation, each once, and their counts int64[sites, n]."""

    keys: np.ndarray
    counts: np.ndarray

    @property
    def total(self):
        return self.counts.sum(axis=0)


def made_up(rng, distinct=None):
    """Sites that share a population of keys and differ in how often each occurs."""
    data = json.loads(PROFILE.read_text())
    rank = np.arange(1, (distinct or data["distinct"]) + 1)
    shape = (1 + data["offset"]) / (rank + data["offset"])
    counts = np.rint(data["top"] * shape ** data["exponent"]).astype(np.int64)
    keys = rng.choice(SPACE, rank.size, replace=False, shuffle=False).astype(np.uint64)
    rng.shuffle(keys)
    taste = rng.lognormal(0, 1, (SITES, rank.size))
    taste /= taste.sum(axis=0)
    first = rng.binomial(counts, taste[0])
    second = rng.binomial(counts - first, taste[1] / (taste[1] + taste[2]))
    return Streams(keys, np.stack([first, second, counts - first - second]))


def real_pixels():
    """The tumour fields as keys: 35 bands, 8 components of shares of intensity, 22 bins."""
    from PIL import Image

    with (FIELDS / "fields.csv").open() as file:
        patients = {row["field"]: row["patient"] for row in csv.DictReader(file)}
    names = sorted(p.stem for p in (FIELDS / min(patients)).glob("*.tif") if p.stem not in UNUSED)
    site_of = {patient: n % SITES for n, patient in enumerate(sorted(set(patients.values())))}
    parts, site = [], []
    for field in sorted(patients):
        bands = [np.asarray(Image.open(FIELDS / field / f"{name}.tif")) for name in names]
        pixels = np.sqrt(np.stack(bands, axis=-1).reshape(-1, len(names)).astype(np.float32))
        pixels = pixels[pixels.sum(axis=1) >= 8]
        parts.append(pixels / pixels.sum(axis=1, keepdims=True))
        site.append(np.full(pixels.shape[0], site_of[patients[field]]))
    _, directions = np.linalg.eigh(sum(part.T @ part for part in parts))
    values = np.concatenate([part @ directions[:, :-9:-1] for part in parts])
    low, high = np.quantile(values, [0.001, 0.999], axis=0)
    digits = np.clip((values - low) / (high - low) * 22, 0, 21).astype(np.int64)
    keys, where = np.unique(reduced_bands().encode(digits), return_inverse=True)
    of = np.concatenate(site)
    return Streams(
        keys, np.stack([np.bincount(where[of == s], minlength=keys.size) for s in range(SITES)])
    )


def tables(spec, streams):
    """One sketch per site."""
    found = []
    for counts in streams.counts:
        sketch = CountSketch(spec)
        held = counts > 0
        sketch.update(streams.keys[held], counts[held])
        found.append(sketch)
    return found


def merged(sketches):
    whole = CountSketch(sketches[0].spec)
    for sketch in sketches:
        whole.merge(sketch)
    return whole


def random_blocks(rng, candidates, low_digits=5):
    """Blocks of consecutive keys that together hold about so many, from all over the space."""
    size = 22**low_digits
    while size > candidates and low_digits > 1:
        low_digits -= 1
        size = 22**low_digits
    firsts = rng.choice(SPACE // size, max(1, candidates // size), replace=False)
    for first in firsts.astype(np.uint64):
        yield np.arange(size, dtype=np.uint64) + first * np.uint64(size)


@njit(nogil=True, error_model="numpy", boundscheck=False)
def _sieve(first, mixed, high, a, b, cells, kept):
    """Keys from ``first`` on that enough rows call frequent; returns how many there are."""
    rows, found = high.shape[0], 0
    for j in range(mixed.size):
        below = 0
        for r in range(rows):
            cell = (((a[r] * mixed[j] + b[r]) >> U(32)) * cells) >> U(32)
            if not (high[r, cell >> U(3)] >> (cell & U(7))) & U(1):
                below += 1
                if below > rows // 2:
                    break
        if below <= rows // 2:
            kept[found] = first + U(j)
            found += 1
    return found


class Sieve:
    """What an attacker in a hurry does: one bit per signed cell, so that the table fits a cache."""

    def __init__(self, sketch, threshold):
        self.sketch, self.threshold = sketch, threshold
        self.f = hash_functions(sketch.spec)
        signed = np.stack([sketch.table, -sketch.table], axis=-1).reshape(sketch.spec.rows, -1)
        self.high = np.packbits(signed >= threshold, axis=1, bitorder="little")
        self.mixed = np.empty(1 << 15, np.uint64)
        self.kept = np.empty(1 << 15, np.uint64)

    def find(self, block):
        """As ``sketch.select`` on consecutive keys, without the estimates."""
        survivors = []
        for start in range(0, block.size, self.mixed.size):
            part = block[start : start + self.mixed.size]
            mixed = self.mixed[: part.size]
            f = self.f
            kernels.premix(part, mixed, f.k0, f.k1)
            found = _sieve(part[0], mixed, self.high, f.a, f.b, f.cells, self.kept)
            survivors.append(self.kept[:found].copy())
        return self.sketch.select(np.concatenate(survivors), self.threshold)[0]


def enumerate_keys(rng, sketch, streams, threshold, candidates):
    """Tier 0 by trying keys, with the time and the false finds scaled to all 22**8."""
    frequent = streams.total >= threshold
    listed, _ = sketch.select(streams.keys, threshold)
    hit = np.isin(streams.keys, listed)
    tried = false = 0
    cpu = 0.0
    sieve = Sieve(sketch, threshold)
    for block in random_blocks(rng, candidates):
        start = time.process_time()
        found = sieve.find(block)
        cpu += time.process_time() - start
        tried += block.size
        false += int(np.count_nonzero(~np.isin(found, streams.keys)))
    # With f false finds among n, the true mean is below this with 95 % (exact for f = 0).
    most = (false + 3 + 2 * math.sqrt(false)) / tried * SPACE
    return {
        "threshold": int(threshold),
        "frequent_keys": int(frequent.sum()),
        "recall": float(hit[frequent].mean()),
        "listed_that_occurred": int(hit.sum()),
        "tried": tried,
        "false_among_tried": false,
        "false_in_all": round(false / tried * SPACE),
        "false_in_all_at_most": round(most),
        "ns_per_candidate": cpu / tried * 1e9,
        "core_minutes_for_all": cpu / tried * SPACE / 60,
    }


def descend(spec, streams, top):
    """Tier 0 with recovery's coarser tables: nothing is left out, and no time goes by."""
    recovery = RecoverySketch(spec, reduced_bands().radices)
    recovery.update(streams.keys, streams.total)
    order = np.lexsort((streams.keys, -streams.total))[:top]
    recovery.recover(10)  # compiles
    start = time.process_time()
    found = recovery.recover(top)
    return {
        "top": int(top),
        "recall": float(np.isin(streams.keys[order], found.keys).mean()),
        "cpu_s": time.process_time() - start,
    }


def guess(rng, spec, table, candidates, is_true, keys):
    """Tier 1: rank candidates by the estimates of each guessed key, as if it were right.

    Returns for all guesses together: finds in lists as long as there are true keys,
    their chance level, and z scores of the finds and of the true keys' mean rank.
    """
    order = rng.permutation(candidates.size)  # so that ties are in no order
    shuffled, true = candidates[order], is_true[order]
    length, count, total = int(true.sum()), int(true.sum()), candidates.size
    finds, ranks = [], []
    for key in keys:
        theirs = SketchSpec(spec.rows, spec.columns, key, domain=spec.domain)
        estimates = CountSketch.from_table(theirs, table).estimate(shuffled)
        places = np.empty(total, np.int64)
        places[np.argsort(-estimates, kind="stable")] = np.arange(total)
        finds.append(int(np.count_nonzero(places[true] < length)))
        ranks.append(float(places[true].mean()))
    blind = length * count / total  # hypergeometric mean and variance
    variance = blind * (1 - count / total) * (total - length) / (total - 1)
    middle = (total - 1) / 2
    rank_variance = (total + 1) * (total - count) / (12 * count)
    tries = math.sqrt(len(finds))
    return {
        "guesses": len(finds),
        "candidates": total,
        "list_length": length,
        "chance_recall": length / total,
        "mean_recall": float(np.mean(finds)) / count,
        "best_recall": max(finds) / count,
        "z_finds": (float(np.mean(finds)) - blind) / math.sqrt(variance) * tries,
        "z_ranks": (middle - float(np.mean(ranks))) / math.sqrt(rank_variance) * tries,
        "z_best": (max(finds) - blind) / math.sqrt(variance),
    }


def two_sided(z):
    """Probability of a normal deviate at least this far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def smallest_p(found):
    """Of all tests of guessed keys, times their number: the chance that blind lists do as well."""
    scores = [g[name] for g in found["tier_1"].values() for name in ("z_finds", "z_ranks")]
    return min(1.0, len(scores) * min(two_sided(z) for z in scores))


def guessed_keys(rng, right, number):
    """Wrong keys of each kind that an attacker may try."""
    bits = [1 << int(bit) for bit in rng.choice(128, number, replace=False)]
    value = int.from_bytes(right, "big")
    public = bytes.fromhex(SketchSpec(1, 1, right).key_id)
    return {
        "random": [rng.bytes(16) for _ in range(number)],
        "one bit wrong": [(value ^ bit).to_bytes(16, "big") for bit in bits],
        "public bytes": [
            bytes(16),
            b"\xff" * 16,
            public * 2,
            public + bytes(8),
            b"cairn/sketch/key",
        ],
    }


def with_decoys(rng, streams, threshold, ratio):
    """All frequent keys among ``ratio`` times as many that never occurred, and which are which."""
    true = streams.keys[streams.total >= threshold]
    decoys = np.unique(rng.integers(0, SPACE, 2 * ratio * true.size, np.uint64))
    decoys = rng.permutation(decoys[~np.isin(decoys, streams.keys)])[: ratio * true.size]
    candidates = np.concatenate([true, decoys])
    return candidates, np.arange(candidates.size) < true.size


def leaks(sketches, streams):
    """Statistics that need no key, beside the truth. Tables only; ``streams`` is for the truth."""
    site = [sketch.table.astype(np.float64) for sketch in sketches]
    whole = sum(site)
    counts = streams.counts.astype(np.float64)
    told, truth = {}, {}
    told["F2"], truth["F2"] = (
        float((whole**2).sum(axis=1).mean()),
        float((counts.sum(0) ** 2).sum()),
    )
    for a in range(len(site)):
        for b in range(a + 1, len(site)):
            told[f"cosine of sites {a} and {b}"] = _cosine(
                *[(site[p] * site[q]).sum() for p, q in ((a, b), (a, a), (b, b))]
            )
            truth[f"cosine of sites {a} and {b}"] = _cosine(
                *[counts[p] @ counts[q] for p, q in ((a, b), (a, a), (b, b))]
            )
    for name, table, held in [("all", whole, streams.total)] + [
        (f"site {n}", table, streams.counts[n]) for n, table in enumerate(site)
    ]:
        empty = float((table == 0).mean())
        # Linear counting: the chance of an empty cell is exp(-distinct / columns).
        told[f"distinct keys, {name}"] = -table.shape[1] * math.log(max(empty, 1e-12))
        truth[f"distinct keys, {name}"] = int(np.count_nonzero(held))
    largest = np.sort(np.abs(whole), axis=1)[:, ::-1][:, :100]
    ranked = np.sort(streams.total)[::-1][:100]
    for rank in (1, 10, 100):
        told[f"count of rank {rank}"] = float(np.median(largest[:, rank - 1]))
        truth[f"count of rank {rank}"] = int(ranked[rank - 1])
    return {
        name: {"told": told[name], "truth": truth[name], "ratio": told[name] / truth[name]}
        for name in told
    }


def _cosine(across, one, other):
    return float(across / math.sqrt(one * other))


def attack(rng, streams, rows, columns, candidates, guesses, top=20_000, ratio=19):
    """Everything, on one federation's tables."""
    threshold = np.sort(streams.total)[::-1][min(top, streams.keys.size) - 1]
    spec = SketchSpec(rows, columns, KEY, domain="pixels")
    sketches = tables(spec, streams)
    whole = merged(sketches)
    pool, is_true = with_decoys(rng, streams, threshold, ratio)
    enumerate_keys(rng, whole, streams, threshold, 1)  # compiles
    tier_1 = {
        kind: guess(rng, spec, whole.table, pool, is_true, keys)
        for kind, keys in guessed_keys(rng, KEY, guesses).items()
    }
    control = guess(rng, spec, whole.table, pool, is_true, [KEY])
    # Telling a right key from a wrong one takes no more than some frequent keys.
    start = time.process_time()
    for _ in range(200):
        hash_functions(spec)
        whole.estimate(pool[:100])
    second = (time.process_time() - start) / 200
    found = {
        "rows": rows,
        "columns": columns,
        "keys": int(streams.keys.size),
        "pixels": int(streams.total.sum()),
        "tier_0_enumeration": enumerate_keys(rng, whole, streams, threshold, candidates),
        "tier_0_prefix_tables": descend(
            SketchSpec(rows, columns, KEY), streams, min(top, streams.keys.size)
        ),
        "tier_1": tier_1,
        "right_key_as_control": control,
        "years_for_all_keys": 2.0**128 * second / YEAR,
        "tier_1_leaks": leaks(sketches, streams),
    }
    return found | {"tier_1_smallest_p_of_all_tests": smallest_p(found)}


def show(name, found):
    print(
        f"\n{name}: {found['pixels']:,} pixels, {found['keys']:,} distinct keys, three sites, "
        f"{found['rows']} x {found['columns']:,}"
    )
    e, d = found["tier_0_enumeration"], found["tier_0_prefix_tables"]
    print("  Tier 0, public seeds")
    print(
        f"    trying keys: recall {e['recall']:.4f} of {e['frequent_keys']:,} keys with count >= "
        f"{e['threshold']}; {e['ns_per_candidate']:.1f} ns each, so all 22^8 in "
        f"{e['core_minutes_for_all']:.0f} core-minutes (extrapolated from {e['tried']:,} tried)"
    )
    print(
        f"    false finds: {e['false_among_tried']} among those; {e['false_in_all']:,} expected in "
        f"all, at most {e['false_in_all_at_most']:,} (95 %)"
    )
    print(
        f"    prefix tables: recall {d['recall']:.4f} of the top {d['top']:,} in {d['cpu_s']:.1f} s"
    )
    print("  Tier 1, without the key")
    for kind, g in [*found["tier_1"].items(), ("the right key", found["right_key_as_control"])]:
        print(
            f"    {kind:14} {g['guesses']:3} guesses: recall {g['mean_recall']:.4f} (best "
            f"{g['best_recall']:.4f}, chance {g['chance_recall']:.4f}); z {g['z_finds']:+.2f}, "
            f"p {two_sided(g['z_finds']):.2g}; ranks z {g['z_ranks']:+.2f}"
        )
    print(
        f"    smallest p, corrected for the number of tests: "
        f"{found['tier_1_smallest_p_of_all_tests']:.2g}"
    )
    print(f"    all 2^128 keys, 100 estimates each: {found['years_for_all_keys']:.1g} core-years")
    print("  Tier 1 still tells")
    for what, leak in found["tier_1_leaks"].items():
        print(
            f"    {what:24} {leak['told']:>14,.4g}   truth {leak['truth']:>14,.4g}"
            f"   x{leak['ratio']:.3f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--quick", action="store_true", help="fewer candidates and guesses")
    options = parser.parse_args()
    rng = np.random.default_rng(2024)
    candidates, guesses = (1 << 24, 8) if options.quick else (1 << 29, 40)
    runs = {"made-up sites": attack(rng, made_up(rng), 16, 200_000, candidates, guesses)}
    small = attack(rng, made_up(rng), 10, 20_000, candidates // 8, guesses)
    runs["made-up sites, small tables"] = small
    if FIELDS.is_dir():
        runs["tumour fields"] = attack(rng, real_pixels(), 16, 200_000, candidates, guesses)
    if options.json:
        json.dump(runs, sys.stdout)
        print()
        return
    for name, found in runs.items():
        show(name, found)
    if not FIELDS.is_dir():
        print("\nNo tumour fields beside the checkout: made-up sites only.")


if __name__ == "__main__":
    main()
