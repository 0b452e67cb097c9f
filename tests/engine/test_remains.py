"""What a rescuer makes of a dead worker's journal."""

from __future__ import annotations

import msgspec

from sendengine import records
from sendengine.engine.identity import Identity
from sendengine.engine.journal import Journal
from sendengine.engine.remains import DIED, read, settlements_of
from sendengine.engine.settings import EngineSettings
from sendengine.queue.memory import MemoryQueue, MemoryStore
from sendengine.sink.silent import SilentMeter
from sendengine.types import Outcome


def test_a_worker_that_used_all_its_reply_numbers_leaves_the_rescuer_one() -> None:
    queue = MemoryQueue(MemoryStore(), lambda: 0.0)
    told: list[object] = []
    journal = Journal(queue, Identity("w1"), EngineSettings(), SilentMeter(), lambda: 0.0, told.append, told.append, told.append, list)
    texts = [msgspec.json.encode(["5.1.1", f"550 no {n}", "relay"]) for n in range(records.NO_REPLY + 2)]
    numbers = [journal.reply(text) for text in texts]
    last = numbers.index(records.NO_REPLY) - 1
    assert len(set(numbers)) == last + 2
    assert set(numbers[last + 1 :]) == {records.NO_REPLY}

    outcome = records.OUTCOME.pack(0, Outcome.BOUNCED | records.FIRST_TRY, 1, numbers[last], 1, 0.0, 0.0, 0)
    left = {
        b"t": records.REVOKED,
        b"L1": records.encode_note(records.Note("m1", b"lease", "c1", 0)),
        b"R%d" % numbers[last]: texts[last],
        b"1": records.ENTRY.pack(records.KIND_OUTCOME, 1) + outcome + records.INTENT.pack(records.KIND_INTENT, 1, 1),
    }
    [settlement] = settlements_of(read(left), 0)["m1"]
    [bounced] = records.decode_outcomes(settlement.records)
    doubt, *_ = records.DOUBT.iter_unpack(settlement.doubts)
    dictionary = msgspec.json.decode(settlement.dictionary)
    assert dictionary[str(bounced.reply)] == msgspec.json.decode(texts[last])
    assert dictionary[str(doubt[3])] == msgspec.json.decode(DIED)
