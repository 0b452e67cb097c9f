"""A train: messages that are written whole behind one another, without waiting for a reply (RFC 3030 4.2, RFC 2920 3.1).

Each is RSET, MAIL, RCPT and its message as one BDAT chunk. RSET, since the one before it may be refused: a transaction may
stand open then, and MAIL within one is refused, too (RFC 5321 4.1.4). Two trains are under way at most: while the replies
to one come in, the next is at the peer already.

What is known of the octets is kept here: which messages may have left whole. What replies mean is the session's matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sendengine.channel.flight import Command, Flight, unstuffed
from sendengine.types import Envelope, Stage

# What is unanswered of each message of a train. The chunk's answer is the message's, as a final dot's is.
WAGON = (Command.RSET, Command.MAIL, Command.RCPT, Command.DOT)


class Train:
    """The messages under way, in the order written, but for those with an answer. Owned by its session."""

    __slots__ = (
        "_has_size", "_hold_above", "_loaded", "_written", "answered_at", "end_held", "flights", "is_proven", "is_to_go_on", "most",
    )  # fmt: skip

    def __init__(self, most: int, hold_above: int, has_size: bool) -> None:
        self.flights: deque[Flight] = deque()
        self.is_proven = False  # the peer has accepted a chunk
        self.answered_at = -1.0  # when the session's last message was
        self.end_held = b""  # of a large one: it follows once the transport has let go of the rest
        self.is_to_go_on = False  # this train is full, and another may follow at once
        self._written = 0  # octets of all trains so far
        self._loaded = 0  # messages of the last one
        self.most = most  # messages of one train
        self._hold_above = hold_above
        self._has_size = has_size

    @property
    def front(self) -> Flight | None:
        """Whose replies are due."""
        return self.flights[0] if self.flights else None

    @property
    def is_front_refused(self) -> bool:
        """That one is reported; the rest of its replies keep the count."""
        return bool(self.flights) and self.flights[0].delivery is None

    def is_stuck(self, unflushed: int) -> bool:
        """No message of it has left whole."""
        return bool(self.flights) and not self.is_out(self.flights[0], unflushed)

    def load(self, pull: Callable[[], Envelope | None], now: float, ahead: int) -> bytes:
        """The next train: what is there now and no more than the limits, for it waits for nobody. `ahead` messages that are
        unanswered go before all of these."""
        parts: list[bytes] = []
        size = 0
        has_room = ahead + len(self.flights) <= self.most
        while has_room and len(parts) < self.most and size <= self._hold_above and (delivery := pull()) is not None:
            parts.append(wagon(delivery, self._has_size))
            size += len(parts[-1])
            self.flights.append(Flight(delivery, now, False, Stage.MAIL, self._written + size))
        if size > self._hold_above:
            parts[-1], self.end_held = parts[-1][:-2], parts[-1][-2:]
        self._written += size - len(self.end_held)
        self._loaded = len(parts)
        self.is_to_go_on = len(parts) == self.most and ahead + len(self.flights) <= self.most
        return b"".join(parts)

    def take_back(self, octets: int) -> list[Flight]:
        """The messages of the last train, so many octets of which none has left."""
        self._written -= octets
        self.end_held, self.is_to_go_on = b"", False
        return [self.flights.pop() for _ in range(self._loaded)][::-1]

    def finish(self) -> bytes:
        """The end that was held."""
        end, self.end_held = self.end_held, b""
        self._written += len(end)
        return end

    def is_out(self, flight: Flight, unflushed: int) -> bool:
        """Its last octet may have left: of what was written, so many octets certainly have not."""
        return flight.end <= self._written - unflushed


def wagon(delivery: Envelope, has_size: bool) -> bytes:
    """All that a message needs, in one piece."""
    message = unstuffed(delivery.wire)
    size = b" SIZE=%d" % len(delivery.wire) if has_size else b""
    body = b" BODY=8BITMIME" if delivery.eightbit else b""
    return b"RSET\r\nMAIL FROM:<%b>%b%b\r\nRCPT TO:<%b>\r\nBDAT %d LAST\r\n%b" % (
        delivery.sender, size, body, delivery.recipient, len(message), message
    )  # fmt: skip
