"""The Lua scripts of the cache protocol: the steps that look before they write.

An entry is a value (JSON text) or one of these marks, which begin with the byte 0xFF, as no JSON
does:

    lease       \\xffL, token
    fence       \\xffF, changed, shared, then for each writer that holds it: since, token
    tombstone   a fence that no writer holds

    changed     the time of the fence's last change, in microseconds, 16 digits
    shared      `s` where more than one writer may have held the fence at the same time, else `-`
    since       the time at which the writer came, in seconds, 10 digits; the earliest is first
    token       16 characters

A fence is a mark that a writer puts on an entry before it changes the rows that the entry shows:
while it stands no reader believes or fills the entry. Each change of a fence makes another one of
it (`changed`). So a reader that compares a fence with the one it saw cannot take one for the other.

A marker is a Redis key of each incarnation of a table's cache (in a cluster: of each bucket). It is
set once, before anybody uses the incarnation, and no script sets it where it is not there: then
Redis has lost entries since, and no mark may be set any more. What it holds is the watermark: the
time of the latest COMMIT that was published, in microseconds of the database's clock.

Redis runs a script as one step, so what it reads first, all at once, still holds when it writes. No
key is named twice. Every script may run twice: the second run finds nothing of its own
left, and changes nothing that anyone may rely on. KEYS are the Redis keys of entries, all of one
table and, in a cluster, of one bucket. Times to live are in milliseconds.
"""

MARK = b"\xff"
LEASE = MARK + b"L"
FENCE = MARK + b"F"
TOKEN_LENGTH = 16

# The replies of LEASE_MANY for an entry that has no value.
GRANTED, WAIT, FENCED = 1, 2, 3

# A reader takes a lease on each entry that is absent, or has a mark that is none of these: somebody
# else wrote there.
# The last key is the marker.
# ARGV: token; a lease's time to live; seconds after which a fence's writers count as dead.
# Replies nil where the marker is not there. Else for each key: its value; its fence, if the last of
# its writers came so long ago; or one of the numbers above.
LEASE_MANY = """
if not redis.call('GET', KEYS[#KEYS]) then
  return false
end
local now = tonumber(redis.call('TIME')[1])
local entries, replies = redis.call('MGET', unpack(KEYS)), {}
for i = 1, #KEYS - 1 do
  local entry = entries[i]
  local kind = entry and string.sub(entry, 1, 2)
  if kind == '\\255L' and entry ~= kind .. ARGV[1] then
    replies[i] = 2
  elseif kind == '\\255F' then
    local since = string.len(entry) > 19 and tonumber(string.sub(entry, -26, -17)) or now
    replies[i] = now - since >= tonumber(ARGV[3]) and entry or 3
  elseif not entry or string.byte(entry) == 255 then
    redis.call('SET', KEYS[i], '\\255L' .. ARGV[1], 'PX', ARGV[2])
    replies[i] = 1
  else
    replies[i] = entry
  end
end
return replies
"""

# A reader stores a value where its own lease still stands. An empty value gives the lease back.
# ARGV: token; the lowest time to live of a value and how much may be added to it; then a value for
# each key.
FILL_MANY = """
math.randomseed(tonumber(redis.call('TIME')[2]))
local entries = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if entries[i] == '\\255L' .. ARGV[1] then
    if ARGV[i + 3] == '' then
      redis.call('DEL', key)
    else
      redis.call('SET', key, ARGV[i + 3], 'PX', ARGV[2] + math.random(0, ARGV[3]))
    end
  end
end
"""

# A reader replaces a dead writer's fence by what the database holds, if it is still the fence that
# the reader saw.
# ARGV: the lowest time to live of a value and how much may be added to it; a fence's time to live;
# then for each key the fence that was seen, and the value that was read once the fence's writers
# held no row any more. The value is '\xff' where the read could not wait so long: then all writers
# of the fence count as new.
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

