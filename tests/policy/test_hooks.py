"""Webhooks out: the schedule of tries, the signature, and what may be posted to."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode

import pytest

from sendengine.errors import RefusedInput
from sendengine.policy import hooks
from sendengine.policy.hooks import Secret, check_url, events_of, is_public, rotated, signatures, wait_after


def test_twelve_tries_over_25_hours_ever_further_apart() -> None:
    waits = [wait_after(tries) for tries in range(1, 13)]
    assert waits[-1] is None
    known = [wait for wait in waits if wait is not None]
    assert (len(known) + 1, sum(known)) == (12, 25 * 3600)
    assert known == sorted(known)


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's libraries: id msg_p5jXN8AQM9LWM0D4loKWxJek, timestamp 1614265330."""
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    said = signatures([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', 0.0)
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_old_secret_signs_for_a_day_beside_the_new_one() -> None:
    first = hooks.secret_of(bytes(32))
    both = rotated([Secret(first)], hooks.secret_of(b"\1" * 32), 1e12)
    assert len(signatures(both, "i", 1, b"x", 1e12).split()) == 2
    assert signatures([Secret(first)], "i", 1, b"x", 1e12) in signatures(both, "i", 1, b"x", 1e12 + 86399e6).split()
    assert len(signatures(both, "i", 1, b"x", 1e12 + 86400e6).split()) == 1
    third = rotated(both, hooks.secret_of(b"\2" * 32), 1e12 + 1)
    assert [secret.until_us for secret in third] == [0.0, 1e12 + 1 + 86400e6]
    own = hmac.new(b64decode(third[0].text.removeprefix("whsec_")), b"i.1.x", hashlib.sha256).digest()
    assert signatures(third[:1], "i", 1, b"x", 0) == "v1," + b64encode(own).decode()


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example/x", "ftp://hooks.example", "https://", "https://user:pw@hooks.example", "https://10.0.0.1/", "https://127.0.0.1/",
     "https://[::1]/", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/",
     "https://hooks.example/a b",
     "https://hooks.example/\n",
     "https://h\u00f6oks.example/", "https://hooks.example:99999/", "https://hooks.example/" + "x" * 2000,
     "https://[fe80::1%25eth0]/", "x", ""],
)  # fmt: skip
def test_urls_that_are_not_posted_to(url: str) -> None:
    with pytest.raises(RefusedInput):
        check_url(url, False)


def test_urls_that_are() -> None:
    check_url("https://hooks.example.com:8443/a?b=c", False)
    check_url("https://93.184.215.14/x", False)
    check_url("http://127.0.0.1:8080/x", True)


@pytest.mark.parametrize(
    ("address", "public"),
    [("93.184.215.14", True), ("10.1.2.3", False), ("127.0.0.1", False), ("0.0.0.0", False), ("169.254.1.1", False), ("100.64.0.1", False),
     ("::1", False), ("fe80::1", False), ("fd00::1", False), ("2606:4700::1111", True), ("::ffff:192.168.0.1", False), ("224.0.0.1", False),
     ("2002:0a00:0001::", False), ("64:ff9b::10.0.0.1", False), ("64:ff9b::127.0.0.1", False), ("64:ff9b::93.184.215.14", True),
     ("::127.0.0.1", False), ("fec0::1", False)],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_events_have_names() -> None:
    assert events_of(["bounce", "send.finished", "bounce"]) == ("send.finished", "bounce")
    for wrong in ([], ["send"]):
        with pytest.raises(RefusedInput):
            events_of(wrong)


def test_what_cannot_be_read_is_nothing() -> None:
    assert hooks.decode_hook(b"{") is None
    assert hooks.decode_delivery(b"1") is None
