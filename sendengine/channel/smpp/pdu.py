"""SMPP 3.4 on the wire: frames, and the few PDUs that we speak. Pure; submit_sm and deliver_sm by the codec of smpp34 (docs/design/018)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from smpp34 import DeliverSm, SmppError, SubmitSm, decode

from sendengine.policy.parts import Coding
from sendengine.policy.receipts import receipt
from sendengine.policy.senders import SenderId
from sendengine.types import Receipt

__all__ = ["DeliverSm", "SmppError", "SubmitSm", "decode"]  # the codec has one home

LONGEST = 64 << 10  # octets of a PDU; what announces more is no SMPP
UDHI, RECEIPT, RECEIPT_MASK = 0x40, 0x04, 0x3C  # esm_class
TLV_RECEIPTED_MESSAGE_ID, TLV_MESSAGE_PAYLOAD, TLV_MESSAGE_STATE = 0x001E, 0x0424, 0x0427
VERSION = 0x34
SEQUENCE_MOST = 0x7FFFFFFF
_HEADER = Struct(">IIII")
_ANSWER = 0x80000000


class Command(IntEnum):
    GENERIC_NACK = 0x80000000
    BIND_TRANSCEIVER = 0x00000009
    UNBIND = 0x00000006
    SUBMIT_SM = 0x00000004
    DELIVER_SM = 0x00000005
    ENQUIRE_LINK = 0x00000015


class Pdu(NamedTuple):
    command: int
    status: int
    sequence: int
    octets: bytes  # all of it, the header too

    @property
    def body(self) -> bytes:
        return self.octets[16:]

    @property
    def is_answer(self) -> bool:
        return self.command >= _ANSWER


class BadPdu(ValueError):
    """What came is no SMPP."""


class Reader:
    """Cuts a stream into PDUs. Owner of what has come of the next one."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Pdu]:
        """Raises BadPdu; what came before it has been given out."""
        rest = self._rest
        rest += data
        at, end = 0, len(rest)
        try:
            while end - at >= 16:
                length, command, status, sequence = _HEADER.unpack_from(rest, at)
                if not 16 <= length <= LONGEST:
                    raise BadPdu(f"a PDU of {length} octets")
                if end - at < length:
                    return
                octets = bytes(rest[at : at + length])
                at += length
                yield Pdu(command, status, sequence, octets)
        finally:
            del rest[:at]


def pdu(command: int, sequence: int, body: bytes = b"", status: int = 0) -> bytes:
    return _HEADER.pack(16 + len(body), command, status, sequence) + body


def answer_to(asked: Pdu, status: int = 0, body: bytes = b"") -> bytes:
    return pdu(asked.command | _ANSWER, asked.sequence, body, status)


def bind(sequence: int, system_id: str, password: str, system_type: str) -> bytes:
    texts = b"".join(text.encode("latin-1", "replace").replace(b"\0", b"") + b"\0" for text in (system_id, password, system_type))
    return pdu(Command.BIND_TRANSCEIVER, sequence, texts + bytes((VERSION, 0, 0)) + b"\0")


def submit(sequence: int, sender: SenderId, number: str, coding: Coding, data: bytes, has_header: bool) -> bytes:
    """One part; a receipt is asked for. `number` without its plus."""
    octets: bytes = SubmitSm(
        sender.text, number, data, source_addr_ton=sender.ton, source_addr_npi=sender.npi, dest_addr_ton=1, dest_addr_npi=1,
        esm_class=UDHI if has_header else 0, registered_delivery=1, data_coding=int(coding), sequence_number=sequence,
    ).encode()  # fmt: skip
    return octets


def message_id_of(answer: Pdu) -> str:
    """Of a submit_sm_resp; "" where it has none."""
    return answer.body.partition(b"\0")[0].decode("latin-1")


def receipt_of(asked: Pdu) -> Receipt | None:
    """What a deliver_sm says of a message of ours; None for one that somebody sent us, or that says nothing final. Raises BadPdu."""
    try:
        found = decode(asked.octets)
    except SmppError as error:
        raise BadPdu(f"a deliver_sm that cannot be read: {error}") from None
    if not isinstance(found, DeliverSm) or found.esm_class & RECEIPT_MASK != RECEIPT:
        return None
    state: int | None = None
    message_id, text = "", found.short_message
    for tlv in found.tlvs:
        if tlv.tag == TLV_RECEIPTED_MESSAGE_ID:
            message_id = tlv.value.partition(b"\0")[0].decode("latin-1")
        elif tlv.tag == TLV_MESSAGE_STATE:
            state = tlv.as_int()
        elif tlv.tag == TLV_MESSAGE_PAYLOAD:
            text = text or tlv.value
    return receipt(text.decode("latin-1"), message_id, state)
