"""The Lua scripts for public keys: the Redis keys of watched rows, which any client may use.

They are no entries of the cache protocol, and no promise of the cache depends on them. A public key
has a companion, its stamp, which a write leaves for some minutes: a time at which it had the row
locked, and one behind its COMMIT, in microseconds of the database's clock. The stamp keeps an
earlier row from replacing a later one. In a cluster both have the same slot.

Every script may run twice. It declares its Redis keys. On one server it takes those of many rows,
in a cluster those of one.
"""

# A run reads public keys that hold a string.
# ARGV: the most bytes that are read.
# Replies for each key: its string; nothing; or what is wrong: 'type' and the type, or 'long' and
# the number of bytes. None at all where many were asked for and nothing is there.
READ_STRINGS = """
local most = tonumber(ARGV[1])
local replies, short, places = {}, {}, {}
if #KEYS > 1 and redis.call('EXISTS', unpack(KEYS)) == 0 then
  return replies
end
for i, key in ipairs(KEYS) do
  local size = redis.pcall('STRLEN', key)
  if type(size) == 'table' and not string.find(size['err'], 'WRONGTYPE', 1, true) then
    return size
  elseif type(size) == 'table' then
    replies[i] = {'type', redis.call('TYPE', key)['ok']}
  elseif size > most then
    replies[i] = {'long', size}
  else
    short[#short + 1], places[#places + 1] = key, i
  end
end
-- All at once: a command takes much longer than what is done with its reply.
local values = #short > 0 and redis.call('MGET', unpack(short))
for n, i in ipairs(places) do
  replies[i] = values[n]
end
return replies
"""

# A run reads public keys that hold a Hash.
# ARGV: the most bytes of a field that are read; then the names of the fields.
# Replies for each key: 'hash', the number of its fields, and its value for each name; nothing; or
# what is wrong, as READ_STRINGS.
READ_HASHES = """
local replies = {}
for i, key in ipairs(KEYS) do
  local count = redis.pcall('HLEN', key)
  if type(count) == 'table' and not string.find(count['err'], 'WRONGTYPE', 1, true) then
    return count
  elseif type(count) == 'table' then
    replies[i] = {'type', redis.call('TYPE', key)['ok']}
  elseif count == 0 then
    replies[i] = false
  else
    replies[i] = {'hash', count}
    for at = 2, #ARGV do
      local size = redis.call('HSTRLEN', key, ARGV[at])
      if size > tonumber(ARGV[1]) then
        replies[i] = {'long', size}
        break
      end
      replies[i][at + 1] = redis.call('HGET', key, ARGV[at])
    end
  end
end
return replies
"""

