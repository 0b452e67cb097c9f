"""The command line: which verbs there are, how their errors end, and how their flags are named in the environment.

It holds no rule: a verb reads its flags, asks the client and prints. Exit status: 0 done, 1 failed, 2 usage or refused input, 75 later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sendengine.commands import account, billing, common, dkim, key, looking, prepaid, quarantine, running, sends, sms, steering, suppress

app = common.group("A bulk send engine that sells speed: every account sends at exactly its contracted rate.")
app.add_typer(account.app, name="account")
app.add_typer(running.config_app, name="config")
app.add_typer(prepaid.app, name="credits")
app.add_typer(dkim.app, name="dkim")
app.add_typer(running.embedded_app, name="embedded")
app.add_typer(key.app, name="key")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(suppress.app, name="suppress")
app.add_typer(sms.app, name="sms")
VERBS: tuple[Callable[..., None], ...] = (
    account.tiers, sends.estimate, sends.submit, sends.send, looking.status, looking.list_, steering.pause, steering.resume,
    steering.cancel, steering.reverse, steering.move, billing.event, looking.outcomes, sends.resend, running.worker, running.api,
    looking.workers, looking.top, looking.why, looking.fsck, looking.durability, running.sink, running.smsc, running.version,
)  # fmt: skip
for verb in VERBS:
    app.command(verb.__name__.rstrip("_"))(verb)


def show_version(is_wanted: bool) -> None:
    if is_wanted:
        running.version()
        raise typer.Exit


@app.callback()
def before_any_verb(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=show_version, help="The release.")] = False,
) -> None:
    pass


def main() -> None:
    """The program. Ends by SystemExit."""
    from sendengine.errors import SendEngineError

    command = typer.main.get_command(app)
    name_variables(command, "SENDENGINE")
    try:
        command(prog_name="sendengine")
    except SendEngineError as error:
        common.note(common.error_said(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def name_variables(command: Any, prefix: str) -> None:
    """Every flag has a variable by the name people type: SENDENGINE_SUBMIT_FROM, whatever its parameter is called here."""
    for name, verb in getattr(command, "commands", {}).items():
        name_variables(verb, f"{prefix}_{name}")
    for param in command.params:
        flags = [flag for flag in param.opts if flag.startswith("--")]
        if flags and flags[0] not in ("--help", "--version"):
            param.envvar = f"{prefix}_{flags[0][2:]}".replace("-", "_").upper()


if __name__ == "__main__":
    main()
