"""The report: one self-contained page, and the same in a few numbers for scripts.

No script, no font and no picture is fetched; the page opens offline and
prints. Every text is escaped by the template and freed of control characters.
Figures of rounds come from the journal; held-out errors, ledger verdicts and
pictures only from ``ReportExtras``, and are said to be missing when they are.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from aggregator.report import curves, figures, text
from aggregator.report.extras import LedgerVerdict, ReportExtras
from aggregator.report.ink import SITES
from aggregator.report.landmarks import ErrorTable, landmark_tables
from aggregator.report.run import PART_WORDS, TRAINED, RoundSummary, RunState, rounds_of
from common.page.templates import Filters
from common.page.templates import render as render_template
from common.schedule import PHASES
from common.wire.records import Part

_TONES = {"COMPLETED": "good", "DEGRADED": "warn", "FAILED": "bad", "STOPPED": "warn", "": "open"}
_MAX_REASONS = 8
_OWN_CASES: dict[Part, str] = {
    "held-out": "on the cases that it holds out",
    "training": "on the cases that it trains on",
}
_FILTERS: Filters = {
    "mm": text.mm,
    "count": text.count,
    "percent": text.percent,
    "moment": text.moment,
}


@dataclass(frozen=True)
class _Banner:
    word: str
    tone: str
    sentence: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Number:
    name: str
    value: str
    beside: str


@dataclass(frozen=True)
class _Cell:
    text: str
    tone: str = ""


@dataclass(frozen=True)
class _TableRow:
    name: str
    cells: tuple[_Cell, ...] | tuple[str, ...]
    whole: str = ""
    total: int = 0


@dataclass(frozen=True)
class _LedgerRow:
    ledger: LedgerVerdict
    arrived: int

    @property
    def more(self) -> bool:
        """True if more arrived than the ledger says has left."""
        return self.arrived > self.ledger.bytes_out


def write_report(path: Path, state: RunState, extras: ReportExtras | None = None) -> None:
    """Write the page; the file appears whole or not at all.

    The same state and extras give the same bytes on the same installation.
    """
    page = render(state, extras if extras is not None else ReportExtras())
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def render(state: RunState, extras: ReportExtras) -> str:
    """Return the page as a string."""
    return render_template("aggregator.report", "report.html.j2", _context(state, extras), _FILTERS)


def summary_json(state: RunState, extras: ReportExtras | None = None) -> dict[str, object]:
    """Return the run in a few numbers, for scripts.

    Errors (mm) are the headline's: those on held-out cases when there are any, otherwise
    on training cases; ``part`` says which. The sites' own evaluations stand under
    ``parts``. Unknown ones are None. ``bytes_out`` has one
    entry per round of the journal, the agreement on weights and the final
    evaluation included.
    """
    extras = extras if extras is not None else ReportExtras()
    tables = landmark_tables(state, extras)
    headline = tables[0] if tables else None
    rows, columns = extras.sketch_shape or (None, None)
    last = [r for r in state.rounds if r.finished_at is not None]
    local = extras.held_out.local if extras.held_out else {}
    return {
        "sites": len(state.sites),
        "rounds": state.trained,
        "seconds": round(state.elapsed_s, 3),
        "error_mm": {
            "part": headline.part if headline else None,
            **_mean_errors(headline),
            "local_only": {site: _rounded(value) for site, value in local.items()},
            "parts": {t.part: _mean_errors(t) for t in landmark_tables(state, ReportExtras())},
        },
        "bytes_out": {
            site: [part.bytes if (part := r.of(site)) else 0 for r in state.rounds]
            for site in state.sites
        },
        "sketch": {
            "rows": rows,
            "columns": columns,
            "total": last[-1].sketch_total if last else 0,
            "alike": {site: share / 1000 for site, share in _alike(state)},
        },
        "ledgers": {
            ledger.site: {"records": ledger.records, "verdict": ledger.verdict}
            for ledger in extras.ledgers
        },
        "model_sha256": state.model_sha256 or None,
    }


def _mean_errors(table: ErrorTable | None) -> dict[str, float | None]:
    mean = None if table is None else table.mean
    return {
        "start": _rounded(mean.start if mean else None),
        "constant_prior": _rounded(mean.prior if mean else None),
        "federated": _rounded(mean.final if mean else None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _context(state: RunState, extras: ReportExtras) -> dict[str, object]:
    tables = landmark_tables(state, extras)
    arrow = extras.trajectory
    return {
        "state": state,
        "extras": extras,
        "colours": {site: f"--site-{n}" for n, site in enumerate(state.sites[: len(SITES)])},
        "banner": _banner(state, extras),
        "numbers": _numbers(state, extras, tables[0] if tables else None),
        "landmarks": tables,
        "learning_caption": _learning_caption(state, extras),
        "sketch_caption": _sketch_caption(state, extras),
        "relays": _relays(state),
        "alike": [(site, f"{share / 1000:.2f}") for site, share in _alike(state)],
        "trains": state.kind in TRAINED,
        "bytes_rows": [_bytes_row(state, r) for r in state.rounds],
        "time_rows": [_time_row(state, r) for r in state.rounds],
        "total_bytes": sum(state.site(site).bytes_out for site in state.sites),
        "any_rejected": any(i.kind == "rejected" for i in state.incidents),
        "ledgers": [_LedgerRow(v, state.site(v.site).bytes_out) for v in extras.ledgers],
        "levels": figures.level_colours(arrow) if arrow else (),
        "facts": _facts(state, extras),
        "drawings": {
            "learning": curves.learning(state, extras.held_out),
            "sketch": curves.sketch(state),
            "bytes": figures.bytes_out(state),
            "timeline": figures.timeline(state),
            "trajectory": figures.trajectory(arrow) if arrow else None,
        },
    }


def _relays(state: RunState) -> list[tuple[str, list[str]]]:
    """Return the sites whose answers came by each relay, by its name."""
    pairs = {(s.relay, s.site) for r in state.rounds for s in r.sites if s.relay and s.bytes}
    return [
        (relay, sorted(site for by, site in pairs if by == relay))
        for relay in sorted({relay for relay, _ in pairs})
    ]


def _banner(state: RunState, extras: ReportExtras) -> _Banner:
    reasons = list(state.why(_MAX_REASONS))
    reasons += [
        f"The ledger of {v.site} does not hold: {v.verdict}" for v in extras.ledgers if not v.intact
    ]
    if not state.run:
        return _Banner("NOT BEGUN", "open", "The journal of this run is empty.", ())
    done = f"{state.trained} of {state.planned_rounds} {rounds_of(state)}"
    outcome = "model" if state.kind in TRAINED else "outcome"
    sentence = {
        "COMPLETED": f"{done}, every site in every round.",
        "DEGRADED": f"{done}. The {outcome} counts, but not every site is in every round.",
        "FAILED": f"{done}. The run did not reach its end.",
        "STOPPED": f"{done}. The run was stopped before its end.",
        "": f"{done} so far. This page shows a run that has not finished.",
    }[state.verdict]
    if state.waiting is not None:
        sentence += f" It is {state.waiting.says}."
    tone = _TONES[state.verdict]
    if state.verdict == "COMPLETED" and state.incidents:
        sentence, tone = f"{done}, but not every site in every round.", "warn"
    if state.reason and (state.verdict in ("FAILED", "STOPPED") or not state.incidents):
        sentence += f" The aggregator says: {state.reason}."
    bad_ledger = any(not v.intact for v in extras.ledgers)
    tone = "bad" if bad_ledger else tone
    return _Banner(state.verdict or "IN PROGRESS", tone, sentence, tuple(reasons))


def _numbers(
    state: RunState, extras: ReportExtras, errors: ErrorTable | None
) -> tuple[_Number, ...]:
    if not state.run:
        return ()
    numbers, unit = [], state.unit
    if errors is not None:
        mean = errors.mean
        context = (
            f"from {text.mm(mean.start)} {unit} at the start; constant prior {text.mm(mean.prior)}"
        )
        numbers.append(
            _Number(
                f"federated, mean error, {PART_WORDS[errors.part]}",
                f"{text.mm(mean.final)} {unit}",
                f"{context} {unit}",
            )
        )
    if extras.held_out and (local := extras.held_out.local):
        best, worst = min(local.values()), max(local.values())
        context = f"the best site; the worst {text.mm(worst)} {unit}"
        numbers.append(
            _Number("a site alone, mean error, held out", f"{text.mm(best)} {unit}", context)
        )
    sites = f"{len(state.sites)} site{'s' * (len(state.sites) != 1)}, quorum {state.quorum}"
    duration = text.duration(state.elapsed_s)
    numbers.append(
        _Number(
            rounds_of(state), f"{state.trained} of {state.planned_rounds}", f"{sites}; {duration}"
        )
    )
    out = sum(state.site(site).bytes_out for site in state.sites)
    each = f"{text.size(out // max(1, len(state.sites)))} per site"
    numbers.append(_Number("out of the sites", text.size(out), each))
    if extras.ledgers:
        intact = sum(v.intact for v in extras.ledgers)
        value = f"{intact} of {len(extras.ledgers)}"
        numbers.append(_Number("ledgers intact", value, "verified offline"))
    return tuple(numbers)


def _learning_caption(state: RunState, extras: ReportExtras) -> str:
    parts = []
    if extras.held_out is not None:
        parts.append(
            "All held-out subjects: thick, the federated model; thin or a dot, each site "
            "training alone; dashed, always answering with the landmark’s mean position."
        )
    if state.parts:
        which = " and ".join(_OWN_CASES[part] for part in state.parts)
        parts.append(
            f"Each site’s own evaluation, {which}: of the weights that a round started from; "
            "thick, the mean over the sites that answered, weighted by searches; dashed, always "
            "answering with the mean position over the training cases."
        )
    return " ".join(parts)


def _alike(state: RunState) -> tuple[tuple[str, int], ...]:
    """Each site and how alike its experience is, of the last round that says so."""
    return next((r.alike for r in reversed(state.rounds) if r.alike), ())


def _sketch_caption(state: RunState, extras: ReportExtras) -> str:
    shape = ""
    if extras.sketch_shape is not None:
        rows, columns = extras.sketch_shape
        shape = f" of {rows} rows × {text.count(columns)} columns"
    if state.kind not in TRAINED:
        return (
            f"The merged count sketch{shape} of all sites’ quantised pixels together, which only "
            "the sites can query. Cells in use tell how much of it the pixels have reached; keys, "
            "how many were counted."
        )
    return (
        f"The merged count sketch{shape}, all sites’ experience together. Cells in use tell how "
        "much of it the experience has reached; keys, how much was counted."
    )


def _name(r: RoundSummary) -> str:
    names = {"begin": f"{r.round}, agreement", "evaluate": f"{r.round}, evaluation"}
    names |= {phase: f"{r.round}, {phase}" for phase in PHASES if phase not in (*names, "train")}
    again = f" (attempt {r.attempts})" if r.attempts > 1 else ""
    return names.get(r.phase, str(r.round)) + again


def _bytes_row(state: RunState, r: RoundSummary) -> _TableRow:
    sizes = [part.bytes if (part := r.of(site)) else None for site in state.sites]
    cells = tuple("–" if size is None else text.count(size) for size in sizes)
    return _TableRow(_name(r), cells, total=sum(size or 0 for size in sizes))


def _time_row(state: RunState, r: RoundSummary) -> _TableRow:
    cells = []
    for site in state.sites:
        part = r.of(site)
        if part is None:
            cells.append(_Cell("–"))
        elif part.status in ("late", "rejected", "failed"):
            cells.append(_Cell(part.status, "is-warn" if part.status == "late" else "is-bad"))
        elif part.status != "sent":
            cells.append(_Cell("…"))
        elif r.seconds is None:
            cells.append(_Cell(f"{part.train_s:.1f} / …"))
        else:
            waited = max(0.0, r.seconds - part.seconds)
            cells.append(_Cell(f"{part.train_s:.1f} / {waited:.1f}"))
    whole = "…" if r.seconds is None else f"{r.seconds:.1f}"
    return _TableRow(_name(r), tuple(cells), whole=whole)


def _facts(state: RunState, extras: ReportExtras) -> list[tuple[str, str, bool]]:
    software: Mapping[str, str] = extras.software or _installed()
    outcome = "model" if state.kind in TRAINED else "outcome"
    facts = [
        ("plan", state.plan_name, False),
        ("plan fingerprint", state.plan_fingerprint, True),
        (f"{outcome} SHA-256", state.model_sha256, True),
        ("run", state.run, False),
        ("federation", state.federation, False),
        ("sites", ", ".join(state.sites), False),
        ("began", text.moment(state.started_at) if state.started_at else "", False),
        ("last event", text.moment(state.updated_at) if state.updated_at else "", False),
        ("seeds", extras.seeds, False),
        ("machine", extras.machine, False),
        ("command", extras.command, True),
        ("software", ", ".join(f"{name} {v}" for name, v in software.items()), False),
    ]
    return [fact for fact in facts if fact[1]]


def _installed() -> dict[str, str]:
    """Versions of what computed the figures on this machine."""
    versions = {"Python": platform.python_version()}
    for name in ("cairn-fl", "flwr", "numpy", "matplotlib"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
