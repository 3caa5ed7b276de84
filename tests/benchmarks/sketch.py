"""The count sketch against its peers, in one run and interleaved: `make bench-sketch`.

Every figure is CPU time per key, the median over repetitions in which all
implementations take turns, so that a busy machine slows them alike. Times with
several threads are the process's CPU time divided by the number of threads:
what the wall clock would show were every core free. Peers:

- ``numpy.add.at`` and ``torch.scatter_add_``: the same hash functions from our own
  compiled kernels, blocked alike, so that only the scatter differs; kind to them.
- ``numpy, hashing too``: the plain reference, all of it in numpy.
- ``naive numba``: key by key, row by row, straight into the int64 table.
- ``csvec``: the method of that package re-expressed here, for a stream in place of a
  dense vector: polynomial hashes modulo 2**61 - 1 in int64 for all rows at once, with
  their overflow, then float32 counters by ``torch.bincount`` with weights.

Prints what fell short of its target, with the ratio; never fails for slowness. The
floor beside it is this machine's: what a key that comes once costs at least, one
SipHash and one plain increment of a byte at a random cell of every row, its cells
found for nothing. Only streams that repeat themselves can go below it.
With ``--quick`` a stream is so short that clearing and folding the tables shows.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numba import njit, uint32

from common.sketching import CountSketch, SketchSpec, kernels, reference
from common.sketching.dictionary import KeyDictionary
from common.sketching.hashing import hash_functions

KEY = bytes(range(16))
PROFILE = Path(__file__).parents[1] / "vectors" / "sketch_profile.json"
SIZES = ((10, 20_000), (16, 200_000))
POOL = 1 << 24
U = np.uint64


def pixel_stream(rng, n):
    """Draws from the frozen pixel profile, over random base-22 keys, uint64[n]."""
    data = json.loads(PROFILE.read_text())
    rank = np.arange(1, data["distinct"] + 1)
    shape = (1 + data["offset"]) / (rank + data["offset"])
    counts = np.rint(data["top"] * shape ** data["exponent"]).astype(np.int64)
    keys = rng.choice(22**8, rank.size, replace=False, shuffle=False).astype(np.uint64)
    rng.shuffle(keys)
    draws = rng.integers(0, counts.sum(), n)
    return keys[np.searchsorted(np.cumsum(counts), draws, side="right")]


def streams(rng, n):
    return {
        "zipf": rng.zipf(1.1, n).astype(np.uint64),
        "uniform": rng.integers(0, 2**64, n, dtype=np.uint64),
        "pixel": pixel_stream(rng, n),
    }


@njit(nogil=True, error_model="numpy", boundscheck=False)
def _cells(mixed, out, a, b, cells):
    for j in range(mixed.size):
        out[j] = uint32((((a * mixed[j] + b) >> U(32)) * cells) >> U(32))


@njit(nogil=True, error_model="numpy", boundscheck=False)
def _naive(keys, mixed, table, a, b, cells):
    for j in range(keys.size):
        for r in range(table.shape[0]):
            cell = (((a[r] * mixed[j] + b[r]) >> U(32)) * cells) >> U(32)
            table[r, cell >> U(1)] += 1 - 2 * np.int64(cell & U(1))


@njit(nogil=True, error_model="numpy", boundscheck=False)
def _splitmix(keys, out, salt):
    for j in range(keys.size):
        x = keys[j] ^ salt
        x = (x ^ (x >> U(30))) * U(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U(27))) * U(0x94D049BB133111EB)
        out[j] = x ^ (x >> U(31))


@njit(nogil=True, error_model="numpy", boundscheck=False)
def _increments(counters, index):
    for j in range(index.size):
        counters[index[j]] += 1


class Peers:
    """The other implementations at one size; each call sketches ``keys`` into a table."""

    def __init__(self, rows, columns):
        self.spec = SketchSpec(rows, columns, KEY)
        self.f = hash_functions(self.spec)
        self.mixed = np.empty(32_768, np.uint64)
        self.index = np.empty(32_768, np.uint32)
        rng = np.random.default_rng(7)
        coefficients = rng.integers(0, 2**61 - 1, (rows, 6), dtype=np.int64)
        self.coefficients = torch.from_numpy(coefficients)

    def _blocks(self, keys):
        for start in range(0, keys.size, self.mixed.size):
            chunk = keys[start : start + self.mixed.size]
            mixed = self.mixed[: chunk.size]
            kernels.premix(chunk, mixed, self.f.k0, self.f.k1)
            for r in range(self.spec.rows):
                index = self.index[: chunk.size]
                _cells(mixed, index, self.f.a[r], self.f.b[r], self.f.cells)
                yield r, index

    def _fold(self, unsigned):
        return unsigned[:, 0::2] - unsigned[:, 1::2]

    def add_at(self, keys):
        table = np.zeros((self.spec.rows, 2 * self.spec.columns), np.int64)
        for r, index in self._blocks(keys):
            np.add.at(table[r], index, 1)
        return self._fold(table)

    def scatter_add(self, keys):
        table = torch.zeros((self.spec.rows, 2 * self.spec.columns), dtype=torch.int64)
        ones = torch.ones(self.mixed.size, dtype=torch.int64)
        for r, index in self._blocks(keys):
            where = torch.from_numpy(index.astype(np.int64))
            table[r].scatter_add_(0, where, ones[: index.size])
        return self._fold(table.numpy())

    def plain(self, keys):
        table = np.zeros((self.spec.rows, self.spec.columns), np.int64)
        for start in range(0, keys.size, 1 << 16):
            table += reference.table(self.spec, keys[start : start + (1 << 16)])
        return table

    def naive(self, keys):
        table = np.zeros((self.spec.rows, self.spec.columns), np.int64)
        mixed = np.empty_like(keys)
        kernels.premix(keys, mixed, self.f.k0, self.f.k1)
        _naive(keys, mixed, table, self.f.a, self.f.b, self.f.cells)
        return table

    def csvec(self, keys):
        prime = 2**61 - 1
        columns = self.spec.columns
        table = torch.zeros((self.spec.rows, columns), dtype=torch.float32)
        h = self.coefficients[:, :, None]
        for start in range(0, keys.size, 1 << 18):
            tokens = torch.from_numpy(keys[start : start + (1 << 18)].view(np.int64))[None, :]
            values = torch.ones(tokens.shape[1], dtype=torch.float32)
            signs = ((h[:, 2] * tokens + h[:, 3]) * tokens + h[:, 4]) * tokens + h[:, 5]
            signs = ((signs % prime % 2) * 2 - 1).float()
            buckets = (h[:, 0] * tokens + h[:, 1]) % prime % columns
            for r in range(self.spec.rows):
                weights = signs[r] * values
                table[r] += torch.bincount(buckets[r], weights=weights, minlength=columns)
        return table

    def ours(self, keys, threads=1):
        sketch = CountSketch(self.spec)
        sketch.update(keys, threads=threads)
        return sketch.table

    def exact_first(self, keys):
        """Count as the pixel counter does: exactly while there is room."""
        sketch, exact = CountSketch(self.spec), KeyDictionary(1 << 19, self.f.k0)
        while (done := exact.count(keys)) < keys.size:
            keys = keys[done:]
            sketch.update(*exact.items())
            exact.clear()
        sketch.update(*exact.items())
        return sketch.table


def implementations(peers, n):
    """name: (function, threads, keys of the stream it takes); slow ones take fewer."""
    return {
        "cairn": (peers.ours, 1, n),
        "cairn, 2 threads": (lambda keys: peers.ours(keys, threads=2), 2, n),
        "cairn, exact first": (peers.exact_first, 1, n),
        "numpy.add.at": (peers.add_at, 1, n // 2),
        "torch.scatter_add_": (peers.scatter_add, 1, n // 2),
        "naive numba": (peers.naive, 1, n // 2),
        "numpy, hashing too": (peers.plain, 1, n // 16),
        "csvec": (peers.csvec, 1, n // 8),
    }


def cpu_seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def compare(rng, n, repetitions):
    """All implementations on all streams; asserts first that the tables are the same."""
    runs = []
    for rows, columns in SIZES:
        peers = Peers(rows, columns)
        entries = implementations(peers, n)
        for stream, keys in streams(rng, n).items():
            expected = peers.ours(keys[: n // 16])
            for name, (function, _, _) in entries.items():
                table = function(keys[: n // 16])  # compiles, too
                assert name == "csvec" or np.array_equal(table, expected), name
            times = {name: [] for name in entries}
            for _ in range(repetitions):
                for name, (function, _, size) in entries.items():
                    times[name].append(cpu_seconds(function, keys[:size]))
            for name, (_, threads, size) in entries.items():
                cost = float(np.median(times[name])) / threads / size * 1e9
                run = {
                    "implementation": "cairn" if threads == 2 else name,
                    "stream": stream,
                    "rows": rows,
                    "columns": columns,
                    "threads": threads,
                    "ns_per_key": round(cost, 3),
                }
                runs.append(run)
    return runs


def premix_cost(rng, repetitions):
    """What keying costs: SipHash-2-4 against an unkeyed 64-bit mixer, ns per key."""
    keys = rng.integers(0, 2**64, 1 << 15, dtype=np.uint64)
    out = np.empty_like(keys)
    f = hash_functions(SketchSpec(1, 1, KEY))
    passes = 200

    def keyed():
        for _ in range(passes):
            kernels.premix(keys, out, f.k0, f.k1)

    def unkeyed():
        for _ in range(passes):
            _splitmix(keys, out, f.k0)

    keyed(), unkeyed()
    pairs = [(cpu_seconds(keyed), cpu_seconds(unkeyed)) for _ in range(repetitions)]
    per_key = np.median(np.array(pairs), axis=0) / passes / keys.size * 1e9
    return {"siphash_ns": round(float(per_key[0]), 3), "splitmix_ns": round(float(per_key[1]), 3)}


def floor_cost(rng, repetitions, premix):
    """The ns per key below which no stream of single keys can go here, at every size."""
    passes, floors = 40, []
    for rows, columns in SIZES:
        counters = np.zeros(2 * columns, np.uint8)
        index = rng.integers(0, 2 * columns, 1 << 15).astype(np.uint32)

        def increments(counters=counters, index=index):
            for _ in range(passes):
                _increments(counters, index)

        increments()
        times = [cpu_seconds(increments) for _ in range(repetitions)]
        one = float(np.median(times)) / passes / index.size * 1e9
        floor = premix["siphash_ns"] + rows * one
        floors.append(
            {
                "rows": rows,
                "columns": columns,
                "increment_ns": round(one, 3),
                "ns_per_key": round(floor, 3),
            }
        )
    return floors


def billion(rng, total):
    """``total`` pixel keys in one stream at 10 x 20,000: a pool of draws, over and over."""
    pool = pixel_stream(rng, min(POOL, total))
    repeats, rest = divmod(total, pool.size)
    chunks = [pool] * repeats + ([pool[:rest]] if rest else [])
    spec = SketchSpec(10, 20_000, KEY)
    sketch = CountSketch(spec)
    wall, cpu = time.perf_counter(), time.process_time()
    assert sketch.update_stream(chunks) == total
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    once, part = CountSketch(spec), CountSketch(spec)
    once.update(pool)
    part.update(pool[:rest])
    assert np.array_equal(sketch.table, repeats * once.table + part.table)
    return {"keys": total, "cpu_s": round(cpu, 3), "wall_s": round(wall, 3)}


def targets(runs, premix, long_run):
    """(what, measured, target, met) of every promise."""
    cost = {
        (r["implementation"], r["stream"], r["columns"], r["threads"]): r["ns_per_key"]
        for r in runs
    }
    rows = []
    for stream in ("zipf", "uniform", "pixel"):
        ours = cost["cairn", stream, 20_000, 1]
        for peer, least in (("numpy.add.at", 5), ("csvec", 50)):
            ratio = cost[peer, stream, 20_000, 1] / ours
            rows.append((f"{peer} / ours, {stream}, 10x20,000", ratio, least, ratio >= least))
        for _, columns in SIZES:
            ratio = cost["cairn", stream, columns, 1] / cost["cairn", stream, columns, 2]
            what = f"two threads, speed-up in CPU terms, {stream}, {columns:,} columns"
            rows.append((what, ratio, 1.7, ratio >= 1.7))
    exact = cost["cairn, exact first", "pixel", 200_000, 1]
    rows.append(("exact first, pixel, 16x200,000, ns per key", exact, 6, exact <= 6))
    extra = premix["siphash_ns"] - premix["splitmix_ns"]
    rows.append(("keying the premix, ns per key more", extra, 1.5, extra <= 1.5))
    scaled = long_run["cpu_s"] * 1e9 / long_run["keys"]
    rows.append(("1e9 keys at 10x20,000, CPU seconds", scaled, 6, scaled < 6))
    return rows


def show(runs, premix, floors, long_run):
    for rows, columns in SIZES:
        print(f"\n{rows} x {columns:,}: CPU ns per key (and times ours)")
        here = [r for r in runs if r["columns"] == columns]
        ours = {
            r["stream"]: r["ns_per_key"]
            for r in here
            if r["implementation"] == "cairn" and r["threads"] == 1
        }
        print(f"{'':28}" + "".join(f"{stream:>20}" for stream in ours))
        for name, threads in dict.fromkeys((r["implementation"], r["threads"]) for r in here):
            costs = [r for r in here if (r["implementation"], r["threads"]) == (name, threads)]
            label = f"{name}, {threads} threads" if threads > 1 else name
            columns_ = [
                f"{r['ns_per_key']:>11.2f} ({r['ns_per_key'] / ours[r['stream']]:5.1f}x)"
                for r in costs
            ]
            print(f"{label:28}" + "".join(columns_))
    print(f"\npremix: {premix['siphash_ns']} ns keyed, {premix['splitmix_ns']} ns unkeyed")
    for floor in floors:
        print(
            f"floor for keys that do not repeat, {floor['rows']}x{floor['columns']:,}: "
            f"{floor['ns_per_key']} ns ({floor['increment_ns']} ns per increment)"
        )
    print(f"{long_run['keys']:,} keys: {long_run['cpu_s']} CPU s, {long_run['wall_s']} s wall\n")
    for what, value, target, met in targets(runs, premix, long_run):
        print(f"{'met   ' if met else 'SHORT '} {what}: {value:.2f} (target {target})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="shorter streams, 1e8 keys at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(2024)
    n, repetitions = (1 << 20, 3) if options.quick else (1 << 23, 5)
    runs = compare(rng, n, repetitions)
    premix = premix_cost(rng, repetitions)
    floors = floor_cost(rng, repetitions, premix)
    long_run = billion(rng, 10**8 if options.quick else 10**9)
    if options.json:
        met = [
            {"what": what, "measured": round(value, 3), "target": target, "met": bool(ok)}
            for what, value, target, ok in targets(runs, premix, long_run)
        ]
        document = {
            "runs": runs,
            "billion": long_run,
            "premix": premix,
            "floors": floors,
            "targets": met,
        }
        json.dump(document, sys.stdout)
        print()
    else:
        show(runs, premix, floors, long_run)


if __name__ == "__main__":
    main()
