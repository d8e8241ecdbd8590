r"""How a log lies in Redis, and what the server does with it: the bytes of a member, and one script per call.

Owns the names of the server's keys and everything written in Lua. It must know nothing of connections.

All keys of a log stand under one hash tag, its prefix, so that all lie in one slot of a cluster:

```
 {prefix}:log          hash        format and id of the log
 {prefix}:kind:HH      sorted set  all pairs whose key begins with the byte HH, at equal scores: ordered by bytes
 {prefix}:feed         stream      the keys of the kind that is fed, without it, in the order of their commits
 {prefix}:lane:...     string      number of the newest commit that came over one connection; expires
```

A member is a whole pair. Key and value in one took 14 to 27 % less memory than a sorted set of keys and a hash of
values (216 and 266 bytes for a value of 100), and a page of a scan is one command:

```
 rest of the key, each \0 as \0 \xff | \0 \0 | of the kind that is fed: its place in the feed, 6 + 4 bytes | value
```

So no key's bytes begin another's, and they sort as the keys do: the end, ``\0 \0``, comes before all that may follow.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.storage.base import FED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog.storage.base import Range

END: Final = b"\0\0"
_AFTER_END: Final = b"\1"
_PLACE_BYTES: Final = 10
_ESCAPED: Final = b"\0\xff"


class Script(NamedTuple):
    """A script of the server's, and the name under which the server keeps it.

    Each takes as its first argument a number, and answers with it first: so an answer is never taken for another's.
    """

    source: bytes
    sha: bytes


def _script(source: str) -> Script:
    encoded = source.encode()
    return Script(encoded, hashlib.sha1(encoded).hexdigest().encode())  # noqa: S324 (the server names it so)


_FIND: Final = r"""
local call = redis.call
local function bounds(prefix)
  return '[' .. prefix, '(' .. string.sub(prefix, 1, -2) .. '\1'
end
local function find(set, prefix)
  local low, high = bounds(prefix)
  return call('ZRANGEBYLEX', set, low, high, 'LIMIT', 0, 1)[1]
end
"""

MAKE: Final = _script(r"""
-- KEYS: log. ARGV: number, format, id. Make the log unless there is one; format and id of the one there is.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[2], 'id', ARGV[3])
end
return {ARGV[1], redis.call('HMGET', KEYS[1], 'format', 'id')}
""")

LANE: Final = _script(r"""
-- KEYS: lane, and its name once it is closed. ARGV: number, seconds that it lives. Make a lane.
-- Everything that commits need is called on a key that is not there, where it does nothing: who may not call it, or
-- where it has another name, is told so now, not in the middle of a commit.
-- Only the first write of a script is refused where memory is full, and ZREM asks for none: who deletes needs a lane.
local call, none = redis.call, KEYS[2]
call('ZREM', none, 'none')
call('ZADD', none, 'XX', 0, 'none')
call('ZREMRANGEBYLEX', none, '-', '+')
call('ZRANGEBYLEX', none, '-', '+', 'LIMIT', 0, 1)
call('ZCARD', none)
call('XADD', none, 'NOMKSTREAM', '*', 'none', '')
call('XDEL', none, '0-1')
call('XLEN', none)
call('SET', KEYS[1], 0, 'EX', ARGV[2])
call('RENAME', KEYS[1], KEYS[2])
call('RENAME', KEYS[2], KEYS[1])
call('GET', KEYS[1])
return {ARGV[1]}
""")

GET: Final = _script(
    _FIND
    + r"""
