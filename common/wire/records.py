"""The closed set of record types that may leave a site, and what each may say.

A type that is not here does not exist: it is refused at the door and again at
intake. Headers hold integers, names from the plan and digests. There is no
free text and no floating-point number in a header; lengths are micrometres.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import RefusedError
from common.settings import describe_validation
from common.wire.codes import ReplyCode

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
FederationName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Tag = Annotated[str, Field(pattern=r"^[01][0-9a-f]{15}$")]
"""A tag of ``common.sums.tags``: below 2**61, in 16 hex digits."""
UNTAGGED = "0" * 16
"""What stands in a record until the worker, which has the key, has made its tag."""
Thousandths = Annotated[int, Field(ge=0, le=10_000_000)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}( #[0-9]{1,2})?$")]
Part = Literal["held-out", "training"]
"""The part of a site's own cases that an error is of."""
PARTS: Final[tuple[Part, ...]] = get_args(Part)
"""In the order in which they are shown: errors on held-out cases come first."""


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Common(_Header):
    """Fields of every record.

    Attributes:
        v: version of the format.
        plan_fingerprint: SHA-256 of the plan that this belongs to.
        site: the sender.
        run, round: round 0 comes before training.
    """

    v: Literal[1] = 1
    plan_fingerprint: Digest
    site: SiteName
    run: RunName
    round: Count


class ModelUpdate(_Common):
    """Difference between the weights after and before a round's training.

    Arrays: one int32 array per weight of the plan's model, by name, in units of 2**-24; of
    heads that a plan keeps private, none. Where a plan lets sites lack labels, ``labels``,
    int32[labels], 1 for those that the site trained and 0 for the others.

    Attributes:
        images: images trained on.
        samples: how much the difference counts in the average: at most the images, and at
            most what the roster lets this site count as; in rounds by time that times the
            share of the round's updates, in 64ths (``bounds.samples_of``).
        transitions: new transitions gathered in this round.
        updates: gradient steps taken.
        tag: of ``samples`` times the arrays, and of ``samples``.
    """

    record_type: Literal["ModelUpdate"] = "ModelUpdate"
    images: Count
    samples: Count
    transitions: Count
    updates: Count
    tag: Tag = UNTAGGED


class SketchTable(_Common):
    """Count sketch of the experience met in this round.

    Arrays: ``table``, int64[rows, columns].

    Attributes:
        key_id: names the federation key without telling it.
        codec: identity of the quantiser; tables of different codecs cannot be added.
        total: keys counted; every row's absolute sum is at most this.
        tag: of the table and ``total``.
    """

    record_type: Literal["SketchTable"] = "SketchTable"
    subject: Literal["experience"] = "experience"
    rows: Count
    columns: Count
    key_id: KeyId
    codec: Digest
    total: Count
    tag: Tag = UNTAGGED


class ErrorTables(_Common):
    """Two count sketches of the experience that this round's gradient steps replayed.

    Arrays: ``replays``, int64[rows, columns], counts every replay once; ``errors``,
    int64[rows, columns], as often as the network was wrong there, in ``ERROR_UNITS``.

    Attributes:
        key_id, codec: as of a ``SketchTable``.
        total: replays counted; every row's absolute sum of ``replays`` is at most this.
        errors: sum of their errors; likewise of ``errors``.
        tag: of the tables, ``total`` and ``errors``.
    """

    record_type: Literal["ErrorTables"] = "ErrorTables"
    rows: Count
    columns: Count
    key_id: KeyId
    codec: Digest
    total: Count
    errors: Count
    tag: Tag = UNTAGGED


class PixelStatistics(_Common):
    """Sums over all pixels of a site's slides, before there are keys.

    Arrays: of ``survey``, ``histogram`` int64[intensity bins] and ``gram`` int64[bands,
    bands]; of ``ranges``, ``histogram`` int64[components, range bins].

    Attributes:
        subject: what was summed.
        codec: identity of what the sums were taken with.
        slides: slides read.
        pixels: pixels summed; of ``ranges``, those of tissue.
        tag: of the arrays, ``slides`` and ``pixels``.
    """

    record_type: Literal["PixelStatistics"] = "PixelStatistics"
    subject: Literal["survey", "ranges"]
    codec: Digest
    slides: Count
    pixels: Count
    tag: Tag = UNTAGGED


