"""`dkim record|add|list|remove`: the keys that sign mail and that all workers of a Redis share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common
from sendengine.commands.common import Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.keys import Key

app = common.group("Keys that sign mail (DKIM), kept in Redis for all workers.")

Domain = Annotated[str, typer.Argument(metavar="DOMAIN")]
Selector = Annotated[str, typer.Option(metavar="NAME", help="The key's name in DNS: NAME._domainkey.DOMAIN.")]

KeyFile = Annotated[Path, typer.Option(metavar="FILE", help="RSA or Ed25519 in PEM, or an Ed25519 seed in base64.")]


@app.command()
def record(domain: Domain, selector: Selector, key_file: KeyFile, json: Json = False) -> None:
    """The DNS record of a key in a file, to be published before it signs. Keeps nothing and asks no Redis."""
    from sendengine.keyring import described, read_file

    found = described(read_file(key_file, domain.lower(), selector))
    if found.is_short:
        _warn_of_short(found.bits)
    common.emit(found) if json else print(found.record)


@app.command()
def add(
    domain: Domain,
    selector: Selector,
    key_file: KeyFile,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="When it begins to sign: when its record is in DNS. Else now.")
    ] = None,
    json: Json = False,
) -> None:
    """Keep a key; workers sign with it within 5 s, or from its time on, in place of an older one of its kind.

    The same key again changes nothing, but for a --from that is given. Another key needs another selector.
    """
    from sendengine.keyring import text_of_key
    from sendengine.policy.times import parse_time
    from sendengine.scheduler import keys

    text = text_of_key(key_file)

    async def work(client: Client) -> tuple[Key, bool]:
        now = await client.desk.now_us() / 1e6
        since = None if start is None else parse_time(start, now)
        return await keys.add(client.desk, domain, selector, text, str(key_file), since, now)

    found, is_new = common.call(work)
    if not is_new:
        begins = f" until {common.shown(found.since)}; --from now begins it" if found.state == "waits" else ""
        common.note(f"note: it stands there already, nothing is changed: it {found.state}{begins}")
    if found.is_short:
        _warn_of_short(found.bits)
    common.emit(found) if json else print(found.record)


@app.command("list")
def list_(domain: Annotated[str, typer.Argument(metavar="[DOMAIN]")] = "", json: Json = False) -> None:
    """The keys, what each does now, and the record to publish."""
    from sendengine.scheduler import keys

    async def read(client: Client) -> list[Key]:
        return await keys.listed(client.desk, domain, await client.desk.now_us() / 1e6)

    found = common.call(read)
    if json:
        for each in found:
            common.emit(each)
        return
    common.show_table(
        "", ("domain", "selector", "algorithm", "state", "from"), [(k.domain, k.selector, k.algorithm, k.state, k.since) for k in found]
    )
    for each in found:
        print(each.record or f"; {each.selector} of {each.domain} cannot be read")


@app.command()
def remove(domain: Domain, selector: Selector, json: Json = False) -> None:
    """Forget a key. Its record stays in DNS until the mail signed with it has arrived: a week is long enough."""
    from sendengine.scheduler import keys

    common.call(lambda client: keys.remove(client.desk, domain, selector))
    common.emit({"domain": domain, "selector": selector, "removed": True}) if json else print("removed")


def _warn_of_short(bits: int | None) -> None:
    common.note(f"warning: an RSA key of {bits} bits is short; make one of 2048")