# Somebody sets public keys, or deletes them.
# KEYS: for each row its public key and its stamp; the same key twice where it can have no stamp.
# ARGV: the two times of a stamp, and how long it lives; a run has only the time before its SELECT,
# and leaves no stamp (0 and 0). Until when this may be done, in microseconds of the server's own
# clock (0: whenever). The most bytes of a string or a field: what is longer is garbage. How many
# fields a Hash has (0: it is a string), and their names. For each row then: what must be there ('':
# whatever it is; 'none'; 'garbage'; or the SHA-1 of what READ_... replied); 'set' or 'del'; and its
# values.
# Replies for each row 1 where that was done, 0 where a later row or something else is there; 'late'
# where it came too late.
SET_PUBLIC = """
local time = redis.call('TIME')
if ARGV[4] ~= '0' and time[1] * 1000000 + time[2] > tonumber(ARGV[4]) then
  return 'late'
end
local most, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local fields = {unpack(ARGV, 7, 6 + count)}
local width = 2 + math.max(count, 1)
local read_at, by = tonumber(ARGV[1]), tonumber(ARGV[2])

local function is_behind(text)
  local other, other_by = string.match(text, '^(%d+) (%d+)$')
  if not other then
    return false
  elseif by == 0 then
    return tonumber(other_by) >= read_at
  end
  return tonumber(other) > read_at
end

local function found(key)
  if count == 0 then
    local value = redis.pcall('GET', key)
    if type(value) == 'table' or value and #value > most then
      return 'garbage'
    end
    return value and redis.sha1hex(value) or 'none'
  end
  local size = redis.pcall('HLEN', key)
  if type(size) == 'table' then
    return 'garbage'
  elseif size == 0 then
    return 'none'
  end
  local text = tostring(size)
  for _, field in ipairs(fields) do
    local value = redis.call('HGET', key, field)
    if value and #value > most then
      return 'garbage'
    end
    text = text .. (value and ' ' .. string.len(value) .. ':' .. value or ' -')
  end
  return redis.sha1hex(text)
end

local names = {}
for i = 2, #KEYS, 2 do
  names[i / 2] = KEYS[i]
end
local stamps = #KEYS > 0 and redis.call('MGET', unpack(names))
local replies = {}
for i = 1, #KEYS, 2 do
  local key, stamp = KEYS[i], KEYS[i + 1]
  local at = 7 + count + (i - 1) / 2 * width
  local must_be, action = ARGV[at], ARGV[at + 1]
  local text = stamp ~= key and stamps[(i + 1) / 2]
  local is_new = must_be == 'none' and action == 'set' and count == 0
  if text and is_behind(text) then
    replies[#replies + 1] = 0
  elseif is_new and not redis.call('SET', key, ARGV[at + 2], 'NX') then
    replies[#replies + 1] = 0
  elseif not is_new and must_be ~= '' and must_be ~= found(key) then
    replies[#replies + 1] = 0
  else
    if action == 'del' then
      redis.call('DEL', key)
    elseif count == 0 and not is_new then
      redis.call('SET', key, ARGV[at + 2])
    elseif count > 0 then
      local values = {}
      for n, field in ipairs(fields) do
        values[2 * n - 1], values[2 * n] = field, ARGV[at + 1 + n]
      end
      redis.call('DEL', key)
      redis.call('HSET', key, unpack(values))
    end
    if by > 0 and stamp ~= key then
      redis.call('SET', stamp, ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
    end
    replies[#replies + 1] = 1
  end
end
return replies
"""

# The same for strings where nothing is yet is a transaction: MSETNX sets all of them, or none. Its
# first key is a guard, which is there, unless this script takes it away: it is faster not to hand
# all these strings to a script.
# KEYS: the guard, then the stamps. ARGV: until when this may be done.
# Replies 1; 0 where there is a stamp; 'late' where it came too late.
ALLOW_NEW_PUBLIC = """
local time = redis.call('TIME')
if ARGV[1] ~= '0' and time[1] * 1000000 + time[2] > tonumber(ARGV[1]) then
  return 'late'
elseif redis.call('EXISTS', unpack(KEYS, 2)) > 0 then
  return 0
end
return redis.call('DEL', KEYS[1])
"""

# A run that has read rows until now sets no public key any more. A write still may.
# KEYS: the stamps. ARGV: the time of now; how long a stamp lives.
STAMP_PUBLIC = """
for _, stamp in ipairs(KEYS) do
  local text = redis.call('GET', stamp) or ''
  local read_at, by = string.match(text, '^(%d+) (%d+)$')
  if not by or tonumber(by) < tonumber(ARGV[1]) then
    redis.call('SET', stamp, (read_at or '0') .. ' ' .. ARGV[1], 'PX', ARGV[2])
  end
end
"""

# A run has brought a table in step, and nobody has changed it meanwhile.
# The key is the table's note. ARGV: what the run left in it; what to put in its place; for how
# long, in milliseconds.
FINISH_NOTE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
"""

ALL = (READ_STRINGS, READ_HASHES, SET_PUBLIC, STAMP_PUBLIC, ALLOW_NEW_PUBLIC, FINISH_NOTE)
