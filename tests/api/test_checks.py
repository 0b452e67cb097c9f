"""Proofs over HTTP: sends of both channels are checked, repaired, and what was set aside is shown and released."""

from __future__ import annotations

from tests.api.bench import MESSAGE, Api

ROWS = [{"email": f"p{n}@x.org", "name": "A"} for n in range(5)]


async def test_an_account_is_proved_send_by_send(api: Api) -> None:
    admin = await api.key("m1")
    for campaign in ("a", "b"):
        await api("POST", "/v1/sends", admin, json=MESSAGE | {"campaign": campaign, "recipients": ROWS})
    lines = (await api("GET", "/v1/accounts/m1/fsck", admin)).lines
    assert [(each["campaign"], each["accepted"], each["findings"]) for each in lines] == [("m1:a", 5, []), ("m1:b", 5, [])]
    one = await api("GET", "/v1/sends/a/fsck", admin)
    assert (one.status, one.json["accepted"], one.json["findings"]) == (200, 5, [])
    repaired = await api("POST", "/v1/sends/m1:a/repair", await api.key(None))
    assert (repaired.status, repaired.json["findings"]) == (200, [])
    trail = (await api("GET", "/v1/accounts/m1/audit", admin)).lines
    assert {line["what"] for line in trail} == {"account.create", "key.create", "send.create"}, "nothing was repaired"


async def test_what_was_set_aside_is_shown_and_released(api: Api) -> None:
    admin = await api.key("m1")
    await api("POST", "/v1/sends", admin, json=MESSAGE | {"campaign": "a", "recipients": ROWS})
    assert (await api("GET", "/v1/accounts/m1/quarantine", admin)).lines == []
    released = await api("POST", "/v1/sends/a/replay", admin)
    assert (released.status, released.json["quarantined"]) == (200, 0)
    await api("POST", "/v1/sends/a/cancel", admin)
    assert (await api("POST", "/v1/sends/a/replay", admin)).status == 409
