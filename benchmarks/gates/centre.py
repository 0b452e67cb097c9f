"""A trial SMS centre on the scene, and numbers that it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson

from benchmarks.gates.scene import Scene, written

START = "+4670"


class Centre(msgspec.Struct, frozen=True):
    process: subprocess.Popen[bytes]
    ledger: Path
    environ: Mapping[str, str]  # for workers that are to find it

    def lines(self) -> list[dict[str, Any]]:
        """One for each part that was submitted to it, in order."""
        return written(self.ledger) if self.ledger.exists() else []


def centre(s: Scene, *flags: str) -> Centre:
    """Listening, as the provider `trial`."""
    ledger, table = s.stage.folder / "sms.ndjson", s.stage.folder / "providers.toml"
    process = s.stage.start(sys.executable, "-m", "sendengine", "smsc", "--port", "0", "--ledger", str(ledger), *flags)
    port = int(orjson.loads(s.stage._first_line(process))["listening"].rpartition(":")[2])
    table.write_text(f'[trial]\nkind = "smpp"\nhost = "127.0.0.1"\nport = {port}\nsystem_id = "trial"\n')
    return Centre(process, ledger, {"SENDENGINE_PROVIDERS_FILE": str(table)})


def phones(count: int) -> list[dict[str, str]]:
    return [{"phone": f"{START}{number:07}"} for number in range(count)]
