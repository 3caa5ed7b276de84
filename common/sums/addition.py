"""One round's sum: which sites it is of, what they sent together, and the sum of their tags.

Added by the aggregator, which cannot make a tag; carried to every site beside its order;
believed by a site only after ``verify_sum``. A sum may hold several kinds of record, each
with a set of its own. Sums of different sites add up to the sum of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import sha256_hex
from common.crypto.keyed import FederationKey
from common.errors import InternalError, RefusedError
from common.settings import describe_validation
from common.sums.chain import tag_context
from common.sums.summand import COUNTS, I64, Summand, summand_of
from common.sums.tags import add_tags, holds
from common.wire.envelope import Envelope, pack, unpack
from common.wire.records import Count, RunName, SiteName, Tag

LARGEST: Final = 2**62
"""What no coordinate of a sum may reach: beyond it a sum of int64 could wrap unseen."""
MOST_COUNTED: Final = 2**53
"""What no count of a sum may reach: JSON holds smaller ones exactly."""
MOST_SITES: Final = 1000

RecordType = Annotated[str, Field(pattern=r"^[A-Za-z]{1,32}$")]


@dataclass(frozen=True, eq=False)
class Group:
    """The records of one type in a sum.

    Attributes:
        members: sites in order of name, each once.
        summand: their vectors' sum.
        tag: their tags' sum.
    """

    members: tuple[str, ...]
    summand: Summand
    tag: int


@dataclass(frozen=True, eq=False)
class Sum:
    """The outcome of a round.

    Attributes:
        run, round: whose.
        groups: by record type.
    """

    run: str
    round: int
    groups: Mapping[str, Group]

    def group(self, record_type: str) -> Group:
        """Return the records of one type.

        Raises:
            RefusedError: there are none in this sum.
        """
        if record_type not in self.groups:
            raise _bad_sum(record_type, "present", "nothing")
        return self.groups[record_type]


class _GroupHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    members: Annotated[
        tuple[SiteName, ...], Field(min_length=1, max_length=MOST_SITES, strict=False)
    ]
    counts: dict[str, Count]
    tag: Tag


class _SumHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    message: Literal["Sum"] = "Sum"
    run: RunName
    round: Count
    groups: Annotated[dict[RecordType, _GroupHeader], Field(min_length=1)]


def add_records(run: str, round_: int, answers: Mapping[str, Iterable[Envelope]]) -> Sum:
    """Return the sum of what sites sent in a round.

    Args:
        run: of the records.
        round_: of the records.
        answers: the summed records of every site.

    Raises:
        RefusedError, InternalError: as ``Addition``.
    """
    addition = Addition(run, round_)
    for site, envelopes in sorted(answers.items()):
        for envelope in envelopes:
            addition.add(site, envelope)
    return addition.total()


class Addition:
    """A sum in the making: takes one record after the other and holds none of them.

    Of every record type there is one vector of int64, whatever the number of sites. Whole
    numbers are added exactly, so that nothing depends on who looks when, nor on which of them
    had been added up before.

    Args:
        run: of the records.
        round_: of the records.
    """

    def __init__(self, run: str, round_: int) -> None:
        self._run, self._round = run, round_
        self._groups: dict[str, _Growing] = {}

    def add(self, site: str, envelope: Envelope) -> None:
        """Add a record.

        Args:
            site: that sent it; of each type in order of name, each once.
            envelope: a record of a type that is summed.

        Raises:
            RefusedError: a coordinate reaches ``LARGEST``.
            InternalError: another order of sites, or a record that differs from the others
                in names or shapes: intake should have refused.
        """
        kind = envelope.record.record_type
        summand = summand_of(envelope)
        tag = int(getattr(envelope.record, "tag"), 16)  # noqa: B009 - of every type that is summed
        if kind not in self._groups:
            self._groups[kind] = _Growing.like(summand)
        self._groups[kind].take(site, summand, tag)

    def add_sum(self, part: Sum) -> None:
        """Add what others have added already.

        Args:
            part: of the same run and round; its arrays are not kept.

        Raises:
            RefusedError: a coordinate reaches ``LARGEST``.
            InternalError: a site that was added before, another run or round, or groups that
                differ from the others' in names or shapes: intake should have refused.
        """
        if (part.run, part.round) != (self._run, self._round):
            raise InternalError("a part of another sum", field="run, round")
        for kind, group in part.groups.items():
            if kind not in self._groups:
                self._groups[kind] = _Growing.like(group.summand)
            self._groups[kind].take_group(group)

    def total(self) -> Sum:
        """Return the sum of what was added.

        Raises:
            InternalError: nothing was.
        """
        if not self._groups:
            raise InternalError("nothing to add", expected="records", got="none")
        groups = {kind: growing.group() for kind, growing in sorted(self._groups.items())}
        return Sum(self._run, self._round, groups)


@dataclass(eq=False)
class _Growing:
    """The records of one type that were added so far.

    Attributes:
        reach: by array, a bound on every coordinate of the sum: no sum up to it wraps.
        members: sites that were added one by one.
        grouped: sites that came added up.
    """

    counts: dict[str, int]
    arrays: dict[str, I64]
    reach: dict[str, int]
    members: list[str]
    tag: int = 0
    grouped: set[str] = field(default_factory=set)

    @classmethod
    def like(cls, summand: Summand) -> Self:
        """Begin at zero, in a summand's names and shapes."""
        arrays = {name: np.zeros(a.shape, np.int64) for name, a in summand.arrays.items()}
        return cls(dict.fromkeys(summand.counts, 0), arrays, dict.fromkeys(arrays, 0), [])

    def take(self, site: str, summand: Summand, tag: int) -> None:
        """Add one site's."""
        if (self.members and site <= self.members[-1]) or site in self.grouped:
            raise InternalError("sites in order of name, each once", field=site)
        self._add(summand, tag, site)
        self.members.append(site)

    def take_group(self, group: Group) -> None:
        """Add what several sites' came to."""
        if twice := self.grouped.union(self.members).intersection(group.members):
            raise InternalError("sites in a sum, each once", field=min(twice))
        self._add(group.summand, group.tag, group.members[0])
        self.grouped.update(group.members)

    def _add(self, summand: Summand, tag: int, site: str) -> None:
        shapes = {name: array.shape for name, array in summand.arrays.items()}
        if shapes != {name: array.shape for name, array in self.arrays.items()}:
            raise InternalError("records of other names or shapes", field=site)
        for name, count in summand.counts.items():
            self.counts[name] += count
            if self.counts[name] >= MOST_COUNTED:
                raise _too_large("counts")
        for name, part in summand.arrays.items():
            self.reach[name] += magnitude(part)
            if self.reach[name] >= LARGEST:
                raise _too_large(name)
            np.add(self.arrays[name], part, out=self.arrays[name])
        self.tag = add_tags((self.tag, tag))

    def group(self) -> Group:
        """Return them as a part of a sum."""
        members = tuple(sorted(self.grouped.union(self.members)))
        return Group(members, Summand(self.counts, self.arrays), self.tag)


