"""Signed sends, from the submit to the relay's octets: dkimpy verifies what came over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sendengine.engine.signer import PENDING_MOST, SLICE, UNMETERED
from sendengine.errors import SendEngineError
from sendengine.keyring import Keyring
from sendengine.policy.signing import ED25519, RSA, KeyEntry
from sendengine.queue.memory import MemoryQueue
from sendengine.render.dkim import SigningKey
from sendengine.render.message import Message
from tests.engine.rig import EPOCH, Rig
from tests.engine.smtp_relay import SmtpRelay, start
from tests.engine.test_engine import virtual
from tests.engine.test_turns import transact
from tests.verifying import SEED, published, rsa_pem, tags, verdicts

DOMAIN = "example.com"
ED = KeyEntry(DOMAIN, "ed", ED25519, SEED, "ed.pem")
ONE = KeyEntry(DOMAIN, "one", RSA, rsa_pem("one"), "one.pem")
KEYS = published(**{f"{entry.selector}._domainkey.{DOMAIN}": entry.text for entry in (ED, ONE)})
MESSAGES = {
    "plain": Message(sender="Shop <shop@example.com>", subject="Hi {{ name }}", text=".dots\n..and {{ name }}\n.\n"),
    "8bit": Message(sender="shop@example.com", subject="Čau {{ name }}", text="ž {{ name }} \t\n\n", html="<p>{{ name }}  ž</p>"),
    "logic": Message(sender="shop@example.com", subject="s", text="{% if name %}Dear  {{ name | upper }} \n{% endif %}\n.\n\n"),
    "same": Message(sender="shop@example.com", subject="s", text="Hello\n"),
}  # fmt: skip


class Slow:
    """A keyring whose signatures take so long, during which the loop stands still."""

    def __init__(self, rig: Rig, entry: KeyEntry, seconds: float, breaks_after: int = 10**9) -> None:
        self._loop, self._seconds, self._keyring = rig.loop, seconds, Keyring([entry])
        self._breaks_after = breaks_after
        self.signed = 0

    def keys_of(self, from_domain: str) -> tuple[SigningKey, ...]:
        return tuple(SigningKey(key.domain, key.selector, key.algorithm, self._slowly(key)) for key in self._keyring.keys_of(from_domain))

    def _slowly(self, key: SigningKey) -> Callable[[bytes], bytes]:
        def sign(digest: bytes) -> bytes:
            self._loop.stand_still(self._seconds)
            self.signed += 1
            if self.signed > self._breaks_after:
                raise SendEngineError("the key broke")
            return key.sign(digest)

        return sign

    def learn(self, stored: object) -> None: ...
    def turn(self, now_us: float) -> None: ...


async def signed_send(rig: Rig, relay: SmtpRelay, n: int = 5, **more: Any) -> list[bytes]:
    await rig.submit(n, **more)
    await rig.until_ended()
    return relay.messages


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_of_a_send_verifies_by_both_signatures(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @virtual
    async def sends() -> None:
        relay, rig = SmtpRelay(monkeypatch), Rig()
        await rig.account()
        start(rig, keyring=Keyring([ED, ONE]))
        messages = await signed_send(rig, relay, 105, message=MESSAGES[kind])
        assert len(messages) == 105
        for message in messages:
            assert [tags(message, at)["a"] for at in (0, 1)] == [ED25519, RSA]
            assert verdicts(message, KEYS) == [True, True]
            assert verdicts(message[:-3] + b"!\r\n", KEYS) == [False, False]
        await rig.stop()

    sends()


@pytest.mark.parametrize("sender", ["a@news.shop.example.com", "a@EXAMPLE.com"])
def test_a_domain_below_is_signed_by_its_parents_key(sender: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @virtual
    async def sends() -> None:
        relay, rig = SmtpRelay(monkeypatch), Rig()
        await rig.account()
        start(rig, keyring=Keyring([ED]))
        (message,) = await signed_send(rig, relay, 1, message=Message(sender=sender, subject="s", text="t\n"))
        assert tags(message)["d"] == DOMAIN
        assert verdicts(message, KEYS) == [True]
        await rig.stop()

    sends()


@virtual
async def test_a_domain_without_a_key_is_sent_unsigned_and_waits_for_nobody() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    for account in ("m1", "m2"):
        await rig.account(account, per_hour=360_000.0)
    start(rig, keyring=Slow(rig, ED, 0.009))
    await rig.submit(500, "signed", "m1")
    await rig.submit(100, "other", "m2", message=Message(sender="a@example.net", subject="s", text="t\n"))
    began = rig.loop.time()
    await rig.until_ended("other", "m2")
    assert rig.loop.time() - began < 1.0 + 1.0  # at its rate, whatever the other's signatures take
    others = [message for message, name in zip(relay.messages, relay.taken, strict=True) if name.startswith("other-")]
    assert len(others) == 100
    assert not any(b"DKIM" in message for message in others)
    await rig.until_ended("signed", "m1")
    assert len(relay.taken) == 600
    await rig.stop()
    patch.undo()


@virtual
async def test_signed_messages_keep_their_order_and_few_wait_at_a_time() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=None)
    names = await rig.submit(2000)
    worker = start(rig, keyring=Slow(rig, ED, 0.0003))
    most = 0
    while (await rig.status()).get("finished") is None:
        await asyncio.sleep(0.001)
        most = max(most, worker._signer.pending)
    assert SLICE / 0.0003 < most <= PENDING_MOST * UNMETERED
    assert sorted(relay.taken) == sorted(names)
    places = {name: at for at, name in enumerate(names)}
    assert all(taken == sorted(taken, key=places.__getitem__) for taken in relay.by_connection.values())
    assert all(verdicts(message, KEYS) == [True] for message in relay.messages[::100])
    await rig.stop()
    patch.undo()


@virtual
async def test_a_rotation_is_taken_up_within_five_seconds_and_at_its_date() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=36_000.0)
    two = KeyEntry(DOMAIN, "two", RSA, rsa_pem("two"), "", (EPOCH + rig.loop.time() + 20.0) * 1e6)
    three = KeyEntry(DOMAIN, "three", RSA, rsa_pem("three"), "", two.since_us + 1)
    assert await rig.desk.keep_key(ONE) == "done"
    start(rig)
    await rig.submit(500)
    await asyncio.sleep(10.0)
    assert {tags(message)["s"] for message in relay.messages} == {"one"}
    assert await rig.desk.keep_key(two) == "done"
    await asyncio.sleep(9.0)
    assert {tags(message)["s"] for message in relay.messages} == {"one"}
    await asyncio.sleep(6.0)
    before = len(relay.messages)
    await asyncio.sleep(2.0)
    assert {tags(message)["s"] for message in relay.messages[before:]} == {"two"}
    assert await rig.desk.keep_key(three) == "done"
    await asyncio.sleep(5.0)
    before = len(relay.messages)
    await rig.until_ended()
    assert {tags(message)["s"] for message in relay.messages[before:]} == {"three"}
    keys = published(**{f"{entry.selector}._domainkey.{DOMAIN}": entry.text for entry in (ONE, two, three)})
    assert all(verdicts(message, keys) == [True] for message in relay.messages[::25])
    await rig.stop()
    patch.undo()


@virtual
async def test_a_send_whose_key_cannot_be_read_is_paused_with_the_reason_and_goes_on_with_another() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=36_000.0)
    rig.store.signing_keys["one._domainkey.example.com"], rig.store.key_changes = b"{", 1
    start(rig)
    await rig.submit(10)
    await asyncio.sleep(3.0)
    fields = await rig.status()
    assert fields["state"] == "paused"
    assert "DKIM key one of example.com" in str(dict(fields))
    assert relay.taken == []
    assert await rig.desk.keep_key(ONE) == "done"
    await asyncio.sleep(5.0)
    await rig.desk.resume("m1", "c1")
    await rig.until_ended()
    assert all(verdicts(message, KEYS) == [True] for message in relay.messages)
    assert len(relay.messages) == 10
    await rig.stop()
    patch.undo()


@virtual
async def test_a_key_that_goes_bad_under_a_send_pauses_it_and_nothing_else() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=36_000.0)
    assert await rig.desk.keep_key(ONE)
    worker = start(rig)
    await rig.submit(300)
    await rig.submit(300, "c2", message=Message(sender="shop@example.net", subject="s", text="t\n"))
    await transact(rig, "early@example.com")
    await asyncio.sleep(5.0)
    signed = len([name for name in relay.taken if name.startswith("c1-")])
    assert 10 < signed < 290
    rig.store.signing_keys["one._domainkey.example.com"] = b"{"
    rig.store.key_changes += 1
    await asyncio.sleep(5.0)
    fields = await rig.status()
    assert fields["state"] == "paused"
    assert "DKIM key one of example.com" in str(dict(fields))
    assert not worker._takes.lanes["m1"].shares.get("c1")
    await rig.until_ended("c2")
    assert await rig.desk.keep_key(ONE)
    await asyncio.sleep(5.0)
    await rig.desk.resume("m1", "c1")
    await rig.until_ended()
    assert len(relay.taken) == len(set(relay.taken)) == 601
    ours = [message for message in relay.messages if b"example.net" not in message]
    assert len(ours) == 301
    assert all(verdicts(message, KEYS) == [True] for message in ours)
    await rig.stop()
    patch.undo()


@virtual
async def test_a_key_that_goes_bad_under_single_messages_leaves_them_alone_for_a_while() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=3600.0)
    assert await rig.desk.keep_key(ONE)
    start(rig)
    for i in range(20):
        await transact(rig, f"t{i}@example.com")
    await asyncio.sleep(4.0)
    rig.store.signing_keys["one._domainkey.example.com"] = b"{"
    rig.store.key_changes += 1
    await asyncio.sleep(10.0)
    assert 0 < len(relay.taken) < 20
    assert await rig.desk.keep_key(ONE)
    await asyncio.sleep(180.0)
    assert len(relay.taken) == len(set(relay.taken)) == 20
    assert all(verdicts(message, KEYS) == [True] for message in relay.messages)
    await rig.stop()
    patch.undo()


class Broken:
    """A keyring whose key does not sign."""

    def keys_of(self, from_domain: str) -> tuple[SigningKey, ...]:
        def sign(digest: bytes) -> bytes:
            raise SendEngineError("broken.pem: the key does not sign")

        return (SigningKey(DOMAIN, "broken", RSA, sign),)

    def learn(self, stored: object) -> None: ...
    def turn(self, now_us: float) -> None: ...


@virtual
async def test_a_key_that_does_not_sign_ends_the_worker_and_nothing_goes_unsigned() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account()
    start(rig, keyring=Broken())
    await rig.submit(10)
    _, task, _ = rig.workers.pop("w1")
    with pytest.raises(SendEngineError, match=r"broken\.pem"):
        await task
    assert relay.taken == []
    patch.undo()


@virtual
async def test_nothing_goes_after_a_key_that_fails_in_mid_send() -> None:
    """Appends that were on their way are answered later: what they hold is not made, and is handed to nobody."""
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account(per_hour=None)
    await rig.submit(500)
    append = MemoryQueue.append

    async def late(*args: Any) -> Any:
        answer = await append(*args)
        await asyncio.sleep(0.03)
        return answer

    patch.setattr(MemoryQueue, "append", late)
    troubles: list[object] = []
    rig.loop.set_exception_handler(lambda _, context: troubles.append(context))
    start(rig, keyring=Slow(rig, ED, 0.0003, breaks_after=33))
    _, task, _ = rig.workers.pop("w1")
    with pytest.raises(SendEngineError, match="broke"):
        await task
    taken = len(relay.taken)
    await asyncio.sleep(2.0)
    assert len(relay.taken) == taken
    assert troubles == []
    patch.undo()


@virtual
async def test_a_slow_key_signs_nothing_in_vain() -> None:
    """A message takes 4 ms: of 128 that wait, most would be stale before they leave."""
    patch = pytest.MonkeyPatch()
    SmtpRelay(patch)
    rig = Rig()
    await rig.account(per_hour=None)
    await rig.submit(500)
    keyring = Slow(rig, ED, 0.004)
    start(rig, keyring=keyring)
    await rig.until_ended()
    assert keyring.signed <= 525
    await rig.stop()
    patch.undo()


@virtual
async def test_a_single_message_whose_key_cannot_be_read_waits_for_a_minute_and_is_not_asked_for_all_the_time() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account()
    rig.store.signing_keys["one._domainkey.example.com"], rig.store.key_changes = b"{", 1
    taken: list[float] = []
    take = MemoryQueue.take

    async def counted(*args: Any) -> Any:
        taken.append(rig.loop.time())
        return await take(*args)

    patch.setattr(MemoryQueue, "take", counted)
    start(rig)
    await transact(rig, "now@example.com")
    await asyncio.sleep(20.0)
    assert relay.taken == []
    assert len(taken) < 20
    assert await rig.desk.keep_key(ONE) == "done"
    await asyncio.sleep(120.0)
    assert relay.taken == ["now@example.com"]
    assert verdicts(relay.messages[0], KEYS) == [True]
    await rig.stop()
    patch.undo()


@virtual
async def test_a_metered_account_keeps_its_rate_beside_an_unmetered_one_that_signs_all_the_time() -> None:
    patch = pytest.MonkeyPatch()
    relay, rig = SmtpRelay(patch), Rig()
    await rig.account("m1", per_hour=None)
    await rig.account("m2", per_hour=36_000.0)
    start(rig, keyring=Slow(rig, ED, 0.001))
    await rig.submit(3000, "endless", "m1")
    await rig.submit(200, "paced", "m2")
    await asyncio.sleep(2.0)
    assert (await rig.status("endless", "m1")).get("finished") is None
    assert sum(name.startswith("paced") for name in relay.taken) >= 0.98 * 10 * 2 - 2
    await rig.desk.cancel("m1", "endless")
    await rig.desk.cancel("m2", "paced")
    await asyncio.sleep(0.4)
    await rig.stop()
    patch.undo()
