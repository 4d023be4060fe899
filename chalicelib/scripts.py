"""What Redis runs by itself: the steps of the cache protocol that look before they write.

A cell is a value (JSON text), a lease (`\\xffL`, token) or a fence (`\\xffF`, ten digits of Unix
time, tokens). No JSON begins with the byte 0xFF. Every script may run twice: the second run finds
nothing of its own left and changes nothing that anyone may rely on.

Each takes the cells as KEYS (of one table and bucket where Redis is a cluster).
"""

MARK = b"\xff"
LEASE = MARK + b"L"
FENCE = MARK + b"F"
TOKEN_LENGTH = 16

GRANTED, WAIT, FENCED = 1, 2, 3
"""What `LEASE_MANY` says of a cell that has no value."""

# ARGV: token, milliseconds a lease lives, seconds after which a fence's writer counts as dead.
# A reply for each key: its value; its fence, if old; or one of the numbers above.
LEASE_MANY = """
local now = tonumber(redis.call('TIME')[1])
local replies = {}
for i, key in ipairs(KEYS) do
  local cell = redis.call('GET', key)
  if not cell then
    redis.call('SET', key, '\\255L' .. ARGV[1], 'PX', ARGV[2])
    replies[i] = 1
  elseif string.sub(cell, 1, 2) == '\\255L' then
    replies[i] = 2
  elseif string.sub(cell, 1, 2) == '\\255F'
      and now - tonumber(string.sub(cell, 3, 12)) < tonumber(ARGV[3]) then
    replies[i] = 3
  else
    replies[i] = cell
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
# '\xff' where the read could not wait so long: then the fence counts as new.
SETTLE_MANY = """
local time = redis.call('TIME')
math.randomseed(tonumber(time[2]))
for i, key in ipairs(KEYS) do
  local fence, value = ARGV[2 * i + 2], ARGV[2 * i + 3]
  if redis.call('GET', key) == fence then
    if value == '' then
      redis.call('DEL', key)
    elseif value == '\\255' then
      local renewed = '\\255F' .. string.format('%010d', time[1]) .. string.sub(fence, 13)
      redis.call('SET', key, renewed, 'PX', ARGV[3])
    else
      redis.call('SET', key, value, 'PX', ARGV[1] + math.random(0, ARGV[2]))
    end
  end
end
"""

# ARGV: token, milliseconds a fence lives, then 'row' or 'lookup' for each key. A row's fence
# takes the place of an older one, whose writer has released the row. Writers of different rows may
# fence one lookup cell together: it holds all their tokens, and the time of the first one: a dead
# writer's must grow old however many others come and go.
FENCE_MANY = """
local now = string.format('%010d', redis.call('TIME')[1])
for i, key in ipairs(KEYS) do
  local since, tokens = now, ARGV[1]
  if ARGV[i + 2] == 'lookup' then
    local cell = redis.call('GET', key)
    if cell and string.sub(cell, 1, 2) == '\\255F' then
      since, tokens = string.sub(cell, 3, 12), string.sub(cell, 13)
      if not string.find(tokens, ARGV[1], 1, true) then
        tokens = tokens .. ARGV[1]
      end
    end
  end
  redis.call('SET', key, '\\255F' .. since .. tokens, 'PX', ARGV[2])
end
"""

# ARGV: token, milliseconds a fence lives, lowest TTL and what may be added to it (ms), how long a
# grave lives (ms), then for each key 'row' or 'lookup' and a value. Own fence: becomes the value.
# Another's: stays, less our token. Anything else was put there by a reader that could not know
# better: goes. Where a row goes a grave stays for a while, a fence without tokens: so that a late
# STORE_NEW_MANY finds the place taken.
PUBLISH_MANY = """
local time = redis.call('TIME')
local now = string.format('%010d', time[1])
math.randomseed(tonumber(time[2]))
for i, key in ipairs(KEYS) do
  local cell = redis.call('GET', key)
  local kind, value = ARGV[2 * i + 4], ARGV[2 * i + 5]
  local goes = true
  if cell and string.sub(cell, 1, 2) == '\\255F' then
    local at = string.find(cell, ARGV[1], 13, true)
    local others = at and string.sub(cell, 1, at - 1) .. string.sub(cell, at + 16)
    if not at then
      goes = false
    elseif string.len(others) > 12 then
      redis.call('SET', key, others, 'PX', ARGV[2])
      goes = false
    elseif value ~= '' then
      redis.call('SET', key, value, 'PX', ARGV[3] + math.random(0, ARGV[4]))
      goes = false
    end
  end
  if goes and kind == 'row' then
    redis.call('SET', key, '\\255F' .. now, 'PX', ARGV[5])
  elseif goes then
    redis.call('DEL', key)
  end
end
"""

# The first key is a witness, set before the COMMIT: while it stands nothing was lost and little
# time has passed. ARGV: token, lowest TTL and what may be added to it (ms), a value for each row.
# Stores rows whose keys are new, where nobody was faster to change them.
STORE_NEW_MANY = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  math.randomseed(tonumber(redis.call('TIME')[2]))
  for i = 2, #KEYS do
    redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[2] + math.random(0, ARGV[3]), 'NX')
  end
  redis.call('DEL', KEYS[1])
end
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
