"""Private keys that sign, with `cryptography` (the port Keyring): read, described for DNS, chosen for a domain.

A key is read when it is first used, and then kept: a fleet's keys may be thousands. One that cannot be read signs nothing, and its domain's
mail does not go out unsigned for it: an older key signs, or `keys_of` raises. The names of keys are told, never what is in them.
"""

from __future__ import annotations

import stat
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sendengine.errors import RefusedInput, SendEngineError
from sendengine.policy.signing import ED25519, RSA, KeyEntry, by_preference, check_name, signing_domains
from sendengine.render.dkim import SigningKey

log = structlog.get_logger("sendengine.keyring")

LEAST_BITS, GOOD_BITS = 1024, 2048  # RFC 8301 3.2
SUFFIXES = (".pem", ".key")
_SEED_OCTETS = 32
_TXT_MOST = 255  # RFC 6376 3.6.2.2: strings of a TXT record, joined by who reads it
_PADDING, _HASH = PKCS1v15(), Prehashed(SHA256())


class PrivateKey(msgspec.Struct, frozen=True):
    """`public` is p= of its DNS record."""

    algorithm: str
    bits: int
    public: str
    sign: Callable[[bytes], bytes]

    @property
    def is_short(self) -> bool:
        return self.algorithm == RSA and self.bits < GOOD_BITS


def read_key(text: str, place: str, was_checked: bool = False) -> PrivateKey:
    """PEM (PKCS#8 or PKCS#1), or a seed of Ed25519 in base64. Raises RefusedInput naming `place`. Whether an RSA key's numbers belong
    together takes 50 ms to tell: that is told when a key is stored, not when a worker reads it in its loop."""
    try:
        is_pem = "-----BEGIN" in text
        found: object = _from_pem(text, was_checked) if is_pem else Ed25519PrivateKey.from_private_bytes(_seed(text))
    except TypeError:
        raise RefusedInput(f"{place}: the key is encrypted with a password", "store it without one, readable by its owner alone") from None
    except (ValueError, UnsupportedAlgorithm):  # their text may quote the key
        raise RefusedInput(f"{place}: neither a private key in PEM nor an Ed25519 seed in base64") from None
    if isinstance(found, Ed25519PrivateKey):
        raw = found.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PrivateKey(ED25519, 256, b64encode(raw).decode(), found.sign)
    if not isinstance(found, RSAPrivateKey):
        raise RefusedInput(f"{place}: a key of another kind than RSA or Ed25519")
    if found.key_size < LEAST_BITS:
        raise RefusedInput(f"{place}: an RSA key of {found.key_size} bits, receivers take none under {LEAST_BITS}", "make one of 2048")
    raw = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey(RSA, found.key_size, b64encode(raw).decode(), lambda digest: found.sign(digest, _PADDING, _HASH))


def _from_pem(text: str, was_checked: bool) -> object:
    return load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=was_checked)


def _seed(text: str) -> bytes:
    try:
        seed = b64decode("".join(text.split()), validate=True)
    except Base64Error as error:
        raise ValueError(str(error)) from None
    if len(seed) != _SEED_OCTETS:
        raise ValueError("a seed has 32 octets")
    return seed


def dns_record(domain: str, selector: str, key: PrivateKey) -> str:
    """The line of a zone file to publish (RFC 6376 3.6.1, RFC 8463 4.2)."""
    value = f"v=DKIM1; k={key.algorithm.removesuffix('-sha256')}; p={key.public}"
    strings = " ".join(f'"{value[at : at + _TXT_MOST]}"' for at in range(0, len(value), _TXT_MOST))
    return f"{selector}._domainkey.{domain}. TXT {strings}"


class KeyRecord(msgspec.Struct, frozen=True):
    """A key in a file, and what to publish of it."""

    domain: str
    selector: str
    algorithm: str
    bits: int
    is_short: bool
    is_exposed: bool
    file: str
    record: str


def described(entry: KeyEntry) -> KeyRecord:
    """Of one that a file holds. Raises RefusedInput."""
    key = read_key(entry.text, entry.place, was_checked=True)
    record, is_open = dns_record(entry.domain, entry.selector, key), is_exposed(Path(entry.place))
    return KeyRecord(entry.domain, entry.selector, key.algorithm, key.bits, key.is_short, is_open, entry.place, record)


def read_file(path: Path, domain: str, selector: str) -> KeyEntry:
    """Raises RefusedInput for a file that holds no key, and for names that cannot stand in d= and s=."""
    check_name(domain, selector, str(path))
    text = text_of_key(path)
    return KeyEntry(domain, selector, read_key(text, str(path)).algorithm, text, str(path))


def read_directory(directory: Path) -> list[KeyEntry]:
    """DOMAIN/SELECTOR.pem (or .key), each of them read once. Raises RefusedInput for what is no key, and for two of one kind in a domain:
    nobody could tell which of them is published."""
    found, faults = survey_directory(directory)
    if faults:
        raise faults[0]
    return found


