"""The tag of every record that is added to other sites': made here, where the key is.

A study has no key and makes records without tags; whoever changes one of them afterwards,
in this process or on its way, changes a sum that no site will accept.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.crypto.keyed import FederationKey
from common.sums.chain import tag_context
from common.sums.summand import is_summed, summand_of
from common.sums.tags import make_tag
from common.wire.envelope import Envelope


def tagged(envelopes: Iterable[Envelope], key: FederationKey, link: str) -> list[Envelope]:
    """Return the same records, each that is summed with its tag.

    Args:
        envelopes: of one answer.
        key: of the federation.
        link: of the chain that this site worked from.
    """
    return [
        _tagged(envelope, key, link) if is_summed(envelope.record.record_type) else envelope
        for envelope in envelopes
    ]


def _tagged(envelope: Envelope, key: FederationKey, link: str) -> Envelope:
    record = envelope.record
    context = tag_context(record.run, record.round, record.record_type, link)
    tag = make_tag(key, context, record.site, summand_of(envelope).pieces())
    return Envelope(record.model_copy(update={"tag": f"{tag:016x}"}), envelope.arrays)
