"""A bulk send engine that sells speed: every account sends at exactly its contracted rate.

`Client` and `Message` are loaded on first use, so that a process that only submits never loads the sending half.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sendengine import compiled

if TYPE_CHECKING:
    from sendengine.client import Client as Client
    from sendengine.render.message import Message as Message

__version__ = "0.1.0"
__all__ = ["Client", "Message", "__version__"]

compiled.install()

_HOMES = {"Client": "sendengine.client", "Message": "sendengine.render.message"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
