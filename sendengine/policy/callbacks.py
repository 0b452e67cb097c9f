"""What a provider's HTTP call-back says of messages that it took: its own words, by the template of its table, as receipts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sendengine.policy.receipts import DELIVERED, STATES, receipt
from sendengine.types import Provider, Receipt

TOGETHER = 1000  # receipts in a part
_WORDS = frozenset(STATES.values())
_USUAL = {"DELIVERED": DELIVERED, "UNDELIVERED": "UNDELIV", "UNDELIVERABLE": "UNDELIV", "FAILED": "UNDELIV", "REJECTED": "REJECTD"}


def value_at(found: Any, place: str) -> Any:
    """What stands at a place like `messages.0.id`; None where nothing does, "" is the whole."""
    try:
        for step in place.split(".") if place else ():
            found = found[int(step)] if isinstance(found, list) else found[step]
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    return found


def receipts_of(provider: Provider, said: Any) -> Iterator[list[Receipt | None]]:
    """One each, in parts of up to TOGETHER; None for what names no message, or says nothing final of it."""
    found, states = value_at(said, provider.receipt_list), dict(provider.receipt_states)
    items = found if isinstance(found, list) else [found]
    for start in range(0, len(items), TOGETHER):
        yield [_receipt(provider, item, states) for item in items[start : start + TOGETHER]]


def _receipt(provider: Provider, item: Any, states: Mapping[str, str]) -> Receipt | None:
    name, state, error = (
        _word(value_at(item, place)) if place else "" for place in (provider.receipt_id, provider.receipt_state, provider.receipt_error)
    )
    known = states.get(state, "") if states else _USUAL.get(state.upper(), state.upper())  # a table names all words that are final
    if not name or known not in _WORDS:
        return None
    return receipt(f"stat:{known}" + (f" err:{error}" if error else ""), name)


def _word(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""
