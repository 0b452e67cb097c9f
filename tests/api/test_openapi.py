"""The document in the repository is the one that is served, and says all that there is."""

from __future__ import annotations

from pathlib import Path

from sendengine.api import openapi
from sendengine.api.app import OPERATIONS
from tests.api.bench import Api

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_document_in_the_repository_is_that_of_the_code() -> None:
    assert PATH.read_bytes() == openapi.encoded(OPERATIONS), "python -m sendengine.api.openapi > docs/openapi.json"


async def test_it_is_served(api: Api) -> None:
    assert (await api("GET", "/openapi.json")).body == PATH.read_bytes()


def test_operations_have_names_of_their_own_and_known_parameters() -> None:
    names = [each.name for each in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(name in openapi.PATH_PARAMS for each in OPERATIONS for name in openapi._path_name.findall(each.path))
