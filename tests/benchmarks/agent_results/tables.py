"""Tables in Markdown out of computed figures. Numbers are copied, never typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Results = dict[str, dict]

COLUMNS = ("mean ± std", "median", "> 10 mm", "consensus", "prior")


def columns(figures: Sequence[Mapping]) -> list[str]:
    return [
        f"{mean_of(f['mean'] for f in figures):.2f} ± {mean_of(f['std'] for f in figures):.2f}",
        f"{mean_of(f['median'] for f in figures):.2f}",
        f"{mean_of(f['far'] for f in figures):.1%}",
        spread([f["consensus"] for f in figures]),
        f"{mean_of(f['prior'] for f in figures):.1f}",
    ]


def cost(results: Sequence[Mapping], what: str) -> str:
    seconds = [r["cpu_s"] for r in results]
    updates = results[0]["updates"]
    return f"\n{updates} gradient steps, {np.mean(seconds):.0f} processor seconds a {what}.\n"


def jobs_of(results: Results, prefix: str) -> list[dict]:
    return [result for job, result in results.items() if job.startswith(prefix)]


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")


def mean_of(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
