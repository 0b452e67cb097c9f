"""Lua grants and cuts as the twin in memory does, on whatever clock it finds: what is shown for one holds for the other."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from queue_bench import redis_bench

from sendengine.queue.memory_granting import grant
from sendengine.queue.memory_state import Account

CUT_DELAY_US = 200_000.0
RATES = st.sampled_from([2_300, 30_000, 200_000, 1_000_000])
steps = st.lists(
    st.tuples(
        st.floats(-4e6, 3.6e9),  # the account's clock, ahead of Redis' by so many µs: behind it, within a horizon, or stepped
        st.integers(0, 200),
        st.sampled_from([1e3, 2e5, 1e6, 5e6]),
        st.sampled_from([0.0, 36_000.0]),
        st.booleans(),
        RATES,
    ),
    min_size=3,
    max_size=15,
)


def twin(fields: dict[str, str]) -> Account:
    account = Account()
    account.fields.update({name: fields[name] for name in ("iv", "last", "cut")})
    return account


def test_grants_and_cuts_are_the_twins(redis_url: str) -> None:
    async def compare(life: list[tuple[float, int, float, float, bool, int]]) -> None:
        bench = redis_bench(redis_url)
        await bench.desk.create_account("m1", {"tier": "t", "rate": "", "iv": "0"})
        await bench.desk.create("m1", "c", b"digest", None, b"message", {})
        for ahead, want, horizon, lead, is_cut, per_hour in life:
            last = await bench.desk.now_us() + ahead
            await bench.desk.set_account("m1", {"iv": f"{3.6e9 / per_hour:.3f}", "last": f"{last:.3f}"})
            account = twin(dict(await bench.desk.account("m1")))
            if is_cut:
                await bench.queue.leave("m1")
                after = await bench.desk.account("m1")
                assert account.cut(float(after["cut_at"]) - CUT_DELAY_US, CUT_DELAY_US) == (int(after["cut"]), float(after["cut_at"]))
            else:
                visited = await bench.queue.visit("m1", want, horizon, "=", ["c"], [], lead)
                after = await bench.desk.account("m1")
                permits, delay, interval = grant(account, visited.now_us, want, horizon, lead)
                assert (visited.permits, visited.interval_us) == (permits, round(interval, 3) if want else visited.interval_us)
                assert abs(visited.delay_us - delay) <= 0.1 or not want
            assert abs(float(after["last"]) - float(account.fields["last"])) <= 0.01
        await bench.close()

    @given(life=steps)
    @settings(
        max_examples=25, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    def run(life: list[tuple[float, int, float, float, bool, int]]) -> None:
        asyncio.run(compare(life))

    run()
