"""dkimpy as the receiver, and keys to sign with. It shares nothing with what signs."""

from __future__ import annotations

import re
from functools import cache

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sendengine.keyring import PrivateKey, read_key

SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="  # RFC 8463 A.2
Published = dict[str, PrivateKey]  # by SELECTOR._domainkey.DOMAIN


@cache
def rsa_pem(name: str = "", bits: int = 2048, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """The same for the same name: making one takes a while."""
    return rsa.generate_private_key(65537, bits).private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def published(**texts: str) -> Published:
    return {name: read_key(text, name) for name, text in texts.items()}


def verdicts(octets: bytes, keys: Published) -> list[bool]:
    """Of each signature, from above."""

    def dns(name: bytes, timeout: int = 0) -> bytes:
        key = keys[name.decode().removesuffix(".")]
        return f"v=DKIM1; k={key.algorithm.removesuffix('-sha256')}; p={key.public}".encode()

    count = len(re.findall(rb"(?m)^DKIM-Signature:", octets))
    return [_verdict(dkim.DKIM(octets, minkey=1024), at, dns) for at in range(count)]


def _verdict(message: dkim.DKIM, at: int, dns: object) -> bool:
    try:
        return bool(message.verify(at, dnsfunc=dns))
    except dkim.ValidationError:  # the body's hash
        return False


def tags(octets: bytes, at: int = 0) -> dict[str, str]:
    """Of one signature."""
    fields = [value for name, value in dkim.rfc822_parse(octets)[0] if name.lower() == b"dkim-signature"]
    found = dkim.util.parse_tag_value(re.sub(rb"\r\n\s+", b" ", fields[at]))
    return {name.decode(): value.decode() for name, value in found.items()}
