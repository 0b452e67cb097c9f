"""What a command costs before it does anything: `python -m benchmarks.startup`.

The time of `sendengine --help` (wanted: under 250 ms), and what `from sendengine import Client` loads (wanted: none of the senders' parts).
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

ROUNDS = 11
HEAVY = ("aiosmtplib", "cryptography", "uvloop", "prometheus_client")


def seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    bare = [seconds("-c", "pass") for _ in range(ROUNDS)]
    helped = [seconds("-m", "sendengine", "--help") for _ in range(ROUNDS)]
    code = f"import sys; from sendengine import Client; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    print(f"sendengine --help: median {median(helped) * 1000:.0f} ms ({min(helped) * 1000:.0f} to {max(helped) * 1000:.0f}); "
          f"python itself: {median(bare) * 1000:.0f} ms")  # fmt: skip
    print(f"from sendengine import Client loads of {', '.join(HEAVY)}: {loaded}")


if __name__ == "__main__":
    main()
