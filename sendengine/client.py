"""`Client`: everything a scheduler, a web process or the command line asks of the engine. It submits, steers and reads; it never sends.

    async with Client() as client:
        send = await client.submit(account="m1234", message=Message(...), recipients=rows, campaign="summer-1")

The server is the given URL, else SENDENGINE_REDIS_URL, REDIS_URL, else the embedded one. A Desk may be passed instead (queue/memory.py).
Campaigns are named m1234:ID, or ID where that is unambiguous. Errors are sendengine.errors: refused input changes nothing, Unavailable may
be repeated.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Self

import msgspec
import orjson

from sendengine import config as configuration
from sendengine import remedies
from sendengine.config import Config
from sendengine.errors import Conflict, RefusedInput, SendEngineError, Unavailable, about
from sendengine.intake import Intake
from sendengine.lanes import is_paid, others, owner, sms_lane
from sendengine.policy import entitlements, gate, prices
from sendengine.policy import retry as schedules
from sendengine.policy.apikeys import SECRET_OCTETS
from sendengine.policy.durability import Durability, weakest
from sendengine.policy.entitlements import EMAIL, SMS
from sendengine.policy.numbers import checked_region
from sendengine.policy.prices import PriceTable
from sendengine.policy.senders import sender_id
from sendengine.policy.suppression import Listed, Reason, Suppressed
from sendengine.policy.term import Verb
from sendengine.policy.tiers import parse_rate, unknown
from sendengine.policy.times import parse_duration, parse_time, possible
from sendengine.policy.window import Window
from sendengine.ports import Desk
from sendengine.records import TRANSACTIONAL
from sendengine.remedies import Tongue, said
from sendengine.render.message import Message
from sendengine.render.sms import Pricing, SmsText
from sendengine.scheduler import (
    accounts,
    apikeys,
    audit,
    billing,
    fsck,
    gates,
    hooks,
    loading,
    names,
    planning,
    prepaid,
    quarantine,
    resend,
    single,
    sources,
    submitting,
    suppressions,
    view,
    way,
    why,
)
from sendengine.scheduler.accounts import Account
from sendengine.scheduler.apikeys import KeyShown, NewKey
from sendengine.scheduler.awaited import awaited, open_orders
from sendengine.scheduler.billing import Applied
from sendengine.scheduler.binding import Binding
from sendengine.scheduler.distinct import Distinct
from sendengine.scheduler.fsck import Checked, Finding
from sendengine.scheduler.hooks import HookShown, NewHook
from sendengine.scheduler.loading import Loaded
from sendengine.scheduler.names import Ref
from sendengine.scheduler.outcomes import Outcomes, RecipientOutcome
from sendengine.scheduler.prepaid import Cost, Credits, Move
from sendengine.scheduler.quarantine import SetAside
from sendengine.scheduler.sources import Recipients
from sendengine.scheduler.status import Send, Status, as_send, status
from sendengine.scheduler.submitting import OnAbsent, OnReject, Order
from sendengine.scheduler.suppressions import Imported
from sendengine.scheduler.why import Why
from sendengine.types import OnDoubt, Relay, TlsPolicy

RECIPIENTS_MOST = 10**12
LONGEST_LIFETIME = 365 * 86400.0
Moment = str | float | datetime | None


class Client:
    """Owner of its desk, unless one was passed in. Usable inside `async with` only."""

    def __init__(
        self, url: str | None = None, *, desk: Desk | None = None, config: Config | None = None, tongue: Tongue = Tongue.COMMANDS
    ) -> None:
        self._url, self._given, self._given_config, self._tongue = url, desk, config, tongue
        self._desk: Desk | None = desk

    async def __aenter__(self) -> Self:
        self.config = self._given_config or configuration.load()
        self.tiers = configuration.tiers(self.config.tiers_file)
        self.reasons = configuration.reasons(self.config.holds_file)
        if self._desk is None:
            self._desk = await asyncio.to_thread(_redis_desk, self._url, self.config)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._desk is not None and self._given is None:
            await self._desk.close()
            self._desk = None

    @property
    def desk(self) -> Desk:
        if self._desk is None:
            raise SendEngineError("the client is not open", "use it inside `async with Client() as client:`")
        return self._desk

    # accounts

    async def create_account(
        self, account: str, tier: str, *, relay: Relay | str | None = None, retry: str | None = None, who: str = ""
    ) -> Account:
        """`tier` is a tier's name or messages per hour; `relay` a Relay, or smtp://host:port where no password is needed; `retry` the
        schedule of its sends, as in "1m, 5m*2, 1h". The same call again changes nothing. `who` and `why`,
        here and below, are for the audit trail. Raises Conflict, NotFound (tier), RefusedInput."""
        await accounts.create(self.desk, self.tiers, account, tier, relay, retry, self.config.relay_tls, who)
        return await self.account(account)

    async def set_tier(self, account: str, tier: str, *, who: str = "", why: str = "") -> Account:
        """In force within 1 s on every worker, mid-send too."""
        await accounts.set_tier(self.desk, self.tiers, account, tier, who, why)
        return await self.account(account)

    async def boost(
        self, account: str, rate: str, *, until: Moment, start: Moment = None, who: str = "", why: str = "", key: str | None = None
    ) -> Account:
        """A dated grant of speed, in force from `start` (now) until `until`, by itself: of the tier and all grants the highest rate holds.
        `rate` in messages per hour. The same `key` again is the same boost, for as long as the account shows it. Raises NotFound,
        RefusedInput, Conflict (the key is another boost's)."""
        now = await self._now()
        span = (now if start is None else _wall(start, now, "from") or now, _wall(until, now, "until") or 0.0)
        asked = sha256(repr((rate, start, until, why)).encode()).hexdigest()[:32] if key else ""
        await accounts.boost(self.desk, self.tiers, account, rate, span, who, why, key or "", asked)
        return await self.account(account)

    async def end_boost(self, account: str, number: int, *, who: str = "", why: str = "") -> Account:
        """From now on that boost does not hold. Raises NotFound when it is over or there is none."""
        await accounts.end_boost(self.desk, account, number, who, why)
        return await self.account(account)

    async def set_relay(
        self, account: str, relay: Relay | str | None = None, *, retry: str | None = None, who: str = "", why: str = ""
    ) -> Account:
        """The relay, its TLS and its credentials; within 1 s, mid-send too. What is on the wire ends at the old relay. The TLS policy stays
        until one is named: a URL names none, and a Relay without `tls` neither (`set_login` names it, too). `retry` is the
        schedule of the sends submitted from now on ("": the configuration's); what is None stays. Raises NotFound, RefusedInput; Conflict
        where the present relay cannot be read and no policy is named."""
        await way.change(self.desk, account, relay, retry, self.config.relay_tls, who, why)
        return await self.account(account)

    async def set_login(
        self, account: str, *, password: str | None = None, tls: TlsPolicy | None = None, retry: str | None = None, who: str = "",
        why: str = "",
    ) -> Account:  # fmt: skip
        """Another password or TLS policy for the account's present relay, and the schedule beside it; what is None stays. Raises Conflict,
        NotFound, RefusedInput."""
        await way.change(self.desk, account, way.Login(password, tls), retry, self.config.relay_tls, who, why)
        return await self.account(account)

    # term and holds

    async def hold(self, account: str, reason: str, *, text: str = "", who: str = "") -> Account:
        """Block its sending within 1 s, mid-send too, without losing or repeating anything; reading still works. Several may stand at once,
        one a reason; the same one again changes its text at most. Raises NotFound (account, reason), RefusedInput."""
        await gates.hold(self.desk, self.reasons, account, reason, text, who)
        return await self.account(account)

    async def release(self, account: str, reason: str, *, why: str = "", who: str = "") -> Account:
        """Lift a hold. With the last one sending resumes where it stopped, at its rate. Raises NotFound where none stands for it."""
        await gates.release(self.desk, account, reason, why, who)
        return await self.account(account)

    async def term(self, account: str) -> gates.Term:
        """Where it stands in its term."""
        await names.existing_account(self.desk, account)
        return gates.shown_term(await self._look(account))

    async def set_term(self, account: str, verb: str, *, ends: Moment = None, why: str = "", who: str = "") -> gates.Term:
        """`verb`: trial (begin one, until `ends`), renew (active until `ends`; None is without an end; of one in grace, too: sending
        resumes within 1 s), cancel (no renewal; nothing else changes before it ends), reactivate (take that back), expire (it ends now).
        Raises Conflict where its phase forbids that, RefusedInput, NotFound."""
        if verb not in list(Verb):
            raise RefusedInput(f"a term does not {verb!r}", f"one of {' '.join(Verb)}")
        until = _wall(ends, await self._now(), "ends")
        await gates.change_term(self.desk, self.config.account, account, Verb(verb), until, why, who)
        return await self.term(account)

    async def purge(self, account: str, *, who: str = "") -> None:
        """Delete everything of an account whose grace is over and whose purge is due (`term`); workers do so by themselves, within the
        hour. Its tombstone and its audit trail stay. Raises Conflict before its time, NotFound; Unavailable: the same call goes on."""
        await gates.purge(self.desk, account, who)

    async def audit(self, account: str) -> AsyncIterator[audit.Entry]:
        """Who did what to an account, when and why; the oldest first. Of an account that is gone, too. Raises NotFound."""
        has_any = False
        async for entry in audit.read(self.desk, names.account_id(account)):
            has_any = True
            yield entry
        if not has_any:
            await names.existing_account(self.desk, account)

    async def note(self, account: str, what: str, who: str, why: str = "", **facts: str) -> None:
        """A line of the audit trail, for a change whose verb notes none itself."""
        await self.desk.note(account, audit.line(what, who, why, **facts))

    async def account(self, account: str) -> Account:
        await names.existing_account(self.desk, account)
        return await self._shown(*await why.lanes_of(self.desk, account, self._tongue))

    async def _look(self, account: str, *also: str) -> view.View:
        return await view.look(self.desk, account, *also, tongue=self._tongue)

    async def _shown(self, found: view.View, *others: view.View) -> Account:
        account = owner(found.account)
        bought, waits = await prepaid.show(self.desk, account), await awaited(self.desk, account, found.home)
        orders = await open_orders(self.desk, account, found.home)
        return msgspec.structs.replace(
            accounts.shown(found, *others), credits=bought.free if bought.granted else None, billing_waits=waits, orders=orders
        )

    async def accounts(self) -> AsyncIterator[Account]:
        for account in await self.desk.accounts():
            found = await why.lanes_of(self.desk, account, self._tongue)
            if found[0].fields:
                yield await self._shown(*found)

    # what was sold

    async def apply_event(self, raw: bytes, headers: Mapping[str, str]) -> Applied:
        """An event from billing: its octets as they came, and the headers with its signature (policy.billing). Raises Forged, and what else
        scheduler.billing.apply_event does."""
        secrets, offer = configuration.billing_secrets(self.config), configuration.offer(self.config)
        return await billing.apply_event(self.desk, raw, headers, secrets, await self._now(), offer)

    # who gets nothing any more

    async def suppress(self, account: str, addresses: Iterable[str], reason: str = "manual", *, who: str = "") -> Listed:
        """E-mail addresses, and numbers as in +46701234567, onto the account's list, within 1 s for every worker, mid-send too: who of a
        send was not reached by then ends as `suppressed`.
        `reason`: unsubscribed (single messages go to them yet), manual, soft-bounced, hard-bounced or complained; the graver one stands.
        How many were not on it, or stood there for a lighter reason. Raises NotFound, RefusedInput: then nothing was changed."""
        await names.existing_account(self.desk, names.account_id(account))
        named = list(addresses)
        listed = await suppressions.add(self.desk, account, named, reason, await self._now(), who, _run())
        if suppressions.reason_named(reason) is Reason.COMPLAINED:
            await hooks.complained(self.desk, account, named)  # told again by a repeat: its caller heard no answer
        return listed

    async def unsuppress(self, account: str, addresses: Iterable[str], *, who: str = "") -> int:
        """Off the list, whatever the reason; how many stood on it. A send that passed them by does not come back to them."""
        await names.existing_account(self.desk, names.account_id(account))
        return await suppressions.remove(self.desk, account, addresses, who, _run())

    async def suppressed(
        self, account: str, addresses: Iterable[str] | None = None, *, reason: str | None = None
    ) -> AsyncIterator[Suppressed]:
        """The list, or those of `addresses` that are on it. In no order; while it grows one may come twice."""
        await names.existing_account(self.desk, names.account_id(account))
        if addresses is None:
            reading = suppressions.listed(self.desk, account, reason)
        else:
            reading = suppressions.found(self.desk, account, addresses)
        async for each in reading:
            yield each

    async def import_suppressed(
        self, account: str, source: suppressions.Source, reason: str = "manual", on_reject: suppressions.OnReject | None = None, *,
        who: str = "",
    ) -> Imported:  # fmt: skip
        """Any (async) iterable of addresses or of mappings with `email`, and where they have them `reason` and `since`; or a Path to CSV,
        NDJSON or bare addresses (`-` is standard input). In constant memory; the same again changes nothing."""
        await names.existing_account(self.desk, names.account_id(account))
        return await suppressions.load(self.desk, account, source, reason, await self._now(), on_reject, who, _run())

    # API keys

    async def create_key(self, account: str | None = None, *, scopes: Iterable[str], seat: str, who: str = "") -> NewKey:
        """Of an account, or (None) the operator's, which opens every account. `scopes`: of `read`, `send`, `admin`; `seat`: who holds it.
        Its `key` is shown here and never again. Raises NotFound, RefusedInput, Conflict (no seat is free)."""
        return await apikeys.create(self.desk, account, scopes, seat, os.urandom(SECRET_OCTETS), who)

    async def keys(self, owner: str | None = None) -> builtins.list[KeyShown]:
        """Of an account, of `admin` (the operator's), or all."""
        return await apikeys.listed(self.desk, owner)

    async def revoke_key(self, key_id: str, owner: str | None = None, *, who: str = "") -> KeyShown:
        """From the next request on it opens nothing. Raises NotFound; with `owner`, also for another one's key."""
        return await apikeys.revoke(self.desk, key_id, owner, who)

    # webhooks out

    async def create_hook(
        self, account: str, url: str, events: Iterable[str], *, seat: str = "", credit_below: int = 100, may_be_private: bool = False,
        who: str = "",
    ) -> NewHook:  # fmt: skip
        """Told, at least once, of what happens from now on. Its secret is shown here only. Raises NotFound, RefusedInput, Conflict."""
        chance = os.urandom(hooks.CHANCE_OCTETS)
        return await hooks.create(self.desk, account, url, list(events), credit_below, seat, chance, may_be_private, who)

    async def hooks(self, account: str) -> builtins.list[HookShown]:
        return await hooks.listed(self.desk, account)

    async def remove_hook(self, account: str, hook: str, *, who: str = "") -> HookShown:
        return await hooks.remove(self.desk, account, hook, who)

    async def rotate_hook(self, account: str, hook: str, *, who: str = "") -> NewHook:
        """Another secret; the present one signs beside it for a day."""
        return await hooks.rotate(self.desk, account, hook, os.urandom(hooks.CHANCE_OCTETS), who)

    async def try_hook(self, account: str, hook: str) -> HookShown:
        """An event `test` goes to it, and is tried as any other."""
        return await hooks.attempt(self.desk, account, hook)

    # submitting

    async def submit(
        self, *, account: str, message: Message, recipients: Recipients, campaign: str | None = None, at: Moment = None,
        sequential: bool = False, priority: str | None = None, window: str | None = None, on_doubt: str = "resend", strict: bool = False,
        retry: str | None = None, lifetime: str | float | None = None, sender: str = "", on_reject: OnReject | None = None,
        on_absent: OnAbsent | None = None, created_by: str = "", who: str = "",
    ) -> Send:  # fmt: skip
        """`recipients`: any (async) iterable of mappings with `email`, or a Path to CSV or NDJSON (`-` is standard input). `sender` is the
        envelope's, else the address in From. `retry`: when it tries again, as in "1m, 5m*2, 1h" (else as the account or the configuration
        says); `lifetime`: how long, "12h" or seconds. `strict`: one bad row refuses the whole list. `on_reject` gets refused rows as they
        are met, `on_absent` each field that has a default and was in no column, with the nearest column.

        Raises NotFound, RefusedInput, Conflict (the id stands with other rows or settings; the account is held, in grace or deleted) and
        Unavailable (repeat the call)."""
        order = await self._order(
            account, message, campaign, at, sequential, priority, window, on_doubt, retry, lifetime, sender, created_by
        )  # fmt: skip
        return await self._submit(_made_by(order, "send.create", who), recipients, strict, on_reject, on_absent)

    async def _order(
        self, account: str, message: Message, campaign: str | None, at: Moment, sequential: bool, priority: str | None, window: str | None,
        on_doubt: str, retry: str | None, lifetime: str | float | None, sender: str, created_by: str,
    ) -> Order:  # fmt: skip
        await self._admitted(account, EMAIL)
        return self._ordered(
            account, message, await self._now(), campaign, at, sequential, priority, window, on_doubt, retry, lifetime, sender,
            created_by,
        )  # fmt: skip

    def _ordered(
        self, lane: str, message: Message, now: float, campaign: str | None, at: Moment, sequential: bool, priority: str | None,
        window: str | None, on_doubt: str, retry: str | None, lifetime: str | float | None, sender: str, created_by: str,
    ) -> Order:  # fmt: skip
        """What both channels have in common, each word of it looked at."""
        with about("campaign"):
            name = names.campaign_id(campaign) if campaign else names.new_campaign_id(now, os.urandom(4))
        with about("window"):
            hours = Window.parse(window).text if window else ""
        with about("on_doubt"):
            doubt = _on_doubt(on_doubt)
        with about("retry"):
            tries = schedules.tidy(retry) if retry else ""
        with about("lifetime"):
            seconds = _lifetime(lifetime)
        for field, text in (("priority", priority or ""), ("created_by", created_by)):
            if not text.isprintable():
                raise RefusedInput(f"{field} {text!r} holds control characters or no Unicode text")
        return Order(
            ref=Ref(lane, name), message=message, sender=sender, at="" if at is None else str(at), start=_wall(at, now, "at"),
            sequential=sequential, priority=priority or "", window=hours, on_doubt=doubt, retry=tries, lifetime=seconds,
            created_by=created_by,
        )  # fmt: skip

    async def open(
        self, *, account: str, message: Message, campaign: str | None = None, at: Moment = None, sequential: bool = False,
        priority: str | None = None, window: str | None = None, on_doubt: str = "resend", strict: bool = False, retry: str | None = None,
        lifetime: str | float | None = None, sender: str = "", created_by: str = "", who: str = "",
    ) -> Send:  # fmt: skip
        """A send without its list, which `load` brings and `seal` ends: for lists that come in pieces. Else as `submit`."""
        order = await self._order(
            account, message, campaign, at, sequential, priority, window, on_doubt, retry, lifetime, sender, created_by
        )  # fmt: skip
        return await self._open(_made_by(order, "send.create", who), strict)

    async def _open(self, order: Order, strict: bool) -> Send:
        created = await loading.open_send(self.desk, self.config, order, _uid(), strict)
        return as_send(await self._status(order.ref), created)

    async def load(
        self, campaign: str, chunks: AsyncIterable[bytes], *, first_batch: int = 0, on_reject: OnReject | None = None,
        pool: Executor | None = None, who: str = "",
    ) -> Loaded:  # fmt: skip
        """CSV or NDJSON into an opened send. `first_batch`: 0, or the `next_batch` of the list before. Sending may begin at once, but where
        the send is sequential, strict or reversed. The reader waits in a thread of `pool` (the loop's own) for each chunk.

        Raises RefusedInput, Conflict (other rows stand there), Unavailable: the same call goes on."""
        ref = await names.resolve(self.desk, campaign)
        table = await self._prices(ref, await self._now()) if is_paid(ref.account) else None
        return await loading.load(self.desk, ref, table, chunks, first_batch, pool, on_reject, who)

    async def seal(self, campaign: str, *, rows: int | None = None, who: str = "") -> Send:
        """The list of an opened send is complete. `rows`: how many it must have; without it, a list whose upload has begun and not ended is
        refused. Raises Conflict, RefusedInput."""
        ref = await names.resolve(self.desk, campaign)
        is_new = await loading.seal(self.desk, ref, rows, _line("send.seal", ref, who))
        return as_send(await self._status(ref), is_new)

    async def submit_sms(
        self, *, account: str, sender: str, text: str, recipients: Recipients, campaign: str | None = None, at: Moment = None,
        sequential: bool = False, priority: str | None = None, window: str | None = None, on_doubt: str = "resend", strict: bool = False,
        retry: str | None = None, lifetime: str | float | None = None, region: str = "", on_reject: OnReject | None = None,
        on_absent: OnAbsent | None = None, created_by: str = "", who: str = "",
    ) -> Send:  # fmt: skip
        """As `submit`, with rows that have a `phone`; `region` (SE) is where numbers without a country code are at home. It costs credits
        by the price table in force when it is created: what its list costs is reserved as it is stored, and nothing goes before all is.

        Raises RefusedInput, too, where there is not enough credit: buy, and repeat the call."""
        order = await self._sms_order(
            account, sender, text, campaign, at, sequential, priority, window, on_doubt, retry, lifetime, region, created_by
        )  # fmt: skip
        return await self._submit(_made_by(order, "sms.create", who), recipients, strict, on_reject, on_absent)

    async def open_sms(
        self, *, account: str, sender: str, text: str, campaign: str | None = None, at: Moment = None, sequential: bool = False,
        priority: str | None = None, window: str | None = None, on_doubt: str = "resend", strict: bool = False, retry: str | None = None,
        lifetime: str | float | None = None, region: str = "", created_by: str = "", who: str = "",
    ) -> Send:  # fmt: skip
        """As `submit_sms`, without its list, which `load` brings and `seal` ends."""
        order = await self._sms_order(
            account, sender, text, campaign, at, sequential, priority, window, on_doubt, retry, lifetime, region, created_by
        )  # fmt: skip
        return await self._open(_made_by(order, "sms.create", who), strict)

    async def _sms_order(
        self, account: str, sender: str, text: str, campaign: str | None, at: Moment, sequential: bool, priority: str | None,
        window: str | None, on_doubt: str, retry: str | None, lifetime: str | float | None, region: str, created_by: str,
    ) -> Order:  # fmt: skip
        await self._admitted(account, SMS)
        lane = await accounts.open_sms(self.desk, self.tiers, account, self.config.sms_rate)
        now = await self._now()
        with about("sender"):
            who = sender_id(sender).text
        with about("region"):
            home = checked_region(region)
        order = self._ordered(
            lane, Message(sender=sender, text=text), now, campaign, at, sequential, priority, window, on_doubt, retry, lifetime, who,
            created_by,
        )  # fmt: skip
        return msgspec.structs.replace(order, region=home, prices=await self._prices(order.ref, now))

    async def _prices(self, ref: Ref, now: float) -> PriceTable:
        """The version in force, or that by which a send was created."""
        tables = configuration.price_tables(self.config.prices_file)
        standing = (await self.desk.campaign(ref.account, ref.id)).get("prices")
        return prices.version(tables, standing) if standing else prices.in_force(tables, datetime.fromtimestamp(now, UTC).date())

    async def set_sms(
        self, account: str, *, rate: str | None = None, provider: str | None = None, who: str = "", why: str = ""
    ) -> Account:
        """The SMS rate of an account, in messages per hour or as a tier, and who carries them ("": the configuration's provider)."""
        with about("provider"):
            if provider and provider not in (known := configuration.providers(self.config.providers_file)):
                raise unknown("no provider", provider, known, "; providers_file has them")
        with about("rate"):
            parse_rate(rate or self.config.sms_rate, self.tiers)
        lane = await accounts.open_sms(self.desk, self.tiers, account, self.config.sms_rate)
        if provider is not None:
            await accounts.set_provider(self.desk, lane, provider, who, why)
        if rate is not None:
            await accounts.set_tier(self.desk, self.tiers, lane, rate, who, why)
        return await self.account(lane)

    # credits

    async def grant_credits(
        self, account: str, amount: str | float, *, key: str | None = None, at: Moment = None, who: str = "", why: str = ""
    ) -> Credits:
        """A lot of SMS credits. The same `key` (of the order, say) again changes nothing. `at`: when it was bought."""
        await accounts.open_sms(self.desk, self.tiers, account, self.config.sms_rate)
        now = await self._now()
        bought = now if at is None else _wall(at, now, "at") or now
        if bought > now + 1:
            raise RefusedInput("credits cannot have been bought in the future")
        await prepaid.grant(self.desk, account, prepaid.amount_of(amount), key, _uid(), bought, who, why)
        return await prepaid.show(self.desk, account)

    async def credits(self, account: str) -> Credits:
        await names.existing_account(self.desk, names.account_id(account))
        return await prepaid.show(self.desk, account)

    async def credit_history(self, account: str) -> AsyncIterator[Move]:
        """The ledger, oldest first."""
        await names.existing_account(self.desk, names.account_id(account))
        async for move in prepaid.history(self.desk, account):
            yield move

    async def sms_cost(self, account: str, text: str, recipients: Recipients, *, region: str = "") -> Cost:
        """What a list would cost by the prices in force: what it is charged when it is submitted, and all of it is sent."""
        await names.existing_account(self.desk, names.account_id(account))
        ref = Ref(sms_lane(account), "estimate")
        table = prices.in_force(configuration.price_tables(self.config.prices_file), datetime.fromtimestamp(await self._now(), UTC).date())
        said = SmsText(Message(text=text))
        order = Order(ref=ref, message=Message(text=text), region=checked_region(region), prices=table)
        pricing = Pricing(said, table)
        return await prepaid.cost(self.desk, account, recipients, submitting.intake_of(order, said, pricing), pricing)

    async def resend(self, campaign: str, *, who: str = "") -> Send:
        """A new send, ID-r1, to those of a send without `sent`. Raises Conflict unless that has ended."""
        ref = await names.resolve(self.desk, campaign)
        await self._admitted(owner(ref.account), SMS if is_paid(ref.account) else EMAIL)
        order = await resend.order_again(self.desk, ref)
        if is_paid(ref.account):
            order = msgspec.structs.replace(order, prices=await self._prices(order.ref, await self._now()))
        if await anext(resend.missing(self.desk, ref), None) is None:
            raise Conflict(f"{ref}: every recipient was sent to", said("nobody is missing: ", remedies.outcomes(str(ref)), " shows each"))
        return await self._submit(_made_by(order, "send.resend", who, of=ref.id), resend.missing(self.desk, ref), False, None)

    async def _submit(
        self, order: Order, recipients: Recipients, strict: bool, on_reject: OnReject | None, on_absent: OnAbsent | None = None
    ) -> Send:  # fmt: skip
        made = await submitting.submit(self.desk, self.config, order, _uid(), recipients, strict, on_reject, on_absent)
        return as_send(await self._status(order.ref), made.is_new, made.added)

    async def send(
        self, *, account: str, message: Message, to: str, sender: str = "", fields: Mapping[str, Any] | None = None, key: str | None = None
    ) -> single.Single:  # fmt: skip
        """One transactional message, ahead of bulk. The same `key` again is the same message, for as long as outcomes are kept; without
        one, each call is a message of its own. Raises Conflict where another message has the key, or the account is held, in grace or
        deleted."""
        await self._admitted(account, EMAIL)
        return await self._single(single.Asked(lane=account, message=message, to=to, key=key or _uid(), sender=sender, fields=fields or {}))

    async def send_sms(
        self, *, account: str, sender: str, text: str, to: str, region: str = "", fields: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> single.Single:  # fmt: skip
        """One transactional SMS, ahead of bulk in the rate of the account's SMS; else as `send`. What it costs by the prices of now is
        reserved; RefusedInput where that is more than is free. `region`: where a number without a country code is at home."""
        await self._admitted(account, SMS)
        lane = await accounts.open_sms(self.desk, self.tiers, account, self.config.sms_rate)
        return await self._single(
            single.Asked(
                lane=lane, message=Message(sender=sender, text=text), to=to, key=key or _uid(), sender=sender, fields=fields or {},
                region=checked_region(region), prices=await self._prices(Ref(lane, TRANSACTIONAL), await self._now()),
            )
        )  # fmt: skip

    async def _single(self, asked: single.Asked) -> single.Single:
        try:
            return await single.send(self.desk, self.config, asked, _uid())
        except Unavailable as error:
            again = f"it may be queued already: the same call with the key {asked.key!r} never makes it two"
            raise Unavailable(str(error), again) from error

    async def _admitted(self, account: str, channel: str) -> None:
        """Raises Conflict with the remedy where an account takes no sends now, or its edition has no such channel."""
        fields = await names.existing_account(self.desk, names.account_id(account))
        gate.admit(account, fields, await self._now())
        entitlements.admit(account, fields, channel)

    async def estimate(self, account: str, recipients: int, *, at: Moment = None, finish_by: Moment = None) -> planning.Estimate:
        await names.existing_account(self.desk, account)
        now = await self._now()
        if not 0 <= recipients <= RECIPIENTS_MOST:
            raise RefusedInput(f"an estimate is for 0 to {RECIPIENTS_MOST:,} recipients")
        found = await self._look(account)
        return planning.plan(found, self.tiers, recipients, _wall(at, now, "at"), _wall(finish_by, now, "finish_by"))

    async def count(self, recipients: Recipients) -> int:
        """Recipients of a list as a submit takes them: rows with a valid address, exact duplicates once. In constant memory."""
        with Distinct() as distinct:
            async for batch in sources.batches(recipients, Intake((), salt=b"count")):
                distinct.add(batch.fingerprints)
            return await asyncio.to_thread(distinct.count)

    # steering

    async def pause(self, campaign: str, *, who: str = "") -> Status:
        return await self._steer("pause", campaign, who)

    async def resume(self, campaign: str, *, who: str = "") -> Status:
        return await self._steer("resume", campaign, who)

    async def cancel(self, campaign: str, *, who: str = "") -> Status:
        return await self._steer("cancel", campaign, who)

    async def reverse(self, campaign: str, *, who: str = "") -> Status:
        """Swaps the order of those not yet taken."""
        return await self._steer("reverse", campaign, who)

    async def move(self, campaign: str, direction: str, *, who: str = "") -> Status:
        """A waiting sequential send one place `up` or `down` the line. Raises Conflict where it waits in none, or cannot go further."""
        if direction not in ("up", "down"):
            raise RefusedInput(f"a send moves up or down, not {direction!r}")
        _refuse_single_messages(campaign)
        ref = await names.resolve(self.desk, campaign)
        answer = await self.desk.move(ref.account, ref.id, direction, line=_line("send.move", ref, who, direction=direction))
        if answer == "same":
            raise Conflict(f"{ref} is {'the next' if direction == 'up' else 'the last'} in the line: it cannot move {direction}")
        if answer != "done":
            raise Conflict(f"{ref} is {answer} and waits in no line", "only a sequential send that waits for its turn can be moved")
        return await self._status(ref)

    async def _steer(self, verb: str, campaign: str, who: str) -> Status:
        _refuse_single_messages(campaign)
        return await self._verb(verb, campaign, who)

    async def _verb(self, verb: str, campaign: str, who: str) -> Status:
        ref = await names.resolve(self.desk, campaign)
        answer = await getattr(self.desk, verb)(ref.account, ref.id, line=_line(f"send.{verb}", ref, who))
        if answer not in ("done", "same"):
            raise Conflict(f"{ref} is {answer}, and takes no {verb} any more", remedies.after_its_end(str(ref)))
        return await self._status(ref)

    async def replay(self, campaign: str, *, who: str = "") -> Status:
        """What was set aside because workers died of it may be sent again."""
        return await self._verb("replay", campaign, who)

    # looking

    async def status(self, campaign: str) -> Status:
        return await self._status(await names.resolve(self.desk, campaign))

    async def _status(self, ref: Ref) -> Status:
        return status(await self._look(ref.account, ref.id), ref.id)

    async def watch(self, campaign: str, every: float = 1.0) -> AsyncIterator[Status]:
        """The status whenever it has changed, looked at each `every` seconds; the last one is that of its end."""
        ref = await names.resolve(self.desk, campaign)
        before = None
        while True:
            now = await self._status(ref)
            if now != before:
                yield now
            if now.finished_at is not None:
                return
            before = now
            await asyncio.sleep(every)

    async def list(self, account: str | None = None, *, ended: bool = True) -> AsyncIterator[Status]:
        """All sends, or those of one account, oldest first; without `ended` those that go on."""
        if account is not None:
            await names.existing_account(self.desk, account)
        for each in [account] if account else await self.desk.accounts():
            found = await (view.look_at_all(self.desk, each, self._tongue) if ended else self._look(each))
            for name in found.sends if ended else found.going_on:
                yield status(found, name)

    async def outcomes(self, campaign: str, *, follow: bool = False) -> AsyncIterator[RecipientOutcome]:
        """One per recipient that has ended, in the order of settlement; with `follow` until the send has ended."""
        ref = await names.resolve(self.desk, campaign)
        async for outcome in Outcomes(self.desk, ref).read(follow):
            yield outcome

    async def why(self, name: str) -> Binding | None:
        """What binds an account (m1234) or a send now; None when nothing does."""
        return (await self.explain(name)).binding

    async def explain(self, name: str) -> Why:
        """As `why`, and of which send that is said, and what it waits for when nothing binds."""
        if names.is_account(name) and not await self.desk.holders(name):
            await names.existing_account(self.desk, name)
            return await why.of_account(self.desk, name, self._tongue)
        return await why.of_send(self.desk, await names.resolve(self.desk, name), self._tongue)

    async def fsck(self, campaign: str | None = None, *, repair: bool = False, who: str = "") -> AsyncIterator[Finding]:
        """What does not add up, of one send or of all. Nothing is changed without `repair`."""
        async for checked in self.check(campaign, repair=repair, who=who):
            for finding in checked.findings:
                yield finding

    async def check(
        self, campaign: str | None = None, *, account: str | None = None, repair: bool = False, who: str = ""
    ) -> AsyncIterator[Checked]:
        """As `fsck`, but one for each send, those that add up too; and one for each lane whose money does not (m1234/sms)."""
        if campaign and not is_paid(campaign) and names.is_account(campaign) and not await self.desk.holders(campaign):
            await names.existing_account(self.desk, campaign)
            campaign, account = None, campaign
        if campaign and is_paid(campaign):  # of a lane, its money
            yield Checked(names.lane_id(campaign), 0, await prepaid.check(self.desk, campaign))
            return
        for ref in await self._refs(campaign, account):
            yield await fsck.check(self.desk, ref, repair, _line("send.repair", ref, who))
        for lane in [] if campaign else filter(is_paid, await self._lanes(account)):
            if found := await prepaid.check(self.desk, lane):
                yield Checked(lane, 0, found)

    async def quarantined(self, campaign: str | None = None, *, account: str | None = None) -> AsyncIterator[SetAside]:
        """Batches set aside, of one send, of one account or of all: three workers in a row died with them in hand."""
        for ref in await self._refs(campaign, account):
            for aside in await quarantine.read(self.desk, ref):
                yield aside

    async def _refs(self, campaign: str | None, account: str | None) -> builtins.list[Ref]:
        if campaign:
            return [await names.resolve(self.desk, campaign)]
        return [Ref(lane, name) for lane in await self._lanes(account) for name in await self.desk.campaigns(lane)]

    async def _lanes(self, account: str | None) -> builtins.list[str]:
        """Of one account, or all there are."""
        return await self.desk.accounts() if account is None else [account, *others(account)]

    async def workers(self) -> dict[str, dict[str, Any]]:
        """What each registered worker last said of itself, when (`last_seen`) and how many seconds ago (`silent_s`); {} of one that has
        said nothing for a day."""
        heard, now = await self.desk.workers(), await self._now()
        return {
            name: {**orjson.loads(each.said), "last_seen": view.wall(now - each.age), "silent_s": round(each.age, 3)}
            if each.age is not None
            else {}
            for name, each in heard.items()
        }

    async def durability(self) -> Durability:
        """What may be lost of that which the server acknowledges, by its own settings and the key `durability`."""
        return weakest(await self.desk.persistence(), self.config.wait_ms > 0)

    async def _now(self) -> float:
        return await self.desk.now_us() / 1e6


def _made_by(order: Order, what: str, who: str, **facts: str) -> Order:
    """With its line for the audit trail."""
    return msgspec.structs.replace(order, line=_line(what, order.ref, who, **facts), who=who)


def _line(what: str, ref: Ref, who: str, **facts: str) -> bytes:
    return audit.line(what, who, send=ref.id, **facts)


def _refuse_single_messages(campaign: str) -> None:
    if names.is_of_single_messages(campaign):
        raise Conflict(
            f"{campaign} holds the account's single messages: each goes out in the next free slot, they are not steered as a send is",
            remedies.said(remedies.outcomes(campaign), " shows what became of each"),
        )


def _redis_desk(url: str | None, config: Config) -> Desk:
    """In a thread: importing redis-py and starting a server take their time."""
    from pathlib import Path

    from sendengine.queue.desk import RedisDesk
    from sendengine.queue.embedded import resolve_url

    found = resolve_url(os.environ, url or config.redis_url, Path(config.state_dir) if config.state_dir else None)
    own, account = config.engine, config.account
    return RedisDesk(found, own.cut_delay_ms * 1000, int(config.retention_days * 86400), config.wait_ms, account.audit_days)


def _uid() -> str:
    """Names a send in Message-IDs."""
    return os.urandom(6).hex()


def _run() -> str:
    """Names a change that is made in parts."""
    return os.urandom(8).hex()


def _on_doubt(text: str) -> OnDoubt:
    try:
        return OnDoubt(text)
    except ValueError:
        raise RefusedInput(f"on_doubt is resend or hold, not {text!r}") from None


def _lifetime(given: str | float | None) -> float | None:
    """Seconds, whole ones; the engine counts no finer."""
    seconds = parse_duration(given) if isinstance(given, str) else given
    if seconds is not None and not 1 <= seconds <= LONGEST_LIFETIME:
        raise RefusedInput(f"a lifetime of {given} is outside 1s to 365d", "write it as in 12h or 2d")
    return None if seconds is None else float(round(seconds))


def _wall(moment: Moment, now: float, field: str) -> float | None:
    with about(field):
        if isinstance(moment, str):
            return parse_time(moment, now)
        if isinstance(moment, datetime):
            moment = moment.timestamp()
        return None if moment is None else possible(moment)
