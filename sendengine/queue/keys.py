"""Every Redis key, its type and its meaning. The states these keys hold are tabled in docs/queue-states.md.

All keys of an account carry the hash tag {m1234}, all of a worker {w:ID}, so that each script touches one Cluster slot.
Scripts get the first key of their slot and form the others from it (lua/lib.lua), by the same names as here.

account slot: B = {m1234} is the account's own; A is a lane of it, a channel with its own clock, queue and states: {m1234} for e-mail
  B               hash    beside the fields of the e-mail lane: term, term_ends (µs, absent: no end), grace and purge_after (days),
                          hold:REASON (JSON, policy/holds.py), gate (0 under a hold, else term_ends; absent: neither), closed_at (µs
                          since when it is shut, where a script saw that), audits (lines noted for the audit trail so far), purging (µs: its
                          purge has begun),
                          sup (how often B:sup got an address or a graver reason; absent: there never was one, nor a soft bounce)
  B:sup           hash    addresses that get nothing any more -> weight of the reason, since (policy/suppression.py)
  B:late          list    the last of them, the newest last
  B:soft          hash    address -> soft bounces, and bounces of a full mailbox, in a row (an octet each)
  B:health        hash    how its e-mail fared, by the hour (lua/health.lua)
  B:events        hash    events from billing, the last 1000: "i:"id -> sequence and digest, "s:"sequence -> id (fields of B: seq, the last
                          one's sequence; edition, channels, seats)
  B:early         hash    sequence -> µs when it came, and an event that waits for those before it (JSON; the release before kept that
                          alone); field `stuck` of B: sequence of one whose turn it is and that cannot be applied, and why
  B:orders        hash    order -> sequence of its latest event, and its lines that wait for their payment (JSON, a line each); 100 at
                          most (the release before: "paid" of others, too)
  B:audit         hash    number -> µs and JSON: lines that the audit trail has not taken yet
  B:runs          hash    change in parts -> the same, with its counts so far, until it ends or anything else is noted (lua/counting.lua)
  B:hooks         hash    webhooks out: subscription -> JSON (policy.hooks.Hook)
  B:hooked        hash    what was last looked at for them: v (version), since µs, tier, holds, credits, untold (complaints that
                          were counted only), held (holds that came and went since, lua/held.lua), c:ID and c:sms/ID ->
                          last outcome entry told of
  B:due           zset    deliveries on their way -> µs of their next try
  B:out           hash    delivery -> JSON (policy.hooks.Delivery)
  A               hash    the lane: tier, rate (messages/h, "" unmetered), iv (µs between messages, 0 unmetered), last (µs of Redis
                          time of the last permit granted), cut and cut_at (number and µs of the last cut), relay, bind (what binds now),
                          idle (µs in which the relay refused us or the gate was shut: no lifetime runs), idle_at (up to when it
                          counts these), boosts (grants of speed so far), boost:N (one of them:
                          from µs, until µs, interval, then JSON), boosted:KEY (of one that was asked for under a caller's key: its number,
                          until µs, digest of what was asked), grants (the same 24 octets of those that are not over)
  A:sends         zset    campaign -> µs of its creation
  A:open          set     campaigns that have not ended
  A:run           zset    campaigns that may send now -> messages served since the set last changed (the deal's memory)
  A:ready         zset    those of A:run with READY rows -> the same number of messages served
  A:again         zset    those of A:run with rows in RETRY -> µs of the earliest
  A:line          list    sequential campaigns that are not through, in their order: the one that sends at the head
  A:at            zset    campaign -> µs when its schedule or window needs a look
  A:lease         hash    lease token (8 octets) -> lease record; the only truth about who may settle what
  A:c:ID          hash    the campaign: definition, state, counts, times (runs_since: of its last joining A:run; over: of its end by
                          Redis' clock, where finished is that of its last MAIL); of SMS whose list
                          is too dear lacks (1/1000 credit) and lacks_at; unended (lists that were begun and
                          have not ended: lua/unended.lua)
  A:c:ID:m        string  its message (render.message.dump)
  A:c:ID:p        hash    batch number -> digest (8) + accepted mask (13) + payload (batch.pack). The digest is over its rows and
                          all before it (lua/standing.lua); of a single message over what its caller said, or zeros (the release before)
  A:c:ID:q0 … q9  stream  one per priority level: entry <number+1>-0, field m = mask of the rows that are READY in it
  A:c:ID:b        list    rows given back by a lease: batch, level, mask, histories (READY again)
  A:c:ID:k        hash    batch number -> workers that died of it without progress between (docs/design/010)
  A:c:ID:z        list    rows set aside, as in A:c:ID:b: nobody takes them
  A:c:ID:r        hash    batch number -> rows in RETRY: history, due
  A:c:ID:w        zset    batch number -> µs of its earliest retry
  A:c:ID:d        hash    "batch:row" -> times it was in doubt
  A:c:ID:o        stream  outcomes, in the order in which they were settled: k, r(ecords), d(ictionary), w(orker)
  A:c:ID:x        hash    batch number -> message (campaign "transactional" only, until its outcome)
  A:c:ID:i        hash    key of a single message -> its batch number, and "#number" -> its key ("transactional" only)
  A:c:ID:$        hash    SMS only, what its rows cost in 1/1000 credit: batch number -> u32 each by row, or one for all of it; d<lot> ->
                          reserved of that lot and neither spent nor released yet
  A:c:ID:f0 … f2  hash    place -> fingerprints of rows, packed: generations of 2^16, 2^20 and 2^24 buckets (lua/finding.lua; `expected` of
                          A:c:ID says where a list begins); deleted at the seal

  A:lots          hash    SMS only: number of a lot of credits -> granted, reserved, spent (1/1000 credit), bought µs, and the µs until when
                          it is good (0: bought with e-mail, good until that term ends), blanks between; #KEY -> the lot granted under it
  A:money         stream  SMS only: the ledger, one entry for each move: k(ind), l(ots) "number:amount …", c(ampaign), b(atch, -1: all of
                          it), and of a grant u (bought), x (good until), w(ho), y (why). Its fold is A:lots

  A:c:ID:s        hash    SMS only, receipts: "batch:row" -> state, error, ms, blanks between

provider slot
  {r:NAME}:w      zset    workers that send by it -> µs until which they count without saying so again; expires by itself
  {r:NAME}:DAY    hash    messages that the provider took on that day since 1970: its id -> lane, campaign, batch, row (records.Ref);
                          expires a week later

worker slot, W = {w:ID}
  W               hash    the journal: t = worker token, b = beat, L<n> = note of lease n, <tick> = intents and outcomes of a tick,
                          R<n> = distinct reply n
  W:in            list    inbox: packed news (account, cut number, cut µs)
  W:i             string  what the worker says of itself (JSON; expires in a day: what is left tells its age)

in each of these slots
  S:mark          string  written so that WAIT has a write to wait for (link.committed); expires in a second
  S:~             never   written by nobody: named to scripts in a cluster, so that a slot on the move refuses them (cluster.guarded)

no slot of their own
  {x}             zset    the index of work: account -> µs of its next need (a hint, never a truth)
  {x}:workers     set     workers that have a journal
  {x}:accounts    set     all lanes
  {x}:id:ID       set     lanes that have a campaign of this id (so that a bare id can be resolved)
  {x}:audit:m1234 stream  an account's audit trail, <ms>-<number> -> line (JSON: who, what, why); it outlives the account
  {x}:dkim        hash    the private keys that the fleet shares: SELECTOR._domainkey.DOMAIN -> JSON (algorithm, key, µs from when it
                          signs), and "#" = how often they changed
  {x}:gone        hash    tombstones: account -> µs of its purge. An id stands here for ever, and is never used again
  {x}:purging     set     accounts whose purge has begun and not ended
  {x}:claim:WHAT  string  who looks for purges that are due, or at how accounts fare; expires by itself
  {x}:hooks       zset    accounts with webhooks out -> µs when they need a look or a delivery
  {x}:keys        hash    API keys: SHA-256 of one, in hex -> JSON (account, "" the operator; scopes, seat, when made and last used, µs)
  {x}:keys:OWNER  hash    those of an account, or of `admin`: SHA-256 -> seat
  {x}:sweep       string  who sweeps; expires by itself
"""

