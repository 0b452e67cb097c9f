"""The keys that a fleet shares: kept, listed with what they do now and what to publish, removed.

Loads `cryptography`: the client, which only enqueues, knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from sendengine.errors import Conflict, NotFound, RefusedInput
from sendengine.keyring import GOOD_BITS, PrivateKey, dns_record, read_key
from sendengine.policy.signing import RSA, KeyEntry, by_preference, check_name, signing_domains
from sendengine.policy.tiers import nearest
from sendengine.policy.times import format_time
from sendengine.ports import Desk


class Key(msgspec.Struct, frozen=True):
    """`state`: signs, waits (for its time), resigned (a later one of its kind signs: its record may stay) or unreadable."""

    domain: str
    selector: str
    algorithm: str
    state: str
    since: datetime | None = msgspec.field(name="from")
    bits: int | None
    record: str | None

    @property
    def is_short(self) -> bool:
        return self.algorithm == RSA and self.bits is not None and self.bits < GOOD_BITS


async def add(desk: Desk, domain: str, selector: str, text: str, place: str, since: float | None, now: float) -> tuple[Key, bool]:
    """The key as it stands, and whether that is new. `since`: Unix seconds from when it signs; None: from now, or as it stands already.
    Raises RefusedInput; Conflict where another key has this name: what it signed would not be verified any more."""
    domain = domain.lower()
    check_name(domain, selector, place)
    key = read_key(text, place)
    entry = KeyEntry(domain, selector, key.algorithm, text, place, (now if since is None else since) * 1e6)
    state = await desk.keep_key(entry, moves=since is not None)
    if state == "other":
        standing = await _same_key(desk, entry, key)
        if standing is None:
            raise Conflict(f"{domain} has another key {selector!r}", "another --selector, or sendengine dkim remove first")
        state = await desk.keep_key(msgspec.structs.replace(entry, text=standing), moves=since is not None)
    return next(each for each in await listed(desk, domain, now) if each.selector == selector), state == "done"


async def _same_key(desk: Desk, entry: KeyEntry, key: PrivateKey) -> str | None:
    """How the key is written that has this name, if it is this one in another form."""
    for each in await desk.signing_keys():
        if (each.domain, each.selector) == (entry.domain, entry.selector):
            standing = _read(each)
            return each.text if standing is not None and standing.public == key.public else None
    return None


async def listed(desk: Desk, domain: str, now: float) -> list[Key]:
    """Those of a domain, or of all ("")."""
    domains: dict[str, list[KeyEntry]] = {}
    for entry in await desk.signing_keys():
        domains.setdefault(entry.domain, []).append(entry)
    if domain and domain.lower() not in domains:
        raise NotFound(f"no key of {domain}{nearest(domain, domains)}", "sendengine dkim add, or a file in dkim_keys")
    wanted = [domain.lower()] if domain else sorted(domains)
    return [shown for name in wanted for shown in _shown(domains[name], now)]


async def remove(desk: Desk, domain: str, selector: str) -> list[Key]:
    """The keys that are responsible for the domain's mail from now on: its own, else those of the nearest domain above it; none: it goes
    unsigned."""
    if not await desk.remove_key(domain.lower(), selector):
        known = {entry.selector: entry for entry in await desk.signing_keys() if entry.domain == domain.lower()}
        raise NotFound(f"no key {selector!r} of {domain}{nearest(selector, known)}", "sendengine dkim list")
    found = await listed(desk, "", await desk.now_us() / 1e6)
    domains = {each.domain for each in found}
    responsible = next((name for name in signing_domains(domain) if name in domains), "")
    return [each for each in found if each.domain == responsible]


def said_of(domain: str, responsible: Sequence[Key]) -> str:
    """What happens to mail From there, in words."""
    by_state = {state: [each for each in responsible if each.state == state] for state in ("signs", "unreadable", "waits")}
    if signing := by_state["signs"]:
        names = " and ".join(f"{each.selector} of {each.domain} ({each.algorithm})" for each in signing)
        return f"note: mail From {domain} is signed by {names} now"
    if unreadable := by_state["unreadable"]:
        return f"warning: mail From {domain} waits now: its key {unreadable[0].selector} of {unreadable[0].domain} cannot be read"
    if waiting := by_state["waits"]:
        first = min(waiting, key=lambda each: each.since or datetime.max.replace(tzinfo=UTC))
        until = f", until {first.selector} of {first.domain} begins at {format_time(first.since.timestamp())}" if first.since else ""
        return f"warning: mail From {domain} goes out unsigned from now on{until}"
    return f"warning: mail From {domain} goes out unsigned from now on: no key is left"


def _shown(entries: Sequence[KeyEntry], now: float) -> list[Key]:
    keys = {entry: _read(entry) for entry in entries}
    begun = by_preference(entries, now * 1e6)
    signing = {next((entry for entry in those if keys[entry] is not None), None) for those in begun.values()}
    found = []
    for entry in entries:
        key = keys[entry]
        state = "signs" if entry in signing else "waits" if entry.since_us > now * 1e6 else "resigned"
        since = datetime.fromtimestamp(entry.since_us / 1e6, UTC) if entry.since_us else None
        if key is None:
            found.append(Key(entry.domain, entry.selector, entry.algorithm, "unreadable", since, None, None))
        else:
            record = dns_record(entry.domain, entry.selector, key)
            found.append(Key(entry.domain, entry.selector, entry.algorithm, state, since, key.bits, record))
    return found


def _read(entry: KeyEntry) -> PrivateKey | None:
    try:
        key = read_key(entry.text, entry.place, was_checked=True)
    except RefusedInput:
        return None
    return key if key.algorithm == entry.algorithm else None  # as in a worker: no such key signs