class PixelSketches(_Common):
    """Four views of the keys of a site's pixels, which belong together and add up.

    Arrays: ``full``, ``prefix`` and ``presence``, int64[rows, columns]: count sketches
    of keys, of their higher digits, and of each key once; ``prefix_counts``,
    int64[prefixes]: exact counts of their highest digits, in an order that only
    holders of the federation key know.

    Attributes:
        key_id: names the federation key without telling it.
        codec: identity of the codec; tables of different codecs cannot be added.
        slides: slides read.
        pixels: keys counted in ``full``, ``prefix`` and ``prefix_counts``.
        tag: of the arrays, ``slides`` and ``pixels``.
    """

    record_type: Literal["PixelSketches"] = "PixelSketches"
    rows: Count
    columns: Count
    key_id: KeyId
    codec: Digest
    slides: Count
    pixels: Count
    tag: Tag = UNTAGGED


class HeavyHitters(_Common):
    """Keys of the merged tables that passed the release gate, by one site's reading.

    Arrays: ``keys`` int64[n], the bits of uint64, ascending as uint64, each once;
    ``counts`` int64[n], estimated pixels in the whole federation.

    Attributes:
        key_id, codec: of the tables.
        threshold: estimate that a key had to reach.
    """

    record_type: Literal["HeavyHitters"] = "HeavyHitters"
    key_id: KeyId
    codec: Digest
    threshold: Count


class GroupCounts(_Common):
    """Pixels of a site's slides in each group of a codebook.

    Arrays: ``counts`` int64[1 + groups]: background, then every group; 0 where fewer
    than the plan's least.

    Attributes:
        codec, codebook: digests of what the slides were embedded with.
        slides: slides embedded.
        pixels: pixels embedded, background included.
    """

    record_type: Literal["GroupCounts"] = "GroupCounts"
    codec: Digest
    codebook: Digest
    slides: Count
    pixels: Count


class TaskError(_Header):
    """Errors of one thing that is looked for over a site's evaluation.

    In thousandths of the unit of the plan's kind of task: micrometres of landmarks.

    Attributes:
        label: of what is looked for.
        part: of the site's own cases: held out, or trained on.
        searches: searches behind the figures.
        mean_milli, median_milli: over searches, posed.
        consensus_milli: mean over subjects of the error of the median end point.
        prior_milli: mean error on the same cases of the answer that never looks, of the
            training part.
        over_10mm: searches that ended more than 10 mm away; none of other units.
    """

    label: Label
    part: Part
    searches: Count
    mean_milli: Thousandths
    median_milli: Thousandths
    consensus_milli: Thousandths
    prior_milli: Thousandths
    over_10mm: Count | None = None


class RoundReport(_Common):
    """Counts and metrics of a round, or the number of a failure.

    Arrays: none.

    Attributes:
        code: what became of the order.
        images: trained on, or to be.
        held_out: images that errors of the held-out part rest on; 0 where none are told.
        weights_sha256: digest of the weights the site starts from; all sites' must agree.
        link: of the chain of sums that the site worked from; all sites' must agree.
        key_id, codec: of the site's sketches; all sites' must agree.
        errors: evaluation of the weights received, before training on them; of each part.
        loss_milli: mean Huber loss of the round's updates, times 1000.
        epsilon_milli: exploration at the end of the round, times 1000.
        train_ms: wall time of training.
    """

    record_type: Literal["RoundReport"] = "RoundReport"
    code: Annotated[ReplyCode, Field(strict=False)]
    images: Count = 0
    held_out: Count = 0
    transitions: Count = 0
    updates: Count = 0
    weights_sha256: Digest | None = None
    link: Digest | None = None
    key_id: KeyId | None = None
    codec: Digest | None = None
    errors: Annotated[tuple[TaskError, ...], Field(max_length=512, strict=False)] = ()
    loss_milli: Count = 0
    epsilon_milli: Count = 0
    train_ms: Count = 0


Record = (
    ModelUpdate
    | SketchTable
    | ErrorTables
    | RoundReport
    | PixelStatistics
    | PixelSketches
    | HeavyHitters
    | GroupCounts
)
RECORD_TYPES: tuple[type[Record], ...] = get_args(Record)
_BY_NAME: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="record_type")])


def parse_record(value: object) -> Record:
    """Validate a decoded header.

    Raises:
        RefusedError: unknown record type, or a field that is missing, unknown or wrong.
    """
    try:
        return _BY_NAME.validate_python(value)
    except ValidationError as error:
        kind = error.errors(include_url=False, include_input=False)[0]["type"]
        if kind.startswith("union_tag"):
            raise RefusedError(
                "unknown record type",
                field="record_type",
                expected="one of " + ", ".join(t.__name__ for t in RECORD_TYPES),
                got="another name",
            ) from error
        field, expected, got = describe_validation(error)
        raise RefusedError(
            "a record's header is not valid", field=field, expected=expected, got=got
        ) from error
