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
    _warn_of_others(key_file)
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
    _warn_of_others(key_file)
    if not is_new:
        begins = f" until {common.shown(found.since)}; --from now begins it" if found.state == "waits" else ""
        common.note(f"note: it stands there already, nothing is changed: it {found.state}{begins}")
    if found.is_short:
        _warn_of_short(found.bits)
    common.emit(found) if json else print(found.record)


@app.command("list")
def list_(domain: Annotated[str, typer.Argument(metavar="[DOMAIN]")] = "", json: Json = False) -> None:
    """The keys, what each does now, and the record to publish.

    A domain with files in this configuration's dkim_keys does not use its keys of Redis: they are shown as unused.
    """
    import msgspec

    from sendengine.scheduler import keys

    async def read(client: Client) -> list[Key]:
        return await keys.listed(client.desk, domain, await client.desk.now_us() / 1e6)

    found = common.call(read)
    files = _folders()
    if json:
        for each in found:
            folder = files.get(each.domain)
            common.emit(msgspec.to_builtins(each) | {"overridden_by": str(folder) if folder else None})
        return
    rows = [(k.domain, k.selector, k.algorithm, "unused" if k.domain in files else k.state, k.since) for k in found]
    common.show_table("", ("domain", "selector", "algorithm", "state", "from"), rows)
    for name in sorted({k.domain for k in found} & files.keys()):
        print(f"; {name} is signed by its files in {files[name]} where workers have this configuration, not by its keys in Redis")
    for each in found:
        print(each.record or f"; {each.selector} of {each.domain} cannot be read")


@app.command()
def remove(domain: Domain, selector: Selector, json: Json = False) -> None:
    """Forget a key, and say what signs now. Its record stays in DNS until the mail signed with it has arrived: a week is long enough."""
    from sendengine.policy.signing import signing_domains
    from sendengine.scheduler import keys

    left = common.call(lambda client: keys.remove(client.desk, domain, selector))
    folder = next((folder for name in signing_domains(domain) if (folder := _folders().get(name))), None)
    if folder is not None:
        common.note(f"note: mail From {domain.lower()} is signed by the files in {folder}, on workers that see them; elsewhere:")
    common.note(keys.said_of(domain.lower(), left))
    common.emit({"domain": domain, "selector": selector, "removed": True}) if json else print("removed")


def _folders() -> dict[str, Path]:
    """By domain, of the configuration of this command."""
    from sendengine import config
    from sendengine.errors import RefusedInput
    from sendengine.keyring import domains_in

    directory = config.load().dkim_keys
    try:
        return domains_in(Path(directory)) if directory else {}
    except RefusedInput as error:  # whoever may use Redis need not be one who may read the files
        common.note(f"note: dkim_keys cannot be read from here: {error}")
        return {}


def _warn_of_short(bits: int | None) -> None:
    common.note(f"warning: an RSA key of {bits} bits is short; make one of 2048")


def _warn_of_others(path: Path) -> None:
    from sendengine.keyring import is_exposed

    if is_exposed(path):
        common.note(f"warning: {path} is open to others than its owner: chmod 600 {path}")
