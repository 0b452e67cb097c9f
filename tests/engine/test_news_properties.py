"""A verb that has answered is known to every registered worker by its next append: once, in order, through lost answers and resyncs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sendengine.engine.identity import Identity
from sendengine.engine.journal import Journal
from sendengine.engine.settings import EngineSettings
from sendengine.errors import Unavailable
from sendengine.ports import Appended, News
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.sink.silent import SilentMeter
from tests.engine.bare import lane_of
from tests.engine.test_permit_properties import run

WORKERS = ("w1", "w2")


class Losing(MemoryQueue):
    """An answer may get lost after its call was executed: the connection goes with it."""

    loses = False

    async def append(self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]) -> Appended:
        appended = await super().append(worker, token, seen, gone, fields)
        if self.loses:
            self.loses = False
            self.drop()
            raise Unavailable("the answer never came")
        return appended


class Reader:
    def __init__(self, store: MemoryStore, name: str) -> None:
        self.queue = Losing(store, lambda: 1e9)
        identity = Identity(name)
        run(self.queue.register(identity.id, identity.token))
        self.heard: list[int] = []
        self.since_resync: list[int] = []
        self.lane = lane_of("m1")
        ignore = lambda _: None  # noqa: E731
        self.journal = Journal(self.queue, identity, EngineSettings(), SilentMeter(), lambda: 0.0, ignore, self.hear, ignore, tuple)

    def hear(self, news: News) -> None:
        self.heard.append(news.cut)
        self.since_resync.append(news.cut)
        self.lane.learn_cut(news.cut, news.cut_us)

    def append(self) -> bool:
        """False: its answer was lost, and all is written again."""
        try:
            run(self.journal._write([], []))
        except Unavailable:
            self.since_resync.clear()
            assert run(self.journal.recover())
            assert self.journal.resume()
            return False
        return True


def begin() -> tuple[MemoryDesk, Mapping[str, Reader]]:
    store = MemoryStore()
    desk = MemoryDesk(store, lambda: 1e9)
    run(desk.create_account("m1", {"tier": "t", "rate": "", "iv": "0"}))
    return desk, {name: Reader(store, name) for name in WORKERS}


@given(life=st.lists(st.tuples(st.sampled_from(["verb", "verb", "append", "lost"]), st.sampled_from(WORKERS)), min_size=5, max_size=60))
@settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_news_come_once_in_order_and_none_is_missed(life: list[tuple[str, str]]) -> None:
    desk, readers = begin()
    verbs = 0
    for act, name in life:
        reader = readers[name]
        if act == "verb":
            run(desk.set_rate("m1", "t", 1000.0 + verbs))
            verbs += 1
            continue
        reader.queue.loses = act == "lost"
        reader.append()
        assert reader.lane.cut == verbs
        assert sorted(set(reader.heard)) == list(range(1, verbs + 1))
        assert reader.since_resync == sorted(set(reader.since_resync))
    for reader in readers.values():
        reader.append()
        assert reader.lane.cut == verbs
        assert not any(reader.queue.loses for reader in readers.values())


@given(heard=st.permutations(range(1, 7)), granted=st.integers(0, 5))
@settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate])
def test_cuts_learnt_in_any_order_leave_no_void_permit_usable(heard: list[int], granted: int) -> None:
    """A number that is skipped makes all that is older void; what was heard in order keeps what no cut reached."""
    lane = lane_of("m1")
    for number in heard:
        lane.learn_cut(number, 100.0 * number)
    assert lane.cut == 6
    assert lane.void_after(granted) <= 100.0 * (granted + 1)
    assert lane.void_after(6) == float("inf")
