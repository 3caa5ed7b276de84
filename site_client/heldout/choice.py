"""The rule by which subjects are held out: from names, a memory and the site's own setting.

Pure: no file, no clock, no chance but the memory's seed. Who was in a part stays in it,
whatever the setting says now; only who is new is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from common.cli import counted
from common.errors import InputDataError
from common.policy import HeldOut
from site_client.heldout.memory import Memory
from site_client.imaging.subjects import SubjectKey

FEWEST: Final = 4
"""With fewer subjects nobody is drawn."""
SET_IN: Final = "policy.toml, [held_out]"


@dataclass(frozen=True)
class Division:
    """A site's labelled cases in two parts.

    Attributes:
        held_out: names of the cases that are not trained on.
        cases: how many there are in all.
        subjects, held_out_subjects: how many subjects there are, and how many of them are
            held out.
        memory: with everybody in it.
        why: how it came to be, and where it is set.
    """

    held_out: frozenset[str]
    cases: int
    subjects: int
    held_out_subjects: int
    memory: Memory
    why: str

    @property
    def says(self) -> str:
        """In one line."""
        of = f"of {counted(self.subjects, 'subject')}"
        if not self.held_out:
            return f"none {of}: {self.why}"
        images = f"{len(self.held_out)} of {counted(self.cases, 'image')}"
        return f"{self.held_out_subjects} {of} ({images}): {self.why}"

    def as_dict(self) -> dict[str, object]:
        """For ``--json``; no name is in it."""
        return {
            "subjects": self.subjects,
            "held_out_subjects": self.held_out_subjects,
            "images": self.cases,
            "held_out_images": len(self.held_out),
            "says": self.says,
        }


def divide(names: Sequence[str], setting: HeldOut, least: int, memory: Memory) -> Division:
    """Divide the labelled cases of a site.

    Args:
        names: of the cases, in any order.
        setting: the site's own.
        least: images that any figure has to rest on (``floors.images``); so many subjects
            are drawn at least.
        memory: who is in a part already.

    Raises:
        InputDataError: the listed subjects cannot be held out, nobody would be left to train
            on, or a subject has images in both parts.
    """
    cases = SubjectKey(setting.subject, "held_out.subject").group(sorted(names))
    held_out, training = _recalled(cases, memory)
    new = sorted(set(cases) - held_out - training, key=lambda s: (memory.number(s), s))
    if setting.subjects:
        _check_listed(setting.subjects, cases, training)
        chosen = set(setting.subjects) & set(new)
    else:
        chosen = set(new[: _count(new, len(held_out), len(training), setting, least, memory)])
    before = len(held_out - set(setting.subjects))
    why = _why(setting, len(cases), before, len(training), least)
    held_out |= chosen
    if cases and held_out == set(cases):
        raise InputDataError(
            "every subject is held out",
            field="held_out",
            expected="some left to train on",
            got=f"all {len(cases)} held out",
            advice=f"Add scans, or list fewer in {SET_IN}",
        )
    after = memory
    for subject, case_names in cases.items():
        after = after.add(subject, case_names, held_out=subject in held_out)
    return Division(
        held_out=frozenset(case for subject in held_out for case in cases[subject]),
        cases=sum(len(case_names) for case_names in cases.values()),
        subjects=len(cases),
        held_out_subjects=len(held_out),
        memory=after,
        why=why,
    )


def _recalled(cases: Mapping[str, Sequence[str]], memory: Memory) -> tuple[set[str], set[str]]:
    """Return the subjects that were held out, and those that were trained on."""
    held_out: set[str] = set()
    training: set[str] = set()
    for subject, case_names in cases.items():
        parts = memory.recall(subject, case_names)
        if len(parts) > 1:
            raise InputDataError(
                "a subject has images that were trained on and images that were held out",
                field=subject,
                expected="all of them in one part",
                got=f"both, among {counted(len(case_names), 'image')}",
                advice="Were subjects told apart by another rule before? Restore "
                f"`subject` in {SET_IN}; or move these images away",
            )
        if parts:
            (held_out if "held-out" in parts else training).add(subject)
    return held_out, training


def _check_listed(
    listed: Sequence[str], cases: Mapping[str, Sequence[str]], training: set[str]
) -> None:
    """Refuse a list that cannot be kept: a name misspelt would be trained on for good."""
    unknown = sorted(set(listed) - set(cases))
    if unknown:
        raise InputDataError(
            "a subject is listed as held out and is not there",
            field="held_out.subjects",
            expected="subjects that have a labelled image in the data folder",
            got=", ".join(unknown),
            advice=f"Correct it in {SET_IN}; nothing is trained on until then",
        )
    trained = sorted(set(listed) & training)
    if trained:
        raise InputDataError(
            "a subject is listed as held out and was trained on before",
            field="held_out.subjects",
            expected="subjects that were never trained on",
            got=", ".join(trained),
            advice=f"Take it off the list in {SET_IN}: a model may know it",
        )


def _count(
    new: Sequence[str],
    held_out: int,
    training: int,
    setting: HeldOut,
    least: int,
    memory: Memory,
) -> int:
    """Return how many of the new subjects are held out.

    The first draw meets the share as nearly as it can. Later ones are drawn one by one,
    each by its own number, so that it does not matter who comes with whom.
    """
    total = len(new) + held_out + training
    if setting.share == 0 or total < fewest(least):
        return 0
    if memory.empty:
        drawn = round(setting.share * total)
    else:
        drawn = sum(memory.number(subject) < setting.share for subject in new)
    to_train = max(0, least - training)
    return max(0, min(max(drawn, least - held_out), len(new) - to_train))


def fewest(least: int) -> int:
    """Return with how few subjects somebody is held out: both parts need ``least``."""
    return max(FEWEST, 2 * least)


def _why(setting: HeldOut, subjects: int, before: int, training: int, least: int) -> str:
    """Say where it is set, and what keeps the setting from counting."""
    if setting.subjects:
        why = f"listed in {SET_IN} subjects"
    else:
        why = f"{SET_IN} share = {setting.share:g}"
        if setting.share and subjects < fewest(least):
            why = f"nobody is drawn from fewer than {fewest(least)} ({why})"
        elif setting.share and training == subjects:
            why = f"all were trained on before, and only who is new is drawn ({why})"
    if before and (setting.subjects or setting.share == 0):
        why += f"; {before} of them since an earlier setting, for good"
    return why
