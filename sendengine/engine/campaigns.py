"""Campaigns as workers need them: compiled once per process, the least recently used forgotten."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from sendengine.errors import SendEngineError
from sendengine.lanes import SMS
from sendengine.policy.retry import Schedule
from sendengine.policy.retry import parse as parse_schedule
from sendengine.policy.verdict import SendPolicy
from sendengine.ports import CampaignRecord, Queue
from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import load
from sendengine.render.renderer import Renderer
from sendengine.render.sms import SmsText
from sendengine.types import OnDoubt

KEPT = 512


class Campaign:
    """What does not change while a campaign sends. `sender` is the envelope's."""

    __slots__ = ("_renderers", "holds_doubts", "id", "is_sms", "policy", "refused_in_row", "retry", "sender", "skeleton", "uid")

    def __init__(self, campaign_id: str, record: CampaignRecord) -> None:
        fields = record.fields
        self.id = campaign_id
        self.uid = fields["uid"]
        self.is_sms = fields.get("channel") == SMS
        self.sender = self.sender_of(fields["sender"] if self.is_sms else fields.get("sender", ""))
        self.holds_doubts = fields.get("on_doubt") == OnDoubt.HOLD
        self.policy = SendPolicy(lifetime=float(fields.get("lifetime", 86400)))
        self.retry: Schedule = parse_schedule(fields["retry"])
        self.refused_in_row = 0  # messages refused with 5xx since the last success
        self.skeleton: Skeleton | SmsText | None = None
        if record.message:
            self.skeleton = SmsText(load(record.message)) if self.is_sms else compile_message(load(record.message), self.uid)
        self._renderers: dict[bool, Renderer | SmsText] = {}

    def sender_of(self, text: str) -> bytes:
        """As it goes on the wire; raises SendEngineError."""
        return text.encode() if self.is_sms else envelope(text)

    def renderer(self, eightbit: bool, message: bytes, batch: int) -> Renderer | SmsText:
        """The campaign's; a transactional batch brings its message along."""
        if message and self.is_sms:
            return SmsText(load(message))
        if message:
            return compile_message(load(message), f"{self.uid}.{batch}").renderer(eightbit)
        if eightbit not in self._renderers:
            if self.skeleton is None:
                raise SendEngineError(f"campaign {self.id} has no message")
            self._renderers[eightbit] = self.skeleton.renderer(eightbit)
        return self._renderers[eightbit]


def envelope(text: str) -> bytes:
    """An envelope sender as it goes on the wire; raises SendEngineError for what would end its command or begin another."""
    if not text.isascii() or any(letter <= " " or letter in "<>\x7f" for letter in text):
        raise SendEngineError(f"{text!r} cannot be an envelope sender")
    return text.encode()


class Campaigns:
    """Owner of the cache."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._known: OrderedDict[tuple[str, str], Campaign] = OrderedDict()

    async def get(self, account: str, campaign_id: str) -> Campaign | None:
        """None when there is none (purged). Raises SendEngineError for one that this release cannot read."""
        key = (account, campaign_id)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        record = await self._queue.campaign(account, campaign_id)
        if record is None:
            return None
        try:
            campaign = self._known[key] = Campaign(campaign_id, record)
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            raise SendEngineError(f"its record cannot be read: {type(error).__name__} {error}") from error
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return campaign
