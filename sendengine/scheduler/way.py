"""How an account's mail leaves: by which relay, and when it is tried again. A change is made of what was read, so two who change it at once
are heard one after the other, and the TLS policy that one of them names is not lost by the other."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sendengine import relays
from sendengine.errors import Conflict, RefusedInput, Unavailable, about
from sendengine.policy import retry as schedules
from sendengine.ports import Desk
from sendengine.remedies import Remedy, field, said
from sendengine.scheduler import audit
from sendengine.scheduler.names import account_id, existing_account
from sendengine.types import SMTPS_PORT, Relay, TlsPolicy

TIMES = 20  # that a change is begun anew because another one was faster
_RELAY = Remedy("--relay smtp://[user@]host[:port]", "`url` smtp://[user@]host[:port]")


class Login(msgspec.Struct, frozen=True):
    """Another password or TLS policy for the present relay; what is None stays."""

    password: str | None = None
    tls: TlsPolicy | None = None


Given = Relay | str | Login | None


async def change(desk: Desk, account: str, given: Given, retry: str | None, usual: TlsPolicy, who: str, why: str) -> None:
    """What is on the wire ends at the old relay; what follows goes to the new one, within a second. A retry schedule ("": the
    configuration's) is that of the sends submitted from now on. `usual` is the configuration's TLS policy. Raises NotFound, RefusedInput,
    Conflict (a login without a relay, a policy that nobody can tell)."""
    account_id(account)
    for _ in range(TIMES):
        before = await existing_account(desk, account)
        fields = of(account, before, given, retry, usual)
        if not fields:
            raise RefusedInput("which relay?", said(_RELAY, ", or ", field("retry", "SCHEDULE")))
        seen = {name: before.get(name, "") for name in fields}
        if await desk.set_account(account, fields, seen=seen, line=audit.line("relay", who, why, **told(before, fields))):
            return
    raise Unavailable(f"account {account} is changed by others all the time", "the same call may go through later")


def of(account: str, before: Mapping[str, str], given: Given, retry: str | None, usual: TlsPolicy) -> dict[str, str]:
    """As the account's fields hold it; what is None is left as it is. Raises RefusedInput, Conflict."""
    if isinstance(given, Login):
        relay: Relay | None = _with_login(account, before, given)
    else:
        with about("relay"):
            relay = None if given is None else relays.relay_given(given)
        relay = relay and relays.with_policy(relay, _present(account, before, relay), usual)
    fields = {} if relay is None else {"relay": relay.encode()}
    with about("retry"):
        return fields if retry is None else fields | {"retry": schedules.tidy(retry) if retry.strip() else ""}


def _present(account: str, before: Mapping[str, str], wanted: Relay) -> Relay | None:
    """The relay whose policy the wanted one gets, where that names none."""
    found = relay_of(before)
    if wanted.tls is None and found is None and before.get("relay"):
        what = f"the present relay of account {account} cannot be read, and so nobody knows which TLS policy stays"
        raise Conflict(what, said("name it: ", field("tls", "|".join(TlsPolicy)), Remedy("", f", one of {', '.join(TlsPolicy)}")))
    return found


def _with_login(account: str, before: Mapping[str, str], login: Login) -> Relay:
    if not before.get("relay"):
        raise Conflict(f"account {account} sends to the configuration's relay", said(_RELAY, " gives it one of its own"))
    if (relay := relay_of(before)) is None:
        raise Conflict(f"the relay of account {account} cannot be read", _RELAY)
    if login.password is not None and not relay.user:
        url = f"smtp://USER@{relay.site}, with"
        way = Remedy(f"--relay {url} its --password-file", f"`url` {url} `password`")
        raise RefusedInput(f"relay {relay.site} has no user", way)
    if login.password == "":
        way = Remedy("it is the first line of its file", "give a `password`")
        raise RefusedInput(f"the password for {relay.user} at {relay.site} is empty", way)
    if relay.port == SMTPS_PORT and login.tls not in (None, TlsPolicy.REQUIRED, TlsPolicy.VERIFY):
        raise RefusedInput(f"relay {relay.site} speaks TLS from the start", said(field("tls", "required"), ", or verify"))
    password = relay.password if login.password is None else login.password
    return msgspec.structs.replace(relay, password=password, tls=login.tls or relay.tls)


def told(before: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """What changes, for the audit trail. No secret is in here."""
    found = {}
    if "retry" in fields and fields["retry"] != before.get("retry", ""):
        found["retry"] = fields["retry"] or "the configuration's"
    if (relay := relay_of(fields)) is None or fields["relay"] == before.get("relay"):
        return found
    old = relay_of(before)
    is_only_password = old is not None and msgspec.structs.replace(old, password=relay.password) == relay
    return found | {"relay": relay.site, "user": relay.user, "tls": str(relay.policy), "password": "changed" if is_only_password else ""}


def stands(fields: Mapping[str, str], given: Relay | str | None) -> bool:
    """Whether an account that is made again has this relay already. Who names no policy has nothing against one that was named since."""
    if given is None or not fields.get("relay"):
        return given is None and not fields.get("relay")
    wanted, present = relays.relay_given(given), relay_of(fields)
    if present is None:
        return False
    return relays.as_spoken(present) == relays.as_spoken(wanted if wanted.tls else msgspec.structs.replace(wanted, tls=present.tls))


def relay_of(fields: Mapping[str, str]) -> Relay | None:
    """One account that cannot be read must not hide the others."""
    try:
        return Relay.decode(fields["relay"]) if fields.get("relay") else None
    except msgspec.MsgspecError:
        return None
