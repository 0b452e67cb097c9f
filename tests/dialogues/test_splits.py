"""Every dialogue of a session once more without sockets, its replies cut in two at every octet, and into single octets.

However TCP cuts what the peer says, the session must meet what the dialogue expects. Time is turned by hand, so silence
costs none.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from pathlib import Path

import pytest

from sendengine.channel.flight import Features, State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.types import Attempt, Envelope
from tests.dialogues.player import Delivery, Dialogue, octets, read
from tests.dialogues.test_dialogues import PATHS, deliveries_of, described

LARGE = "40000"  # octets enough for a message whose end is held back
TIMED = ("<drip", "<endless")  # played on sockets only


class Feed:
    def __init__(self, dialogue: Dialogue) -> None:
        dialogue.settings["size"] = LARGE if int(dialogue.settings.get("size", "0")) > int(LARGE) else dialogue.settings.get("size", "0")
        self.waiting = deliveries_of(dialogue)
        self.met: list[str] = []

    def next(self, in_company: bool = False) -> Envelope | None:
        is_kept = not self.waiting or (in_company and self.waiting[0].is_alone)
        return None if is_kept else self.waiting.pop(0)

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        assert isinstance(delivery, Delivery)
        self.met.append(described(str(delivery.number), attempt))


def features_of(dialogue: Dialogue) -> Features:
    offers = {offer.partition("=")[0] for offer in dialogue.settings.get("offers", "").split()}
    return Features("PIPELINING" in offers, "CHUNKING" in offers, "8BITMIME" in offers, "SIZE" in offers)


def bursts_of(dialogue: Dialogue) -> list[bytes | str]:
    """What the peer does between two words of the client: octets in one piece, or <close> and the like."""
    bursts: list[bytes | str] = []
    for (who, is_octets), words in groupby(dialogue.connections[0], key=lambda word: (word[0], is_said(word[1]))):
        if who == "S" and is_octets:
            bursts.append(b"".join(map(said, (what for _, what in words))))
        elif who == "S":
            bursts += [what for _, what in words]
        else:
            bursts.append("")
    return bursts


def is_said(what: str) -> bool:
    return not what.startswith("<") or what.startswith("<raw")


def said(what: str) -> bytes:
    return octets(what.removeprefix("<raw ").removesuffix(">")) if what.startswith("<raw") else what.encode() + b"\r\n"


def replay(dialogue: Dialogue, cuts: dict[int, list[int]], make: type[Session] = Session) -> list[str]:
    """What was met when burst number i is cut at the octets `cuts[i]`."""
    feed = Feed(dialogue)
    most, chunk = (int(dialogue.settings.get(name, default)) for name, default in (("max", "0"), ("chunk", "1")))
    session = make(feed, features_of(dialogue), StageTimeouts(), 0.0, most, chunk)
    holds_back = ("C", "<part>") in dialogue.connections[0] or ("S", "<stall>") in dialogue.connections[0]
    write(session, holds_back)
    for number, burst in enumerate(bursts_of(dialogue)):
        if isinstance(burst, bytes):
            for start, end in pairwise([0, *cuts.get(number, []), len(burst)]):
                if session.state is not State.ENDED:
                    session.receive(burst[start:end], 1.0)
                    write(session, holds_back)
        elif burst in ("<silence>", "<stall>"):
            session.tick(1000.0, 1 if holds_back else 0)
        elif burst in ("<close>", "<reset>"):
            session.lost(1.0, burst)
    return feed.met


def write(session: Session, holds_back: bool) -> None:
    """As the transport would: with `holds_back` it never lets go of a large message's rest."""
    while session.state is not State.ENDED and not (holds_back and session.has_more):
        if not session.next_write(1.0):
            return


def is_replayed(dialogue: Dialogue) -> bool:
    settings, [talk, *others] = dialogue.settings, dialogue.connections
    is_timed = any(what.startswith(TIMED) for _, what in talk)
    return settings.get("handshake") != "no" and settings.get("together") != "yes" and not is_timed and not others


REPLAYED = [path for path in PATHS if is_replayed(read(path))]


@pytest.mark.parametrize("path", REPLAYED, ids=lambda path: path.stem)
def test_replies_in_any_two_pieces_and_in_single_octets(path: Path) -> None:
    dialogue = read(path)
    bursts = bursts_of(dialogue)
    sizes = {number: len(burst) for number, burst in enumerate(bursts) if isinstance(burst, bytes)}
    assert replay(dialogue, {}) == dialogue.expected
    assert replay(dialogue, {number: list(range(1, size)) for number, size in sizes.items()}) == dialogue.expected
    for number, size in sizes.items():
        for at in range(1, min(size, 500)):  # longer ones are played as single octets
            assert replay(dialogue, {number: [at]}) == dialogue.expected, (number, at)


def test_most_dialogues_are_replayed() -> None:
    assert len(REPLAYED) > 100
