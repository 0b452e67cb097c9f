"""The gate in memory, the twin of lua/gate.lua: the one way to change an account's term or holds."""

from __future__ import annotations

from collections.abc import Mapping

from sendengine.policy.holds import FIELD
from sendengine.ports import Gated
from sendengine.queue.memory_state import Fields, Hooks, MemoryStore

HELD_OCTETS = 4000


def change(
    store: MemoryStore, account: str, now: float, cut_delay: float, seen: Mapping[str, str], fields: Mapping[str, str],
    before_us: float | None, line: bytes,
) -> tuple[Gated, dict[str, tuple[int, float]]]:  # fmt: skip
    """What became of it, and the cut of each lane that had one."""
    lanes = store.lanes(account)
    if "" not in lanes:
        return Gated("missing"), {}
    home = lanes[""].fields
    if (refusal := _refusal(home, now, seen, before_us)) is not None:
        return Gated(refusal), {}
    if all(home.get(name, "") == value for name, value in fields.items()):
        return Gated("same", now), {}
    since, before = lanes[""].shut_since(now), home.get("gate")
    moves = _moves(home, fields)
    _write(home, fields)
    gate = "0" if any(name.startswith(FIELD) for name in home) else home.get("term_ends")
    is_shut = gate is not None and now >= float(gate)
    if since is not None and not is_shut:
        for lane in lanes.values():  # by the gate of before
            lane.fields.set_times(idle=lane.idle_until(now), idle_at=now)
    _write(home, {"gate": gate or "", "closed_at": f"{now if since is None else since:.0f}" if is_shut else ""})
    store.note(account, now, line)
    _note_held(store.hooks.get(account), now, moves)
    return Gated("done", now), {name: lane.cut(now, cut_delay) for name, lane in lanes.items() if gate != before}


def _refusal(home: Fields, now: float, seen: Mapping[str, str], before_us: float | None) -> str | None:
    if "purging" in home:
        return "purging"
    if any(home.get(name, "") != value for name, value in seen.items()):
        return "moved"
    return "late" if before_us is not None and now >= before_us else None


def _moves(home: Fields, fields: Mapping[str, str]) -> list[str]:
    """Holds that come (+) and go (-)."""
    changed = [(name, value) for name, value in fields.items() if name.startswith(FIELD) and (name in home) == (value == "")]
    return [("+" if value else "-") + name.removeprefix(FIELD) for name, value in changed]


def _note_held(hooks: Hooks | None, now: float, moves: list[str]) -> None:
    """As lua/held.lua."""
    if not moves or hooks is None or "since" not in hooks.seen:
        return
    held = hooks.seen.get("held", "")
    hooks.seen["v"] = str(int(hooks.seen.get("v", 0)) + 1)
    if len(held) < HELD_OCTETS:
        hooks.seen["held"] = held + " ".join([f"{now:.0f}", *moves]) + "\n"


def _write(home: Fields, fields: Mapping[str, str]) -> None:
    """"" is absent."""
    for name, value in fields.items():
        home.forget(name) if value == "" else home.update({name: value})
