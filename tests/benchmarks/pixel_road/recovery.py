"""What sites find again in merged tables, and what their gate lets through.

All 35 bands; three sites; judged against exact counts that no site has. The gate is tried
with several margins (``ReleaseRule.margin``).
"""

import time
from dataclasses import replace
from functools import lru_cache

import numpy as np

from common.sketching.heavy_hitters import RankedKeys
from common.sketching.peeling import estimate_error, row_error
from site_client.pixels.release import ReleaseRule, gate, present_at
from tests.benchmarks.pixel_road.federation import TOP, encode, federate, fit, plan_of, pool
from tests.benchmarks.pixel_road.fields import GRAINS, SITES, read_fields

CODECS = ("reduced", "all-bands")
FLOOR = 5  # pixels; keys are looked for down to there where recall is measured
MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0)  # standard errors


def jobs(seeds, per_site):
    return _all(recover, seeds, per_site)


def gate_jobs(seeds, per_site):
    return _all(let_through, seeds, per_site)


def _all(study, seeds, per_site):
    for grain in GRAINS:
        for codec in CODECS:
            for seed in seeds:

                def job(codec=codec, grain=grain, seed=seed):
                    return study(grain, codec, seed, per_site)

                yield f"{codec}/{grain}/seed{seed}", job


@lru_cache(maxsize=1)
def exact(grain, codec_name, per_site):
    """(codec, keys by falling count, their counts, at how many sites each is present)."""
    fields = read_fields(grain, per_site=per_site)
    asked = plan_of(fields, codec_name)
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
    return codec, keys, counts, present


def recover(grain, codec_name, seed, per_site):
    """Share of the most frequent keys that merged tables give back."""
    codec, keys, counts, _ = exact(grain, codec_name, per_site)
    fields = read_fields(grain, per_site=per_site)
    asked = plan_of(fields, codec_name)
    began = time.process_time()
    tables = federate(fields, codec, asked, seed)
    counted = time.process_time()
    found = tables.views.recover(TOP, floor=FLOOR).keys
    searched = time.process_time()
    last = counts[min(TOP, counts.size) - 1]
    ladder = asked.ladder
    return {
        "bands": len(fields[0].bands),
        "fields": len(fields),
        "pixels": int(sum(field.pixels for field in fields)),
        "foreground": int(counts.sum()),
        "rows": asked.rows,
        "columns": asked.columns,
        "tables": len(asked.tables),
        "ladder": list(ladder),
        "radix": asked.digits[1],
        "digits": asked.digits[0],
        "table_bytes": int(8 * (len(asked.tables) * asked.rows * asked.columns + asked.prefixes)),
        "distinct_keys": int(keys.size),
        "top": TOP,
        "coverage_top": float(counts[:TOP].sum() / counts.sum()),
        "count_at_top": int(last),
        "recall_top": float(np.isin(keys[:TOP], found).mean()),
        "frequent_as_the_last": float(np.isin(found, keys[counts >= last]).mean()),
        "cpu_s": {
            "count": round(counted - began, 2),
            "recover": round(searched - counted, 2),
        },
    }


def let_through(grain, codec_name, seed, per_site):
    """What the gate names, with several margins; for the rule's own, what ``release`` names."""
    codec, keys, counts, present = exact(grain, codec_name, per_site)
    fields = read_fields(grain, per_site=per_site)
    asked = plan_of(fields, codec_name)
    rule = ReleaseRule(asked.key_pixels, asked.key_sites)
    truth = Truth(keys, counts, present, asked)
    tables = federate(fields, codec, asked, seed)
    began = time.process_time()
    peeled = tables.views.search(TOP, floor=rule.pixels)
    found = RankedKeys(peeled.found.keys[:TOP], peeled.found.counts[:TOP])
    row = row_error(peeled.rest)
    error = estimate_error(row, asked.rows)
    sites = present_at(tables.presence, found.keys)
    margins = []
    for margin in MARGINS:
        passed = gate(found, sites, row, error, replace(rule, margin=margin))
        margins.append({"margin": margin, "threshold": passed.threshold} | truth.judge(passed))
    return {
        "rule": {"pixels": rule.pixels, "sites": rule.sites, "present_from": asked.presence_floor},
        "allowed_keys": int(truth.allowed.size),
        "standard_error": error,
        "margins": margins,
        "cpu_s": {"release": round(time.process_time() - began, 2)},
    }


class Truth:
    """Exact counts, and what a gate that knew them would let through."""

    def __init__(self, keys, counts, present, asked):
        self.order = np.argsort(keys)
        self.keys, self.counts, self.present, self.asked = keys, counts, present, asked
        self.allowed = keys[(counts >= asked.key_pixels) & (present >= asked.key_sites)][:TOP]

    def judge(self, named):
        place = self.order[np.searchsorted(self.keys[self.order], named.keys)]
        assert np.array_equal(self.keys[place], named.keys), "a key was named that never occurred"
        true, sites = self.counts[place], self.present[place]
        error = np.abs(named.counts - true)
        return {
            "keys": int(true.size),
            "coverage": float(true.sum() / self.counts.sum()),
            "of_allowed": float(np.isin(self.allowed, named.keys).mean()),
            "below_pixels": int(np.count_nonzero(true < self.asked.key_pixels)),
            "below_sites": int(np.count_nonzero(sites < self.asked.key_sites)),
            "not_allowed": int(np.count_nonzero(~np.isin(named.keys, self.allowed))),
            "least": int(true.min()) if true.size else None,
            "error_p50": float(np.median(error)),
            "error_p99": float(np.quantile(error, 0.99)),
            "error_max": float(error.max()),
        }
