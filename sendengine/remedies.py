"""What to do about it, in the words of whoever asks: a command for who sits at the command line, a request for who asks over HTTP.

Pure. A remedy is a value with both renderings. Plain text is the same in both; what can be *done* is a function here, so that a verb that
changes its name changes it in one place.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sendengine.lanes import is_paid, owner


class Tongue(StrEnum):
    COMMANDS = "commands"
    REQUESTS = "requests"


OPERATORS = " (the operator's: ask them)"


class Remedy(msgspec.Struct, frozen=True):
    cli: str
    http: str

    def told(self, tongue: Tongue) -> str:
        return self.http if tongue is Tongue.REQUESTS else self.cli


def said(*parts: str | Remedy) -> Remedy:
    """One after the other."""
    made = [part if isinstance(part, Remedy) else Remedy(part, part) for part in parts]
    return Remedy("".join(part.cli for part in made), "".join(part.http for part in made))


def _operators(cli: str, http: str) -> Remedy:
    """What no account's key opens: whoever reads it with one is told whom to ask."""
    return Remedy(cli, http + OPERATORS)


def field(name: str, value: str = "") -> Remedy:
    """What the caller gives: `field("finish_by", "TIME")` is a flag with its value, or a member of the body."""
    return Remedy(f"--{name.replace('_', '-')}{value and ' ' + value}", f"`{name}`")


def without(name: str) -> Remedy:
    return Remedy(f"leave out --{name}", f"leave out `{name}`")


# accounts


def create_account(account: str) -> Remedy:
    return _operators(f"sendengine account create {account} --tier 60k", f"PUT /v1/accounts/{account}")


def show_account(account: str) -> Remedy:
    return Remedy(f"sendengine account show {account}", f"GET /v1/accounts/{account}")


def set_tier(lane: str, tier: str = "TIER") -> Remedy:
    """The speed of an account's mail, or of its SMS."""
    if is_paid(lane):
        return _operators(f"sendengine sms set --account {owner(lane)} --rate {tier}", f"PUT /v1/accounts/{lane} with `rate`")
    return _operators(f"sendengine account set-tier {lane} {tier}", f"PUT /v1/accounts/{lane}/tier")


def boost(account: str) -> Remedy:
    return _operators(f"sendengine account boost {account}", f"POST /v1/accounts/{account}/boosts")


def set_relay(account: str, flags: str) -> Remedy:
    return _operators(f"sendengine account set-relay {account} {flags}".rstrip(), f"PUT /v1/accounts/{account}/relay")


def set_sms(account: str, flags: str = "") -> Remedy:
    return _operators(f"sendengine sms set --account {account} {flags}".rstrip(), f"PUT /v1/accounts/{account}/sms")


def renew(account: str) -> Remedy:
    return _operators(f"sendengine account term {account} --renew TIME", f"POST /v1/accounts/{account}/term with `verb` renew")


def term_verb(verb: str, ends: str = "") -> Remedy:
    """A change of the term that the caller is changing."""
    return Remedy(f"--{verb}{ends and ' ' + ends}", f"`verb` {verb}" + (" with `ends`" if ends else ""))


def expire(account: str) -> Remedy:
    return _operators(f"sendengine account term {account} --expire", f"POST /v1/accounts/{account}/term with `verb` expire")


def release(account: str, reason: str) -> Remedy:
    return _operators(f"sendengine account release {account} --reason {reason}", f"DELETE /v1/accounts/{account}/holds/{reason}")


def grant_credits(account: str, amount: str) -> Remedy:
    """So many at least."""
    request = f"POST /v1/accounts/{account}/credits with `amount` {amount}"
    return _operators(f"sendengine credits grant --account {account} {amount}", request)


def list_keys(account: str | None) -> Remedy:
    if account is None:
        return Remedy("sendengine key list", "GET /v1/accounts/m1234/keys")
    return Remedy(f"sendengine key list --account {account}", f"GET /v1/accounts/{account}/keys")


# sends


def list_sends() -> Remedy:
    return Remedy("`sendengine list` shows them", "GET /v1/sends shows them")


def outcomes(send: str) -> Remedy:
    return Remedy(f"sendengine outcomes {send}", f"GET /v1/sends/{send}/outcomes")


def status(send: str) -> Remedy:
    return Remedy(f"sendengine status {send}", f"GET /v1/sends/{send}")


def resume(send: str) -> Remedy:
    return Remedy(f"sendengine resume {send}", f"POST /v1/sends/{send}/resume")


def cancel(send: str) -> Remedy:
    return Remedy(f"sendengine cancel {send}", f"POST /v1/sends/{send}/cancel")


def after_its_end(send: str) -> Remedy:
    """Of one that has ended, or does: all that can yet be done."""
    again = Remedy(f"sendengine resend --missing {send}", f"POST /v1/sends/{send}/resend")
    return said(outcomes(send), " shows what became of each; ", again, " sends to those it did not reach")


def move_up(send: str) -> Remedy:
    return Remedy(f"sendengine move {send} up", f"POST /v1/sends/{send}/move")


def submit_again(send: str) -> Remedy:
    return said("its list is submitted again with ", field("campaign", send.partition(":")[2]), ": it goes on where it stopped")


def complete(send: str, batches: int) -> Remedy:
    """What a list lacks that has no end yet; so many batches of it stand."""
    upload = f"POST /v1/sends/{send}/recipients"
    brings = f"{upload} repeats its list, or goes on behind it with first_batch={batches}" if batches else f"{upload} brings its list"
    return Remedy(submit_again(send).cli, f"{brings}; POST /v1/sends/{send}/seal ends it")


def end_list(send: str, rows: int) -> Remedy:
    """What a list lacks that was begun and has not ended; so many rows of it stand."""
    again = Remedy("repeat the upload", f"POST /v1/sends/{send}/recipients with the list once more")
    anyway = Remedy(f"rows={rows}", f'{{"rows": {rows}}} in the body')
    return said(again, ", or repeat the call that began it: it goes on where it stopped; or seal what stands with ", anyway)


def replay(send: str) -> Remedy:
    return Remedy(f"sendengine quarantine replay {send}", f"POST /v1/sends/{send}/replay")


# what only who runs the machines can do


def start_worker() -> Remedy:
    return Remedy("sendengine worker", "whoever runs the engine starts a worker")


def more_sessions() -> Remedy:
    return Remedy("more processes (worker -p) or sessions (worker -c), or a faster relay", "more workers or sessions, or a faster relay")
