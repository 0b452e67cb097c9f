"""`key create|list|revoke`: who may use the HTTP API, and for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common
from sendengine.commands.common import Json

if TYPE_CHECKING:
    from sendengine.scheduler.apikeys import KeyShown

app = common.group("Keys of the HTTP API.")

Account = Annotated[str, typer.Option("--account", metavar="m1234", help="Of this account.")]
Admin = Annotated[bool, typer.Option("--admin", help="Of the operator: it opens every account.")]


@app.command()
def create(
    scope: Annotated[list[str], typer.Option(metavar="read|send|admin", help="What it opens; repeatable, or several with commas.")],
    seat: Annotated[str, typer.Option(metavar="NAME", help="Who holds it: the audit trail names them.")],
    account: Account = "",
    admin: Admin = False,
    json: Json = False,
) -> None:
    """Make a key. It is printed now, and never again: only its hash is kept."""
    owner = _owner(account, admin)
    if owner is None:
        from sendengine.errors import RefusedInput

        raise RefusedInput("whose key?", "--account m1234, or --admin for one that opens every account")
    made = common.call(lambda client: client.create_key(None if admin else account, scopes=scope, seat=seat, who=common.user()))
    if json:
        common.emit(made)
        return
    print(made.key)
    common.note(f"key {made.id} of {made.account or 'the operator'} for {made.seat}: {' '.join(made.scopes)}; it is shown only now")


@app.command("list")
def list_(account: Account = "", admin: Admin = False, json: Json = False) -> None:
    """The keys, without what they are."""
    owner = _owner(account, admin)
    found = common.call(lambda client: client.keys(owner))
    if json:
        for each in found:
            common.emit(each)
        return
    rows = [(each.id, each.account or "admin", each.seat, " ".join(each.scopes), each.created_at, _used(each)) for each in found]
    common.show_table("", ("key", "of", "seat", "scopes", "made", "last used"), rows)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, see `list`.")],
    account: Account = "",
    admin: Admin = False,
    json: Json = False,
) -> None:
    """From now on it opens nothing; requests that go on end within two seconds."""
    owner = _owner(account, admin)
    gone = common.call(lambda client: client.revoke_key(key, owner, who=common.user()))
    common.emit(gone) if json else print(f"key {gone.id} of {gone.account or 'the operator'} for {gone.seat} is revoked")


def _used(key: KeyShown) -> str:
    return f"{key.last_used:%Y-%m-%d}" if key.last_used else "never"


def _owner(account: str, admin: bool) -> str | None:
    from sendengine.errors import RefusedInput
    from sendengine.policy.apikeys import OPERATOR

    if account and admin:
        raise RefusedInput("--account or --admin, not both: a key is of an account, or of the operator")
    return OPERATOR if admin else account or None
