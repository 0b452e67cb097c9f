"""Against implementations that are not ours: our session with two other servers, our trial centre with another client."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import smpp34

from sendengine.trial.smsc import Smsc, SmscOptions
from sendengine.types import Provider
from tests.sms.shop import NUMBERS, Shop

TEXTS = {NUMBERS[0]: "plain", NUMBERS[1]: "Grüße € [x]", NUMBERS[2]: "x" * 400, NUMBERS[3]: "Привет 😀", NUMBERS[4]: "Ж" * 100}
NODE_SMSC = """
const smpp = require('smpp');
const server = smpp.createServer(session => {
  session.on('error', () => {});
  session.on('bind_transceiver', pdu => {
    if (pdu.password !== 'secret') { session.send(pdu.response({command_status: smpp.ESME_RINVPASWD})); session.close(); return; }
    session.send(pdu.response());
  });
  let n = 0;
  session.on('submit_sm', pdu => {
    const id = 'node' + (++n);
    const m = pdu.short_message;
    const text = Buffer.isBuffer(m.message) ? m.message.toString('latin1') : m.message;
    console.log(JSON.stringify({to: pdu.destination_addr, from: pdu.source_addr, text: text, udh: !!(m.udh && m.udh.length),
      ton: pdu.source_addr_ton, coding: pdu.data_coding}));
    if (pdu.destination_addr.endsWith('9')) { session.send(pdu.response({command_status: smpp.ESME_RINVDSTADR})); return; }
    session.send(pdu.response({message_id: id}));
    setTimeout(() => session.deliver_sm({source_addr: pdu.destination_addr, destination_addr: pdu.source_addr, esm_class: 4,
      short_message: 'id:' + id + ' sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:'}), 20);
  });
  session.on('enquire_link', pdu => session.send(pdu.response()));
  session.on('unbind', pdu => { session.send(pdu.response()); session.close(); });
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({port: server.address().port})));
"""


def provider(port: int) -> Provider:
    return Provider(name="other", kind="smpp", host="127.0.0.1", port=port, system_id="me", password="secret", window=10)


async def send_all(it: Shop, rows: dict[str, str]) -> None:
    await it.open(1000)
    listed = [{"phone": number, "said": text} for number, text in rows.items()]
    await it.client.submit_sms(account="m1", sender="ACME", text="{{ said }}", recipients=listed, campaign="a")
    it.work()


async def test_our_session_with_the_server_of_smpp34() -> None:
    """Its engine is written in Rust and shares with us the codec of single PDUs, not a line of the session."""
    with _free_port() as port:
        server = smpp34.Server(host="127.0.0.1", port=port, system_id="rust")
        await server.start()
    seen: list[Any] = []

    async def serve() -> None:
        while True:
            event = await server.next()
            if isinstance(event, smpp34.SubmitSmEvent):
                seen.append(event)
                if event.destination_addr.endswith("9"):
                    event.reject(smpp34.ESME_RINVDSTADR)
                else:
                    event.accept(f"rust{len(seen)}")

    serving = asyncio.create_task(serve())
    it = Shop(provider(port))
    try:
        async with it.client:
            rows = TEXTS | dict.fromkeys(NUMBERS[10:60], "many")
            await send_all(it, rows)
            status = await it.ended()
            refused = sum(number.endswith("9") for number in rows)
            assert (status.sent, status.bounced) == (len(rows) - refused, refused)
            assert Counter(event.destination_addr for event in seen) == Counter(
                {number[1:]: 3 if text == "x" * 400 else 2 if text == "Ж" * 100 else 1 for number, text in rows.items()}
            )
            await it.rest()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await server.stop()


@asynccontextmanager
async def node_smsc(folder: Path) -> AsyncIterator[tuple[int, Path]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node to run the package smpp with")
    quick = ("--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=8000", "--loglevel=error")
    try:
        done = await asyncio.to_thread(
            subprocess.run, [npm, "install", "--prefix", str(folder), *quick, "smpp"], capture_output=True, timeout=40, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package smpp of npm could not be installed in time")
    if done.returncode:
        pytest.skip(f"the package smpp of npm could not be installed: {done.stderr[-200:]!r}")
    (folder / "smsc.js").write_text(NODE_SMSC)
    log = folder / "said"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(node, str(folder / "smsc.js"), stdout=out, env=os.environ, cwd=folder)
    try:
        async with asyncio.timeout(20):
            while not log.read_bytes().endswith(b"\n"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        yield orjson.loads(log.read_bytes().splitlines()[0])["port"], log
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.timeout(120)
async def test_our_session_with_the_server_of_npm_smpp(tmp_path: Path) -> None:
    """That one puts the parts' headers apart and reads the alphabets by itself."""
    async with node_smsc(tmp_path) as (port, log):
        it = Shop(provider(port))
        async with it.client:
            rows = TEXTS | dict.fromkeys(NUMBERS[10:60], "many")
            await send_all(it, rows)
            status = await it.ended()
            refused = sum(number.endswith("9") for number in rows)
            assert (status.sent, status.bounced) == (len(rows) - refused, refused)

            async def are_told() -> bool:
                return (await it.client.status("a")).delivered == len(rows) - refused

            await it.until(are_told)
            await it.rest()
        lines = [orjson.loads(line) for line in log.read_bytes().splitlines()[1:]]
        got: dict[str, str] = {}
        for line in lines:
            got["+" + line["to"]] = got.get("+" + line["to"], "") + line["text"]
        assert {number: got[number] for number in TEXTS} == TEXTS
        assert {line["from"] for line in lines} == {"ACME"}
        assert {line["ton"] for line in lines} == {5}
        assert [line["udh"] for line in lines if line["to"] == NUMBERS[2][1:]] == [True] * 3


