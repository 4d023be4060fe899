"""What Redis runs by itself: the steps of the cache protocol that look before they write.

An entry is a value (JSON text), a lease (`\\xffL`, token) or a fence (`\\xffF`, the microsecond of
its last change in 16 digits, `s` where two writers shared it once, else `-`, then for each writer
that holds it ten digits of Unix time and its token, the earliest first). No JSON begins with the
byte 0xFF. Every change makes another fence of it: whoever compares it later with what he saw must
not take one for the other. Every script may run twice: the second run finds nothing of its own left
and changes nothing that anyone may rely on.

Each takes the entries as KEYS (of one table and bucket where Redis is a cluster).
"""

MARK = b"\xff"
LEASE = MARK + b"L"
FENCE = MARK + b"F"
TOKEN_LENGTH = 16

GRANTED, WAIT, FENCED = 1, 2, 3
"""What `LEASE_MANY` says of an entry that has no value."""

# ARGV: token, milliseconds a lease lives, seconds after which a fence's writers count as dead.
# A reply for each key: its value; its fence, if the last of its writers came so long ago; or one of
# the numbers above.
LEASE_MANY = """
local now = tonumber(redis.call('TIME')[1])
local replies = {}
for i, key in ipairs(KEYS) do
  local entry = redis.call('GET', key)
  if not entry or entry == '\\255L' .. ARGV[1] then
    redis.call('SET', key, '\\255L' .. ARGV[1], 'PX', ARGV[2])
    replies[i] = 1
  elseif string.sub(entry, 1, 2) == '\\255L' then
    replies[i] = 2
  elseif string.sub(entry, 1, 2) == '\\255F' then
    local since = string.len(entry) > 19 and tonumber(string.sub(entry, -26, -17)) or now
    replies[i] = now - since >= tonumber(ARGV[3]) and entry or 3
  else
    replies[i] = entry
  end
end
return replies
"""

# ARGV: token, lowest TTL and how much may be added to it (ms), then a value for each key.
# Stores where our own lease still stands; an empty value gives the lease back.
FILL_MANY = """
math.randomseed(tonumber(redis.call('TIME')[2]))
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == '\\255L' .. ARGV[1] then
    if ARGV[i + 3] == '' then
      redis.call('DEL', key)
    else
      redis.call('SET', key, ARGV[i + 3], 'PX', ARGV[2] + math.random(0, ARGV[3]))
    end
  end
end
"""

# ARGV: lowest TTL and what may be added to it (ms), how long a fence lives (ms), then for each key
# the fence that was seen and the value that a read found which waited for that fence's writer; or
# '\xff' where the read could not wait so long: then all its writers count as new.
SETTLE_MANY = """
local time = redis.call('TIME')
local now, changed = string.format('%010d', time[1]), string.format('%010d%06d', time[1], time[2])
math.randomseed(tonumber(time[2]))
for i, key in ipairs(KEYS) do
  local fence, value = ARGV[2 * i + 2], ARGV[2 * i + 3]
  if redis.call('GET', key) == fence then
    if value == '' then
      redis.call('DEL', key)
    elseif value == '\\255' then
      local renewed = '\\255F' .. changed .. string.sub(fence, 19, 19)
      for at = 30, string.len(fence), 26 do
        renewed = renewed .. now .. string.sub(fence, at, at + 15)
      end
      redis.call('SET', key, renewed, 'PX', ARGV[3])
    else
      redis.call('SET', key, value, 'PX', ARGV[1] + math.random(0, ARGV[2]))
    end
  end
end
"""

# The last key is the watermark of the bucket: a life in 16 characters, which is another one after
# the watermark was lost (half a token and the microsecond, as one writer may make it twice), and
# the time of the latest COMMIT that was published, in microseconds of the database's clock. ARGV:
# token, milliseconds a fence lives and a watermark. An entry that another writer fences is fenced
# by both: it holds all their tokens, each with the time it came. One that came a moment ago may
# have no row lock yet that a reader could wait for. The reply is the watermark as it was before.
FENCE_MANY = """
local time = redis.call('TIME')
local changed = string.format('%010d%06d', time[1], time[2])
local own = string.format('%010d', time[1]) .. ARGV[1]
for i = 1, #KEYS - 1 do
  local shared, holders = '-', own
  local entry = redis.call('GET', KEYS[i])
  if entry and string.sub(entry, 1, 2) == '\\255F' and string.len(entry) > 19 then
    shared, holders = string.sub(entry, 19, 19), string.sub(entry, 20)
    if not string.find(holders, ARGV[1], 1, true) then
      shared, holders = 's', holders .. own
    end
  end
  redis.call('SET', KEYS[i], '\\255F' .. changed .. shared .. holders, 'PX', ARGV[2])
end
local watermark = redis.call('GET', KEYS[#KEYS])
if not watermark then
  watermark = string.sub(ARGV[1], 9) .. string.sub(changed, 9) .. '0'
  redis.call('SET', KEYS[#KEYS], watermark, 'PX', ARGV[3])
end
return watermark
"""

