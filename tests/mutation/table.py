"""What became of the mutants, as a table and as a list of those that nobody noticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant
from tests.mutation.running import Outcome

Key = tuple[str, str, str]
ACCEPTED = Path(__file__).with_name("accepted.tsv")


@dataclass(frozen=True)
class Finding:
    """A mutant and whether the tests noticed it."""

    room: str
    module: str
    mutant: Mutant
    outcome: Outcome

    @property
    def key(self) -> Key:
        """What names it also after lines have moved."""
        return (self.module, self.mutant.operator, self.mutant.text)

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or never ended."""
        return self.outcome in ("killed", "timed out")

    def __str__(self) -> str:
        mutant = self.mutant
        return f"{self.outcome}: {self.module}:{mutant.line} {mutant.operator}: {mutant.text}"


def accepted() -> dict[Key, str]:
    """Changes that alter nothing observable -> the reason."""
    entries = {}
    for line in ACCEPTED.read_text().splitlines()[1:]:
        module, operator, text, reason = line.split("\t")
        entries[module, operator, text] = reason
    return entries


def write(findings: Sequence[Finding], folder: Path, *, seed: int, sample: int) -> dict[str, float]:
    """Write ``mutants.json`` and ``MUTANTS.md``; return each room's share that was noticed."""
    waived = accepted()
    rooms: dict[str, list[Finding]] = {}
    for finding in findings:
        rooms.setdefault(finding.room, []).append(finding)
    rows, shares = [], {}
    for room, tried in rooms.items():
        noticed = sum(finding.noticed for finding in tried)
        alike = sum(not f.noticed and f.key in waived for f in tried)
        share = noticed / max(1, len(tried) - alike)
        shares[room] = round(share, 4)
        rows.append(f"| {room} | {len(tried)} | {noticed} | {alike} | {share:.1%} |")
    open_ = [f for f in findings if not f.noticed and f.key not in waived]
    text = [
        "# Mutants",
        "",
        f"`make mutants`: up to {sample} changes a room, seed {seed}. A change that alters nothing",
        "observable has its reason in `tests/mutation/accepted.tsv` and does not count.",
        "",
        "| room | changes tried | noticed | alter nothing | share noticed |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Not noticed",
        "",
        *(
            [
                f"- `{f.module}:{f.mutant.line}` {f.mutant.operator}: `{f.mutant.text}`"
                for f in open_
            ]
            or ["None."]
        ),
        "",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MUTANTS.md").write_text("\n".join(text))
    report = {
        "seed": seed,
        "sample": sample,
        "share": shares,
        "survivors": [
            {"module": f.module, "line": f.mutant.line, "operator": f.mutant.operator,
             "text": f.mutant.text}
            for f in open_
        ],
    }  # fmt: skip
    (folder / "mutants.json").write_text(json.dumps(report, indent=1) + "\n")
    return shares