async def test_another_client_with_our_trial_centre(tmp_path: Path) -> None:
    aiosmpplib = pytest.importorskip("aiosmpplib", reason="the package aiosmpplib is not installed")
    centre = Smsc(
        SmscOptions(port=0, ledger=str(tmp_path / "ledger"), receipt_delay=0.01, password="secret", reject=("0x0b@+46700000003",))
    )
    port = await centre.start()
    answers: list[Any] = []

    class Hook(aiosmpplib.AbstractHook):  # type: ignore[misc,name-defined]
        async def sending(self, smpp_message: Any, pdu: bytes, client_id: str) -> None: ...
        async def received(self, smpp_message: Any, pdu: bytes, client_id: str) -> None:
            answers.append(smpp_message)

        async def send_error(self, smpp_message: Any, error: Exception, client_id: str) -> None:
            raise error

    esme = aiosmpplib.ESME("127.0.0.1", port, "other", "secret", hook=Hook(), log_level="ERROR")
    kind = aiosmpplib.PhoneNumber
    try:
        for number in NUMBERS[:5]:
            message = aiosmpplib.SubmitSm(
                short_message="hello €", source=kind("46701"), destination=kind(number[1:], aiosmpplib.TON.INTERNATIONAL), log_id=number
            )
            await esme.broker.enqueue(message)
        running = asyncio.create_task(esme.start())
        async with asyncio.timeout(15):
            while centre.counts["receipts"] < 4 or sum(isinstance(each, aiosmpplib.DeliverSm) for each in answers) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await esme.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (centre.counts["accepted"], centre.counts["rejected"], centre.counts["garbage"]) == (4, 1, 0)
        said = [each for each in answers if isinstance(each, aiosmpplib.SubmitSmResp)]
        assert Counter(int(each.command_status) for each in said) == {0: 4, 0x0B: 1}
        receipts = [each for each in answers if isinstance(each, aiosmpplib.DeliverSm)]
        assert {each.parse_receipt()["stat"] for each in receipts} == {"DELIVRD"}
    finally:
        await centre.stop()


class _free_port:
    """A port of loopback that was free a moment ago: that server takes no 0."""

    def __enter__(self) -> int:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def __exit__(self, *_: object) -> None: ...