-- KEYS: sets. ARGV: number, then set and prefix of each key. Its member, or nil.
local members = {ARGV[1]}
for at = 2, #ARGV, 2 do
  members[#members + 1] = find(KEYS[tonumber(ARGV[at])], ARGV[at + 1]) or false
end
return members
"""
)

SCAN: Final = _script(r"""
-- KEYS: sets. ARGV: number, direction, most members, most bytes, then set and two bounds of each range.
-- The members of each range that was walked to its end, and then of one that was not.
local number, command, left, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local answer = {number, 0}
local seen, bytes = 1, 65536  -- before any was seen it is taken for a large one
for at = 5, #ARGV, 3 do
  local set, members, count, page = KEYS[tonumber(ARGV[at])], {}, nil, nil
  repeat
    count = math.max(1, math.min(left, math.floor(room * seen / bytes)))
    page = redis.call(command, set, ARGV[at + 1], ARGV[at + 2], 'LIMIT', #members, count)
    for _, member in ipairs(page) do
      members[#members + 1] = member
      bytes, room = bytes + #member, room - #member
    end
    seen, left = seen + #page, left - #page
  until #page < count or left <= 0 or room <= 0
  answer[#answer + 1] = members
  if #page == count then return answer end
  answer[2] = answer[2] + 1
  if left <= 0 or room <= 0 then return answer end
end
return answer
""")

COMMIT: Final = _script(
    _FIND
    + r"""
-- KEYS: lane, feed, the set that is fed, other sets. ARGV: number, seconds that a lane lives, how many are expected,
-- how many are deleted; then of each expected: set, prefix, '=' and value or nothing; of each deleted: set, prefix;
-- of each put: set, prefix, value.
local number, fed, at = ARGV[1], KEYS[3], 5
local lane = call('GET', KEYS[1])
if not lane then return {number, 'astray'} end
if lane == number then return {number, 'done'} end
call('XLEN', KEYS[2])  -- another's key of that name is found here, before anything is written
for i = 3, #KEYS do call('ZCARD', KEYS[i]) end

local differing = {number, 'differing'}
for i = 1, tonumber(ARGV[3]) do
  local set, prefix = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
  local member = find(set, prefix)
  local head = #prefix + (set == fed and 10 or 0)
  if (member and '=' .. string.sub(member, head + 1) or '') ~= ARGV[at + 2] then
    differing[#differing + 1] = i
  end
  at = at + 3
end
if #differing > 2 then return differing end

local function mark(command) return command('SET', KEYS[1], number, 'EX', ARGV[2]) end

local function remove(set, prefix)
  if set == fed then
    local member = find(set, prefix)
    if member then
      call('XDEL', KEYS[2], string.format('%.0f-%.0f', struct.unpack('>I6I4', member, #prefix + 1)))
      call('ZREM', set, member)
    end
  else
    call('ZREMRANGEBYLEX', set, bounds(prefix))
  end
end

local function feed(prefix)
  local rest = string.gsub(string.sub(prefix, 1, -3), '%z\255', '\0')
  local ms, n = string.match(call('XADD', KEYS[2], '*', 'k', rest), '(%d+)-(%d+)')
  return struct.pack('>I6I4', tonumber(ms), tonumber(n))
end

local begin = at + 2 * tonumber(ARGV[4])

local function is_small()
  local room = 512
  for put = begin, #ARGV, 3 do
    local member = find(KEYS[tonumber(ARGV[put])], ARGV[put + 1])
    if not member then return false end
    room = room + #member - #ARGV[put + 1] - #ARGV[put + 2]
  end
  return room >= 0
end

-- Only the first write of a script is refused where memory is full: with puts it is one that asks for some. But a put
-- that adds no key and hardly a byte is how a deletion begins, and is done.
local marked = begin <= #ARGV and mark(redis.pcall)
if marked and marked.err and not (string.find(marked.err, 'OOM') and is_small()) then return marked end
while at < begin do
  remove(KEYS[tonumber(ARGV[at])], ARGV[at + 1])
  at = at + 2
end
for put = begin, #ARGV, 3 do
  local set, prefix = KEYS[tonumber(ARGV[put])], ARGV[put + 1]
  remove(set, prefix)
  call('ZADD', set, 0, prefix .. (set == fed and feed(prefix) or '') .. ARGV[put + 2])
end
if not marked or marked.err then mark(call) end
return {number, 'done'}
"""
)

FEED: Final = _script(r"""
-- KEYS: feed. ARGV: number, place to begin at, most entries. Entries, and the place of the last that there ever was.
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local facts = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #facts, 2 do
    if facts[at] == 'last-generated-id' then last = facts[at + 1] end
  end
end
return {ARGV[1], entries, last}
""")


RESOLVE: Final = _script(r"""
-- KEYS: lane, and its name once it is closed. ARGV: number. Close the lane, so that nothing that is still under way on
-- it will ever be done; the number of the last commit that was. (Neither command asks for memory.)
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
return {ARGV[1], redis.call('GET', KEYS[2])}
""")


class Names:
    """The server's keys of one log.

    Args:
        prefix: the name of the log.
    """

    def __init__(self, prefix: str) -> None:
        base = b"{%b}:" % prefix.encode()
        self.log = base + b"log"
        self.feed = base + b"feed"
        self.lane = base + b"lane:"
        self.sets = [b"%bkind:%02x" % (base, kind) for kind in range(256)]
        self.fed = self.sets[FED[0]]


def closed(lane: bytes) -> bytes:
    """The name of a lane on which nothing will be done any more."""
    return lane + b":closed"


def prefix_of(key: bytes) -> bytes:
    """How the member of `key` begins, in the sorted set of its kind."""
    return key[1:].replace(b"\0", _ESCAPED) + END


def pair_of(kind: bytes, member: bytes) -> tuple[bytes, bytes]:
    """Key and value of a member."""
    rest, _, value = member.partition(END)
    return kind + rest.replace(_ESCAPED, b"\0"), value[_PLACE_BYTES:] if kind == FED else value


def value_of(prefix: bytes, kind: bytes, member: bytes) -> bytes:
    """The value of a member whose beginning is known."""
    return member[len(prefix) + (_PLACE_BYTES if kind == FED else 0) :]


def bounds_of(bounds: Range) -> tuple[bytes, bytes]:
    """The bounds of a range, as the server takes them; there is something between."""
    start, end = bounds
    high = b"(" + prefix_of(end) if end[:1] == start[:1] else b"+"
    return b"[" + prefix_of(start), high


class Sets:
    """The sorted sets that one call touches, numbered as the keys of its script.

    Args:
        names: of the log.
        keys: those of the script that come before.
    """

    def __init__(self, names: Names, keys: Sequence[bytes] = ()) -> None:
        self._names = names
        self.keys = list(keys)
        self._numbers: dict[int, bytes] = {}
        if names.fed in self.keys:
            self._numbers[FED[0]] = b"%d" % (self.keys.index(names.fed) + 1)

    def number(self, key: bytes) -> bytes:
        """Which of the script's keys holds the pair of `key`."""
        kind = key[0]
        if kind not in self._numbers:
            self.keys.append(self._names.sets[kind])
            self._numbers[kind] = b"%d" % len(self.keys)
        return self._numbers[kind]