from __future__ import annotations

INDEX = "{x}"
WORKERS = "{x}:workers"
ACCOUNTS = "{x}:accounts"
DKIM = "{x}:dkim"
DKIM_CHANGES = "#"
SWEEP = "{x}:sweep"
API_KEYS = "{x}:keys"
HOOKS = "{x}:hooks"
PURGING = "{x}:purging"
GONE = "{x}:gone"

INFO_SECONDS = 86400

CHANNELS = ("", "/sms")  # what stands behind an account's name in that of its lanes
LEVELS = range(9, -1, -1)


def account(lane: str) -> str:
    """`m1234` is its e-mail lane, `m1234/sms` another one."""
    name, slash, channel = lane.partition("/")
    return "{" + name + "}" + slash + channel


def home(lane: str) -> str:
    """What belongs to the account, whatever the lane."""
    return "{" + lane.partition("/")[0] + "}"


def campaign(lane: str, campaign_id: str) -> str:
    return f"{account(lane)}:c:{campaign_id}"


def lots(lane: str) -> str:
    return f"{account(lane)}:lots"


def money(lane: str) -> str:
    return f"{account(lane)}:money"


def journal(worker: str) -> str:
    return f"{{w:{worker}}}"


def inbox(worker: str) -> str:
    return f"{{w:{worker}}}:in"


def info(worker: str) -> str:
    return f"{{w:{worker}}}:i"


def holders(campaign_id: str) -> str:
    return f"{{x}}:id:{campaign_id}"


def trail(account_id: str) -> str:
    return f"{{x}}:audit:{account_id}"


def api_keys(owner: str) -> str:
    return f"{API_KEYS}:{owner}"


def sharing(provider: str) -> str:
    return f"{{r:{provider}}}:w"


def receipts(provider: str, day: int) -> str:
    return f"{{r:{provider}}}:{day}"


def claim(what: str) -> str:
    return f"{{x}}:claim:{what}"


def mark(slot: str) -> str:
    """`slot`: the first key of it."""
    return f"{slot}:mark"