def encode_sum(total: Sum) -> bytes:
    """Encode the bytes that are named in an order, kept by sites, and chained."""
    header = _SumHeader(
        run=total.run,
        round=total.round,
        groups={
            kind: _GroupHeader(
                members=group.members, counts=dict(group.summand.counts), tag=f"{group.tag:016x}"
            )
            for kind, group in total.groups.items()
        },
    )
    arrays = {
        f"{kind}/{name}": array
        for kind, group in total.groups.items()
        for name, array in group.summand.arrays.items()
    }
    return pack(header.model_dump(mode="json"), arrays)


def decode_sum(data: bytes) -> Sum:
    """Read what ``encode_sum`` made; nothing in it is believed yet.

    Raises:
        RefusedError: not a sum, an unknown field, members out of order or twice, or an
            array of another type than int64.
        VerificationError: metadata that is not canonical JSON.
    """
    metadata, arrays = unpack(data)
    try:
        header = _SumHeader.model_validate(metadata)
    except ValidationError as error:
        raise _bad_sum(*describe_validation(error)) from error
    groups: dict[str, Group] = {}
    for kind, group in header.groups.items():
        if kind not in COUNTS or set(group.counts) != set(COUNTS[kind]):
            raise _bad_sum(kind, "a record type that is summed, with its counts", "another")
        if list(group.members) != sorted(set(group.members)):
            raise _bad_sum(f"{kind}.members", "in order of name, each once", "not so")
        prefix = f"{kind}/"
        group_arrays = {
            n.removeprefix(prefix): np.asarray(arrays.pop(n))
            for n in list(arrays)
            if n.startswith(prefix)
        }
        if any(array.dtype != np.int64 for array in group_arrays.values()):
            raise _bad_sum(kind, "int64", "another type")
        vectors: dict[str, I64] = {
            name: np.asarray(a, np.int64) for name, a in group_arrays.items()
        }
        counts = {name: group.counts[name] for name in COUNTS[kind]}
        groups[kind] = Group(group.members, Summand(counts, vectors), int(group.tag, 16))
    if arrays:
        raise _bad_sum("arrays", "of the sum's groups", f"{len(arrays)} others")
    return Sum(header.run, header.round, groups)


def verify_sum(total: Sum, key: FederationKey, link: str) -> None:
    """Return only if every group is the sum of exactly the sites that it names.

    Args:
        total: as it came.
        key: of the federation.
        link: of the chain before this round, as this site computed it: summands that were
            made after another history do not add up to a sum of this one.

    Raises:
        RefusedError: a summand was altered, doubled, left out, of another round, run or
            history, or its site made a wrong tag.
    """
    for kind, group in total.groups.items():
        # A site that is named twice takes its pad off twice: its double would hold.
        if not group.members or len(set(group.members)) != len(group.members):
            raise _bad_sum(f"{kind}.members", "sites, each once", "none, or one twice")
        context = tag_context(total.run, total.round, kind, link)
        if not holds(key, context, group.members, group.summand.pieces(), group.tag):
            raise _bad_sum(
                kind, f"the sum of what {', '.join(group.members)} sent", "something else"
            )


def magnitude(array: I64) -> int:
    """Largest absolute value, in whole numbers of any size; 0 of an empty array."""
    return max(int(array.max(initial=0)), -int(array.min(initial=0)))


def sum_digest(data: bytes) -> str:
    """Digest a sum's bytes, as orders and the chain name them."""
    return sha256_hex(data)


def _bad_sum(field: str, expected: str, got: str) -> RefusedError:
    return RefusedError(
        "a sum does not hold",
        field=field,
        expected=expected,
        got=got,
        advice="Nothing was trained on it; ask the coordinator, and the other sites' staff",
    )


def _too_large(name: str) -> RefusedError:
    return RefusedError("a sum would overflow", field=name, expected="below 2**62", got="more")
