"""Who asks, and what their key opens. A key of one account sees nothing of another: what is foreign is not found, and never looked for."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from sendengine.api import problems
from sendengine.api.limits import Bucket, Quota
from sendengine.api.problems import Problem
from sendengine.errors import NoAccount, NotFound, RefusedInput, about
from sendengine.lanes import others
from sendengine.policy.apikeys import DAY_US, ApiKey, Scope, digest_of, opens
from sendengine.ports import Desk
from sendengine.scheduler import names

CHECK_AGAIN_S = 1.0  # a request that goes on: whether its key still stands
BUCKETS_MOST, SWEEP_S = 10_000, 1.0
NOBODY = ApiKey("", "", (), "", 0.0)  # whose requests are signed: it opens nothing


class Door:
    """Owner of what is counted by key. Of its times `now` is monotonic, `wall` Unix seconds."""

    def __init__(self, desk: Desk, per_second: float, uploads: int, streams: int) -> None:
        self._desk, self._per_second = desk, per_second
        self._buckets: dict[str, Bucket] = {}
        self._swept_at = 0.0
        self.uploads, self.streams = Quota("uploads", uploads), Quota("streams", streams)

    async def enter(self, request: Request, now: float, wall: float) -> ApiKey:
        """The key of a request, read anew each time: one that was revoked opens nothing from then on."""
        digest = digest_of(_bearer(request))
        key = await self._desk.api_key(digest)
        if not opens(key, digest) or key is None:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Problem(problems.UNAUTHORISED, "the key is unknown or revoked", headers=challenge)
        self._count(key, now)
        await self._note_use(key, wall)
        return key

    async def stands(self, key: ApiKey) -> bool:
        """Whether a key that opened a request would open it now."""
        return await self._desk.api_key(key.digest) is not None

    def _count(self, key: ApiKey, now: float) -> None:
        if len(self._buckets) > BUCKETS_MOST and now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._buckets = {digest: bucket for digest, bucket in self._buckets.items() if not bucket.is_full(now)}
        bucket = self._buckets.setdefault(key.digest, Bucket(self._per_second, now))
        if (wait := bucket.take(now)) > 0:
            said = f"a key gets {self._per_second:g} requests a second"
            raise Problem(problems.TOO_MANY, said, headers={"Retry-After": str(max(1, round(wait + 0.5)))})

    async def _note_use(self, key: ApiKey, wall: float) -> None:
        """Once a day."""
        today = wall * 1e6 // DAY_US * DAY_US
        if key.used_us < today:
            await self._desk.change_api_key(key, msgspec.structs.replace(key, used_us=today))


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(problems.UNAUTHORISED, "the request has no key", headers={"WWW-Authenticate": "Bearer"})
    return token.strip()


def demand(key: ApiKey, scope: Scope, is_operators: bool) -> None:
    """Looks at the key alone, so that the answer is the same whatever the request names."""
    if is_operators and not key.is_operator:  # first: no scope would help
        raise Problem(problems.FORBIDDEN, "this is the operator's: no account's key opens it", "ask the operator, or use a key of theirs")
    if scope not in key.scopes:
        raise Problem(problems.FORBIDDEN, f"this wants the scope {scope}; the key has {' '.join(key.scopes)}")


def account_of(key: ApiKey, given: str | None) -> str:
    """The account that a request is about. An account's key needs name none."""
    with about("account"):
        if given is None:
            if key.is_operator:
                raise RefusedInput("of which account?", "a key of the operator names the account")
            return key.account
        names.account_id(given)
    if not key.is_operator and given != key.account:
        raise NoAccount(f"no account {given}", problems.NOT_FOUND.remedy)
    return given


async def send_of(desk: Desk, key: ApiKey, given: str) -> str:
    """A send by its full name. For an account's key the same is asked of the server and answered for another account's send, for one that
    does not exist there, and for one that does not exist here: nothing tells them apart."""
    if key.is_operator:
        return str(await names.resolve(desk, given))
    lane, separator, name = given.rpartition(":")
    if separator:
        names.lane_id(lane)
    if not names.is_campaign(name):
        raise RefusedInput(f"{given!r} is no campaign", "write m1234:ID, or the ID alone")
    own = [key.account, *others(key.account)]
    found = [each for each in own if "state" in await desk.campaign(each, name)]
    if not found or lane not in ("", key.account, *found):
        raise NotFound(f"no send {given}", problems.NOT_FOUND.remedy)
    return f"{lane if lane in found else found[0]}:{name}"
