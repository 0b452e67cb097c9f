"""What docs/api.md tells people to type, typed as it stands, against a process of the API."""

from __future__ import annotations

import re
import shutil

import orjson
import pytest

from tests.api.process import ROOT, api_process
from tests.test_readme import Shell, shell  # noqa: F401 - a fixture

TEXT = (ROOT / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are curl's")
def test_the_examples(shell: Shell, redis_url: str) -> None:  # noqa: F811
    shell.environ["SENDENGINE_REDIS_URL"] = redis_url
    shell.run("sendengine account create m1001 --tier 60k")
    keys, *blocks = BLOCKS
    operator, key = re.findall(r"^se_\S+", shell.run(keys), re.MULTILINE)
    admin = shell.run("sendengine key create --account m1001 --scope admin --seat Ann")
    said = []
    with api_process(redis_url) as process:
        names = {"API": process.url, "KEY": key, "OPERATOR": operator, "ADMIN": re.findall(r"^se_\S+", admin, re.MULTILINE)[0]}
        shell.environ |= names
        for block in blocks:
            said.append(shell.run(block.replace("curl -sS", "curl --fail-with-body -sS")))
    assert '"accepted":2' in said[0]
    assert '"sealed":true' in said[1]
    assert "event: status" in said[2]
    outcomes = [orjson.loads(line) for line in said[2].splitlines() if '"recipient"' in line]
    assert sorted(each["recipient"] for each in outcomes) == ["ana@example.com", "bob@example.com"]
    assert '"index":0' in said[3]
    assert '"campaign":"m1001/sms:' in said[4]
    assert '"reason":"content"' in said[5]
    assert '"relay_tls":"verify"' in said[6]
    assert '"phase":"active"' in said[6]
    assert '"boosts":[]' in said[6]
    assert '"address":"eva@firma.example","reason":"unsubscribed"' in said[7]
    assert '"removed":1' in said[7]
    assert '"findings":[]' in said[8]
    assert '"secret":"whsec_' in said[9]


def test_every_path_that_the_text_names_is_in_the_document() -> None:
    paths = orjson.loads((ROOT / "docs" / "openapi.json").read_bytes())["paths"]
    known = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in paths]
    named = {path.split("?")[0] for path in re.findall(r"\$API(/[\w/.@-]*)", TEXT)}
    assert [path for path in named if not any(each.fullmatch(path) for each in known)] == []
