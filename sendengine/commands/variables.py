"""Variables named SENDENGINE_*: one that nothing reads is a setting that somebody believes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sendengine import compiled

OWN = {"SENDENGINE_CONFIG", compiled.SWITCH}  # beside one for each key and each flag


def unknown(program: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """Those that are neither a key of the configuration nor a flag of a verb of `program`, each with the nearest known one or ""."""
    import difflib

    from sendengine import config

    keys = {config.PREFIX + "_".join(path).upper() for path, _ in config.settings(config.Config)}
    known = keys | OWN | set(_flags(program))
    found = sorted(name for name in environ if name.startswith(config.PREFIX) and name not in known)
    return {name: next(iter(difflib.get_close_matches(name, known, n=1)), "") for name in found}


def _flags(command: Any) -> Iterator[str]:
    for verb in getattr(command, "commands", {}).values():
        yield from _flags(verb)
    yield from (param.envvar for param in command.params if param.envvar)