# A writer puts its fence on each entry. Where another writer's fence stands, both hold it.
# The last key is the marker.
# ARGV: token; a fence's time to live.
# Replies the watermark; nil where the marker is not there, and no fence stands.
# Each writer comes with its time: one that came a moment ago may hold no row lock yet that a reader
# could wait for.
FENCE_MANY = """
local watermark = redis.call('GET', KEYS[#KEYS])
if not watermark then
  return false
end
local time = redis.call('TIME')
local changed = string.format('%010d%06d', time[1], time[2])
local own = string.format('%010d', time[1]) .. ARGV[1]
local entries = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS - 1 do
  local entry, shared, holders = entries[i], '-', own
  if entry and string.sub(entry, 1, 2) == '\\255F' and string.len(entry) > 19 then
    shared, holders = string.sub(entry, 19, 19), string.sub(entry, 20)
    if not string.find(holders, ARGV[1], 1, true) then
      shared, holders = 's', holders .. own
    end
  end
  redis.call('SET', KEYS[i], '\\255F' .. changed .. shared .. holders, 'PX', ARGV[2])
end
return watermark
"""

# A writer replaces its fences, after its COMMIT, and moves the watermark.
# The last key is the marker.
# ARGV: token; the times to live of a fence and of a marker; the time of the COMMIT (0: the
# change was undone); the lowest time to live of a value and how much may be added to it; a
# tombstone's time to live; then for each entry 'row' or 'lookup' and a value.
# - Our own fence becomes the value, if nobody shared it. Who did may have read the rows before our
#   COMMIT.
# - A fence that others hold stays, without our token. It is shared from then on, also where our own
#   fence was lost.
# - Anything else was put there by a reader that did not know of our change: it goes.
# Where a row's entry goes, a tombstone stays for a while, so that a late STORE_NEW_MANY finds the
# place taken.
PUBLISH_MANY = """
local time = redis.call('TIME')
local changed = string.format('%010d%06d', time[1], time[2])
math.randomseed(tonumber(time[2]))
local entries = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS - 1 do
  local entry = entries[i]
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
local watermark = redis.call('GET', KEYS[#KEYS])
if watermark then
  if tonumber(watermark) < tonumber(ARGV[4]) then
    watermark = ARGV[4]
  end
  redis.call('SET', KEYS[#KEYS], watermark, 'PX', ARGV[3])
end
"""

# A writer stores new rows, whose database keys nobody else knew, where nobody was faster to change
# them.
# The first key is the write's witness, set with its fences: while it is there Redis has lost
# nothing since, and only little time has passed.
# ARGV: token; the lowest time to live of a value and how much may be added to it; 1 where the write
# stores no more rows, so that its witness goes; then a value for each row, '' where it is not to be
# stored.
# A value that is there already is a later writer's, or is of a row that had this database key until
# somebody emptied the table. It goes: a miss is right in both cases.
STORE_NEW_MANY = """
local entries = redis.call('MGET', unpack(KEYS))
local is_witnessed = entries[1] == ARGV[1]
math.randomseed(tonumber(redis.call('TIME')[2]))
for i = 2, #KEYS do
  local entry, value = entries[i], ARGV[i + 3]
  if entry and string.sub(entry, 1, 1) ~= '\\255' then
    redis.call('DEL', KEYS[i])
  elseif not entry and is_witnessed and value ~= '' then
    redis.call('SET', KEYS[i], value, 'PX', ARGV[2] + math.random(0, ARGV[3]))
  end
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[1])
end
"""

# A container leaves a hint: the last generation that it knows, for containers that cannot ask the
# database. One that is late does not bring back an earlier generation. Whatever else stands there
# goes.
# The key is the table's hint.
# ARGV: the generation's number; its server ('': do not use it); the hint's time to live.
LEAVE_HINT = """
local found = redis.pcall('GET', KEYS[1])
local number = type(found) == 'string' and tonumber(string.match(found, '^%d+')) or 0
if number <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
"""

ALL = (
    *(LEASE_MANY, FILL_MANY, SETTLE_MANY, FENCE_MANY, PUBLISH_MANY, STORE_NEW_MANY),
    LEAVE_HINT,
)
