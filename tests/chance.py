"""What of a run is left to chance: everything on a developer's machine, nothing under CI, which must not turn red for what no change did.

SENDENGINE_HYPOTHESIS=fixed|random overrides the guess by `CI`; `pytest --hypothesis-profile` overrides both, for properties.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

from hypothesis import HealthCheck, settings

PROFILES = {
    "fixed": settings(derandomize=True, deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]),
    "random": settings(derandomize=False, deadline=None, print_blob=True, suppress_health_check=[]),
}


def profile_of(environ: Mapping[str, str]) -> str:
    return environ.get("SENDENGINE_HYPOTHESIS") or ("fixed" if environ.get("CI", "") not in ("", "0", "false") else "random")


def load_profile() -> None:
    """Before any test module is imported: its decorators take what holds then. Hypothesis loads a profile of its own under CI."""
    for name, profile in PROFILES.items():
        settings.register_profile(name, profile)
    settings.load_profile(profile_of(os.environ))


def seed(most: int) -> int:
    """SENDENGINE_SEED, else 1 where nothing is left to chance, else any up to `most`."""
    told = int(os.environ.get("SENDENGINE_SEED", "0"))
    return told or (1 if profile_of(os.environ) == "fixed" else random.randrange(1, most))