# The last key is the watermark. ARGV: token, milliseconds a fence and a watermark live, when the
# change was committed (0: it was undone), lowest TTL and what may be added to it (ms), how long a
# tombstone lives (ms), then for each entry 'row' or 'lookup' and a value. Own fence: becomes the
# value, if nobody shared it: who did may have read the rows before ours were committed. Another's:
# stays, less our token, and is shared from then on, also where our own was lost. Anything else was
# put there by a reader that could not know better: goes. Where a row goes a tombstone stays for a
# while, a fence without tokens: so that a late STORE_NEW_MANY finds the place taken.
PUBLISH_MANY = """
local time = redis.call('TIME')
local changed = string.format('%010d%06d', time[1], time[2])
math.randomseed(tonumber(time[2]))
for i = 1, #KEYS - 1 do
  local entry = redis.call('GET', KEYS[i])
  local kind, value = ARGV[2 * i + 6], ARGV[2 * i + 7]
  local goes = true
  if entry and string.sub(entry, 1, 2) == '\\255F' and string.len(entry) > 19 then
    local at = string.find(entry, ARGV[1], 30, true)
    local shared, others = string.sub(entry, 19, 19), string.sub(entry, 20)
    if at then
      others = string.sub(entry, 20, at - 11) .. string.sub(entry, at + 16)
    else
      shared = 's'
    end
    if others ~= '' then
      redis.call('SET', KEYS[i], '\\255F' .. changed .. shared .. others, 'PX', ARGV[2])
      goes = false
    elseif shared == '-' and value ~= '' then
      redis.call('SET', KEYS[i], value, 'PX', ARGV[5] + math.random(0, ARGV[6]))
      goes = false
    end
  end
  if goes and kind == 'row' then
    redis.call('SET', KEYS[i], '\\255F' .. changed .. '-', 'PX', ARGV[7])
  elseif goes then
    redis.call('DEL', KEYS[i])
  end
end
local life = string.sub(ARGV[1], 9) .. string.sub(changed, 9)
local watermark = redis.call('GET', KEYS[#KEYS]) or life .. '0'
if tonumber(string.sub(watermark, 17)) < tonumber(ARGV[4]) then
  watermark = string.sub(watermark, 1, 16) .. ARGV[4]
end
redis.call('SET', KEYS[#KEYS], watermark, 'PX', ARGV[3])
"""

# The first key is a witness, set with the fences: while it stands nothing was lost and little time
# has passed. ARGV: token, lowest TTL and what may be added to it (ms), then a value for each
# row; '' where it is not to be stored. Stores rows whose keys are new, where nobody was faster to
# change them. A value that stands there already is of a later writer, or of a row that had this key
# until somebody emptied the table: it goes, as a miss is right in both cases.
STORE_NEW_MANY = """
local is_witnessed = redis.call('GET', KEYS[1]) == ARGV[1]
math.randomseed(tonumber(redis.call('TIME')[2]))
for i = 2, #KEYS do
  local entry, value = redis.call('GET', KEYS[i]), ARGV[i + 2]
  if entry and string.sub(entry, 1, 1) ~= '\\255' then
    redis.call('DEL', KEYS[i])
  elseif not entry and is_witnessed and value ~= '' then
    redis.call('SET', KEYS[i], value, 'PX', ARGV[2] + math.random(0, ARGV[3]))
  end
end
redis.call('DEL', KEYS[1])
"""

# The key is a table's hint. ARGV: a generation's number, its server ('': not to be used), how long
# the hint lives (ms). A container that is late does not bring back an earlier generation.
LEAVE_HINT = """
local number = tonumber(string.match(redis.call('GET', KEYS[1]) or '', '^%d+') or 0)
if number <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
"""

ALL = (
    *(LEASE_MANY, FILL_MANY, SETTLE_MANY, FENCE_MANY, PUBLISH_MANY, STORE_NEW_MANY),
    LEAVE_HINT,
)
