"""A lane is a channel of an account (docs/design/016): `m1234` is its e-mail, `m1234/sms` its SMS. Queue, clock, states and verbs belong to
the lane; term, holds and credits to the account. Pure names.
"""

from __future__ import annotations

SMS = "sms"
MAIL = "email"  # what the channel of the lane without a suffix is called
_SEPARATOR = "/"


def sms_lane(account: str) -> str:
    return account + _SEPARATOR + SMS


def owner(lane: str) -> str:
    """The account of a lane."""
    return lane.partition(_SEPARATOR)[0]


def channel(lane: str) -> str:
    """"" for e-mail."""
    return lane.partition(_SEPARATOR)[2]


def is_paid(lane: str) -> bool:
    """Whether its rows cost credits."""
    return lane.endswith("/" + SMS)


def others(lane: str) -> list[str]:
    """The account's other lanes. A campaign's id is unique among all of them."""
    account = owner(lane)
    return [each for each in (account, sms_lane(account)) if each != lane]