def survey_directory(directory: Path) -> tuple[list[KeyEntry], list[RefusedInput]]:
    """The keys that can be read, and all for which `read_directory` refuses."""
    found: list[KeyEntry] = []
    faults: list[RefusedInput] = []
    first: dict[tuple[str, str], KeyEntry] = {}
    for file in _files(directory, faults):
        try:
            entry = _read_file(file, file.parent.name)
        except RefusedInput as fault:
            faults.append(fault)
            continue
        found.append(entry)
        one = first.setdefault((entry.domain, entry.algorithm), entry)
        if one is not entry:
            said = f"{one.place} and {entry.place}: two keys of one kind for {entry.domain}"
            faults.append(RefusedInput(said, "keep the one that signs"))
    return found, faults


def _files(directory: Path, faults: list[RefusedInput]) -> Iterator[Path]:
    """Of its domains. A folder that cannot be listed does not hide the others."""
    for folder in _listed(directory, faults):
        if folder.is_dir():
            yield from _listed(folder, faults)


def _listed(folder: Path, faults: list[RefusedInput]) -> list[Path]:
    try:
        return sorted(_entries(folder))
    except RefusedInput as fault:
        faults.append(fault)
        return []


def domains_in(directory: Path) -> dict[str, Path]:
    """The domains that have a key in files, each with its folder: they use no other keys. Raises RefusedInput."""
    return {path.name: path for path in _entries(directory) if path.is_dir() and _entries(path)}


def is_exposed(path: Path) -> bool:
    """Others than its owner may read or change it. False where nobody can tell: a pipe, or gone meanwhile."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o077)


def _entries(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise RefusedInput(f"{directory}: {error.strerror}") from None


def _read_file(path: Path, domain: str) -> KeyEntry:
    if path.suffix not in SUFFIXES:
        raise RefusedInput(f"{path}: a key's file is SELECTOR.pem or SELECTOR.key")
    return read_file(path, domain, path.name.removesuffix(path.suffix))


def text_of_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise RefusedInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RefusedInput(f"{path}: neither a private key in PEM nor an Ed25519 seed in base64") from None


class Keyring:
    """Owner of the keys read. A domain that has keys in files has no others."""

    def __init__(self, files: Sequence[KeyEntry] = ()) -> None:
        self._files = _by_domain(files)
        self._known = self._files
        self._now_us = 0.0
        self._read: dict[KeyEntry, SigningKey | SendEngineError] = {}
        self._chosen: dict[str, tuple[SigningKey, ...]] = {}  # by domain in From

    def learn(self, stored: Sequence[KeyEntry]) -> None:
        """All keys that are shared, in place of those known so far."""
        self._known = _by_domain(stored) | self._files
        kept = {entry for entries in self._known.values() for entry in entries}
        self._read = {entry: key for entry, key in self._read.items() if entry in kept}
        self._chosen.clear()

    def turn(self, now_us: float) -> None:
        """A key whose time has come signs from here on."""
        times = [entry.since_us for entries in self._known.values() for entry in entries]
        if any(self._now_us < since <= now_us for since in times):
            self._chosen.clear()
        self._now_us = now_us

    def keys_of(self, from_domain: str) -> tuple[SigningKey, ...]:
        """Those that sign a message From there; none where it and the domains above it have none. Raises SendEngineError where there are
        keys and none of a kind can be read."""
        chosen = self._chosen.get(from_domain)
        if chosen is None:
            chosen = self._chosen[from_domain] = self._choose(from_domain)
        return chosen

    def _choose(self, from_domain: str) -> tuple[SigningKey, ...]:
        for name in signing_domains(from_domain):
            if begun := by_preference(self._known.get(name, ()), self._now_us):
                return tuple(self._first_readable(those) for those in begun.values())
        return ()

    def _first_readable(self, entries: list[KeyEntry]) -> SigningKey:
        for entry in entries:
            if entry not in self._read:
                self._read[entry] = _signing_key(entry)
            found = self._read[entry]
            if isinstance(found, SigningKey):
                return found
            trouble = found
        raise trouble


def _by_domain(entries: Sequence[KeyEntry]) -> dict[str, list[KeyEntry]]:
    found: dict[str, list[KeyEntry]] = {}
    for entry in entries:
        found.setdefault(entry.domain, []).append(entry)
    return found


def _signing_key(entry: KeyEntry) -> SigningKey | SendEngineError:
    try:
        key = read_key(entry.text, entry.place, was_checked=True)
    except RefusedInput as error:
        log.error("dkim_key_unreadable", domain=entry.domain, selector=entry.selector, reason=str(error))
        return error
    if key.algorithm != entry.algorithm:
        return SendEngineError(f"{entry.place}: it is said to be of {entry.algorithm}, and is of {key.algorithm}")
    if key.is_short:
        log.warning("dkim_key_short", domain=entry.domain, selector=entry.selector, bits=key.bits)

    def sign(digest: bytes) -> bytes:
        try:
            return key.sign(digest)
        except Exception as error:  # of a library's inside: never an unsigned message
            raise SendEngineError(f"{entry.place}: the key does not sign: {type(error).__name__} {error}") from error

    return SigningKey(entry.domain, entry.selector, entry.algorithm, sign)
