"""The life of one delivery: permit -> recipient -> intent -> wire -> verdict -> outcome.

Decides with policy/verdict.py, writes through the journal, and returns to the lane whatever was certainly not sent. A recipient leaves
here as an outcome, deferred, in doubt, or back where it came from; there is no other way out.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from functools import partial

from sendengine import records
from sendengine.batch import BATCH_ROWS
from sendengine.engine.campaigns import Campaign
from sendengine.engine.feed import Feed
from sendengine.engine.journal import Journal
from sendengine.engine.lane import Lane
from sendengine.engine.pacing import Run
from sendengine.engine.settings import EngineSettings
from sendengine.engine.signer import Signer
from sendengine.engine.texts import Texts
from sendengine.engine.work import Delivery, Lease
from sendengine.errors import SendEngineError
from sendengine.policy import retry
from sendengine.policy.replies import ReplyRules
from sendengine.policy.suppression import mark_of, pack_mark
from sendengine.policy.verdict import Action, Scope, Verdict, judge
from sendengine.ports import Keyring, Meter
from sendengine.reply import strip_ids
from sendengine.types import Attempt, Fault, Outcome

# Globals, because a member of an Enum class costs two look-ups, and these are compared for every message.
_SENT, _DEFERRED, _DOUBTFUL = Action.SENT, Action.DEFERRED, Action.DOUBTFUL
OUTCOMES = {
    Action.SENT: Outcome.SENT,
    Action.BOUNCED: Outcome.BOUNCED,
    Action.EXPIRED: Outcome.EXPIRED,
    Action.DEFERRED: Outcome.EXPIRED,  # where its lifetime would be over before the next try
    Action.DOUBTFUL: Outcome.UNKNOWN,  # unless the settlement decides to send it again
}
REFUSED_MOST = 20  # messages in a row that a send may have refused (5xx after the dot) before it is suspended
REPLIES_MOST = 4096  # whose number is remembered without making their text again
LONGEST_DELAY = 3600.0
TRIES_MOST = 255  # that a record can tell
LONGEST_HALF = 65000.0  # what a half float holds
EXPIRED_TEXT = ("4.4.7", "expired before a relay took it")
UNRENDERABLE = "5.6.0"
SUPPRESSED = "5.7.1"  # not authorised: it is us who refuse it


class Deliveries:
    """Makes deliveries of permits and outcomes of attempts, for all lanes of one worker."""

    def __init__(
        self, journal: Journal, settings: EngineSettings, rules: ReplyRules, meter: Meter,
        now: Callable[[], float], jitter: Callable[[], float], attend: Callable[[Lane], None],
        suspend: Callable[[str, str, str], None], keyring: Keyring, signer: Signer,
        expect: Callable[[Delivery, tuple[str, ...]], None],
    ) -> None:  # fmt: skip
        self._journal, self._settings, self._rules, self._meter = journal, settings, rules, meter
        self._now, self._jitter, self._attend, self._suspend = now, jitter, attend, suspend
        self._keyring, self._signer, self._expect = keyring, signer, expect
        self._texts = Texts(journal.reply)
        self._numbers: dict[tuple[Feed, str, int, str, str], int] = {}
        self._date, self._date_at = b"", 0

    # permit -> intent

    def pick(self, lane: Lane, due: float, turn: object, run: Run | None) -> bool:
        """Use one permit. False when the lane has nobody to send to, or more is to be signed than can be."""
        while True:
            picked = lane.pick(turn)  # type: ignore[arg-type]
            if picked is None:
                return False
            lease, row = picked
            if lease.barred and row in lease.barred:
                self.suppress(lane, lease, row)
                continue
            if row in lease.past and self._has_expired(lane, lease, row):
                continue
            try:
                keys = self._keyring.keys_of(lease.renderer.from_domain)
            except SendEngineError as error:
                self._leave_unsigned(lane, lease, row, str(error))
                continue
            break
        if keys and self._signer.is_full(run is not None):
            lane.return_row(lease, row)
            return False
        delivery = Delivery()
        delivery.lane, delivery.lease, delivery.row = lane, lease, row
        delivery.sender, delivery.recipient = lease.sender, lease.recipients[row]
        renderer = lease.renderer
        serial = lease.batch * BATCH_ROWS + row
        if keys:
            self._signer.add(delivery, partial(renderer.wire, lease.values[row], serial, self._date, self._date_at, keys))
        else:
            delivery.wire, delivery.making = renderer.wire(lease.values[row], serial, self._date), None
        delivery.eightbit = renderer.has_eightbit
        delivery.due = due
        delivery.is_resolved = False
        delivery.acked_at = 0.0
        if run is not None:
            delivery.lapses_at = due + lane.lapse
            delivery.cut, delivery.permit_us = run.cut, (due + run.offset) * 1e6
        else:
            delivery.lapses_at, delivery.cut, delivery.permit_us = 0.0, lane.cut, 0.0
        lease.open += 1
        lane.feed.preparing += 1
        self._journal.intend(delivery)
        return True

    def can_sign(self, lane: Lane, campaign: Campaign, from_domain: str) -> bool:
        """Whether what it needs is there; else the campaign waits for its operator. Nobody is refused for it, nothing goes unsigned."""
        try:
            self._keyring.keys_of(from_domain)
        except SendEngineError as error:
            self._suspend(lane.account, campaign.id, str(error))
            return False
        return True

    def _leave_unsigned(self, lane: Lane, lease: Lease, row: int, why: str) -> None:
        """A key became unreadable while its send was under way: what is held goes back, as if it had been found so when it was opened."""
        campaign = lease.campaign
        lane.return_row(lease, row)
        if campaign.id == records.TRANSACTIONAL:  # each has a sender of its own, and there is no pausing them: left alone for a while
            lane.ignored.add(campaign.id)
            lane.give_back(lease)
        else:
            for each in lease.share.leases.values():
                lane.give_back(each)
        self._suspend(lane.account, campaign.id, why)
        self._attend(lane)

    def turn(self) -> None:
        """Called each tick: the Date header's value is made once a second."""
        wall = int(self._now() + self._journal.wall_offset)
        if wall != self._date_at:
            self._date, self._date_at = formatdate(wall).encode(), wall

    def _has_expired(self, lane: Lane, lease: Lease, row: int) -> bool:
        """Its lifetime ran out while it waited: an outcome without a byte."""
        tries, first = lease.past[row]
        if self._active_seconds(lane, lease) - first <= lease.campaign.policy.lifetime:
            return False
        self.decide(lane, lease, row, Outcome.EXPIRED, *EXPIRED_TEXT, tries=tries)
        return True

    def suppress(self, lane: Lane, lease: Lease, row: int) -> None:
        """It is on the account's list."""
        tries = lease.past[row][0] if row in lease.past else 0
        self.decide(lane, lease, row, Outcome.SUPPRESSED, SUPPRESSED, f"suppressed: {lease.barred[row]}", tries)

    def decide(self, lane: Lane, lease: Lease, row: int, outcome: Outcome, status: str, text: str, tries: int = 0) -> None:
        """An outcome that needs no wire. The row was taken out of `pending` by the caller."""
        delivery = Delivery()
        delivery.lane, delivery.lease, delivery.row, delivery.tick = lane, lease, row, None
        lease.open += 1
        number = self._texts.number("", status, text, "")
        what = outcome | (0 if row in lease.past else records.FIRST_TRY)
        body = records.OUTCOME.pack(row, what, tries, number, 0, 0.0, 0.0, 0)  # no MAIL: it ends when it is settled
        self._mark(lease, row, outcome, status)
        self._journal.resolve(delivery, records.KIND_OUTCOME, body, 0.0, number)
        self._meter.outcome(outcome)

    def _mark(self, lease: Lease, row: int, outcome: Outcome, status: str) -> None:
        """What its end says of its address rides with the settlement of it. A number is tried, and charged, whenever it is asked for."""
        mark, address = mark_of(outcome, status), lease.recipients.get(row)
        if mark is not None and address is not None and not lease.share.lane.is_paid:
            lease.unmarked[row] = pack_mark(row, mark, address, self._settings.limits)

    # attempt -> outcome

    def withdraw(self, delivery: Delivery) -> None:
        """It was journalled and no try came of it: back to its lane."""
        self._journal.resolve(delivery, records.KIND_WITHDRAWN, bytes((delivery.row,)), 0.0, records.NO_REPLY)
        delivery.lease.open -= 1
        delivery.lane.return_row(delivery.lease, delivery.row)

    def finish(self, delivery: Delivery, attempt: Attempt) -> None:
        """What the channel saw, judged and journalled."""
        lease, lane = delivery.lease, delivery.lane
        past = lease.past.get(delivery.row) if lease.past else None
        tries = past[0] if past else 0
        age = self._active_seconds(lane, lease) - past[1] if past else 0.0
        verdict = judge(attempt, tries, age, lease.campaign.policy, self._rules)
        if lane.is_paid:
            self._count(lane, attempt)
        if verdict.action is _SENT:
            lane.accept(attempt.mail_at)
            lease.campaign.refused_in_row = 0
            if lease.soft and delivery.row in lease.soft:
                self._mark(lease, delivery.row, Outcome.SENT, verdict.status)
            if attempt.message_ids:
                self._expect(delivery, attempt.message_ids)
        else:
            self._feed_back(lane, lease.campaign, attempt, verdict)
            if verdict.action is Action.RETURNED:
                self.withdraw(delivery)
                self._attend(lane)
                if attempt.fault is Fault.UNSUITABLE and not lease.is_closing:
                    lane.give_back(lease)  # to be rendered anew, for what the site turned out to be
                return
        mail_at, mail_wall = attempt.mail_at, 0.0
        if mail_at:
            mail_wall = (mail_at + self._journal.wall_offset) * 1e6
            if lane.interval:
                self._keep_pace(lane, mail_at)
        what = 0 if past or not (verdict.spends_try or mail_at) else records.FIRST_TRY
        tries += verdict.spends_try
        if verdict.action is _DEFERRED and self._defer(delivery, verdict, what, tries, mail_wall):
            return
        outcome = OUTCOMES[verdict.action]
        number = self._number(delivery, attempt, verdict.status)
        fields = self._fields(delivery, attempt, outcome | what, tries, number, mail_wall)
        if verdict.action is _DOUBTFUL:
            body = records.DOUBT.pack(*fields, past[1] if past else int(self._active_seconds(lane, lease)))
            self._journal.resolve(delivery, records.KIND_DOUBT, body, mail_wall, number)
            self._meter.doubtful()
        else:
            if verdict.action is not _SENT:
                self._mark(lease, delivery.row, outcome, verdict.status)
            self._journal.resolve(delivery, records.KIND_OUTCOME, records.OUTCOME.pack(*fields), mail_wall, number)
            self._meter.outcome(outcome)

    def _count(self, lane: Lane, attempt: Attempt) -> None:
        if attempt.fault is Fault.THROTTLED:
            self._meter.throttled(lane.relay.site)
        elif attempt.mail_at:
            self._meter.submitted(lane.relay.site)

    def _keep_pace(self, lane: Lane, mail_at: float) -> None:
        error = lane.pace.add(mail_at, lane.interval)
        if error is not None:
            self._meter.rate_error(error)

    def _defer(self, delivery: Delivery, verdict: Verdict, what: int, tries: int, mail_wall: float) -> bool:
        """Try again later; False when its lifetime would be over by then."""
        lease, now = delivery.lease, self._active_seconds(delivery.lane, delivery.lease)
        past = lease.past.get(delivery.row)
        first = past[1] if past else int(now)
        if verdict.spends_try:
            delay = retry.delay(lease.campaign.retry, tries, self._jitter())
        else:  # the relay's refusal, not the recipient's: again as soon as the suspension ends
            delay = min(max(1.0, verdict.suspend_s), LONGEST_DELAY)
        if now + delay - first > lease.campaign.policy.lifetime:
            return False
        mail_ms = int(mail_wall / 1000) & 0xFFFFFFFF
        body = records.DEFERRED.pack(delivery.row, what, min(tries, TRIES_MOST), first, int(delay * 1000), mail_ms)
        self._journal.resolve(delivery, records.KIND_DEFERRED, body, mail_wall, records.NO_REPLY)
        self._meter.deferred(verdict.scope.name.lower())
        return True

    def _fields(
        self, delivery: Delivery, attempt: Attempt, what: int, tries: int, number: int, mail_wall: float
    ) -> tuple[int, int, int, int, int, float, float, int]:  # fmt: skip
        """What records.OUTCOME packs."""
        mail_at = attempt.mail_at or attempt.ended_at
        paced = mail_at - delivery.lease.taken_at - attempt.connect
        transmit = attempt.ended_at - mail_at
        connect = records.connect_code(attempt.connect) if attempt.connect else 0
        if paced < 0.0:
            paced = 0.0
        if paced > LONGEST_HALF or transmit > LONGEST_HALF:
            paced, transmit = min(paced, LONGEST_HALF), min(transmit, LONGEST_HALF)
        if tries > TRIES_MOST:
            tries = TRIES_MOST
        return delivery.row, what, tries, number, int(mail_wall / 1000) & 0xFFFFFFFF, paced, transmit, connect

    def _number(self, delivery: Delivery, attempt: Attempt, status: str) -> int:
        """The number of its reply, or of its fault, among the distinct ones."""
        reply = attempt.reply
        if reply is None:
            return self._texts.number(delivery.lane.relay.site, status, f"{attempt.fault}: {attempt.detail}", str(attempt.fault))
        key = (delivery.lane.feed, status, reply.code, reply.enhanced, strip_ids(reply.text))
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= REPLIES_MOST:
                self._numbers.clear()
            number = self._texts.number(delivery.lane.relay.site, status, str(reply), f"{reply.code} {reply.enhanced}".rstrip())
            self._numbers[key] = number
        return number

    def _active_seconds(self, lane: Lane, lease: Lease) -> float:
        """Wall seconds less the time that does not count against a lifetime."""
        return self._now() + self._journal.wall_offset - (lane.idle_us + lease.idle_us) / 1e6

    def _feed_back(self, lane: Lane, campaign: Campaign, attempt: Attempt, verdict: Verdict) -> None:
        """Trouble that is not the recipient's slows the site or suspends the account at this relay."""
        if verdict.scope in (Scope.ACCOUNT_RELAY, Scope.ACCOUNT_SITE):
            if lane.suspended_until <= self._now():
                lane.refuse(self._now(), verdict.suspend_s)
            reply = attempt.reply or attempt.detail
            taken = f"{lane.relay.site} takes this account's mail again (it is asked from time to time; now: {reply})"
            lane.bind = f"relay|{taken}"
            self._attend(lane)
        elif verdict.scope is Scope.MESSAGE and verdict.action is Action.BOUNCED:
            campaign.refused_in_row += 1
            if campaign.refused_in_row >= REFUSED_MOST:
                campaign.refused_in_row = 0
                self._suspend(lane.account, campaign.id, f"{REFUSED_MOST} messages in a row were refused: {attempt.reply}")
        elif verdict.scope is Scope.SITE and verdict.suspend_s:
            lane.feed.site.throttle(verdict.suspend_s, str(attempt.reply or attempt.detail))
