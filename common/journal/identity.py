"""The key of a courier's journal, and why it is this courier's.

It is derived from the node key, which the courier has had since it joined and which the
coordinator knows by its public half: nothing new has to be kept, sent or admitted. The
node key signs the journal's, once and for all in the same words.

Source: HKDF, RFC 5869; deterministic ECDSA, RFC 6979.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.crypto.certificates import node_public_line, parse_node_public_key, read_node_key
from common.crypto.files import read_public
from common.crypto.identity import PublicKey, SigningKey
from common.enrolment import JoinRequest
from common.errors import InputDataError, VerificationError
from common.journal.entries import CONTEXT, Begin

_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


@dataclass(frozen=True)
class CourierIdentity:
    """The keys with which a courier signs its journal.

    Attributes:
        key: signs the lines.
        node_key: OpenSSH line of the node key's public half.
        certificate: the node key's signature over the journal's key, DER, hex.
    """

    key: SigningKey
    node_key: str
    certificate: str

    @classmethod
    def of(cls, node_key: ec.EllipticCurvePrivateKey) -> CourierIdentity:
        """Return the identity that belongs to a node key; the same whenever it is asked."""
        curve_bytes = (node_key.key_size + 7) // 8
        secret = node_key.private_numbers().private_value.to_bytes(curve_bytes, "big")
        seed = HKDF(hashes.SHA256(), 32, salt=None, info=CONTEXT).derive(secret)
        key = SigningKey.from_seed(seed)
        certificate = node_key.sign(_certified(key.public), _ECDSA)
        return cls(key, node_public_line(node_key), certificate.hex())

    @classmethod
    def read(cls, path: Path) -> CourierIdentity:
        """Return the identity of the node key in a file.

        Raises:
            InputDataError: absent, open to others, or no node key.
        """
        return cls.of(read_node_key(path))


def certified_key(begin: Begin, node_key: ec.EllipticCurvePublicKey | None) -> PublicKey:
    """Return the journal's key, if the node key that it names has signed it.

    Args:
        begin: the journal's first line.
        node_key: that it must be; None believes the line.

    Raises:
        VerificationError: another node key, or one that has not signed.
        InputDataError: no keys at all.
    """
    named = parse_node_public_key(begin.node_key)
    if node_key is not None and node_public_line(named) != node_public_line(node_key):
        raise VerificationError(
            "the journal is another courier's",
            field="node_key",
            expected="the node key that the coordinator admitted",
            got="another",
        )
    key = PublicKey.parse(begin.journal_key)
    try:
        named.verify(bytes.fromhex(begin.certificate), _certified(key), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(
            "the journal's key is not its courier's",
            field="certificate",
            expected="a signature by the node key",
            got="another",
        ) from error
    return key


def read_courier_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a courier's node key: an OpenSSH line, or the request.json that the site signed.

    Raises:
        InputDataError: neither of the two.
        VerificationError: a request that its ledger key has not signed.
    """
    data = read_public(path)
    text = data.decode("utf-8", errors="replace").strip()
    if text.startswith("{"):
        try:
            request = JoinRequest.model_validate_json(data)
        except ValueError as error:
            raise InputDataError(
                "not a courier's key",
                field=str(path),
                expected="node.key.pub or request.json of the site",
                got="another document",
            ) from error
        request.verify()
        text = request.node_key
    return parse_node_public_key(text)


def _certified(key: PublicKey) -> bytes:
    return CONTEXT + key.text.encode("ascii")
