"""The Lua scripts for counter totals: see `counter_totals` for their form.

Every script may run twice. The Redis keys are of one table and, in a cluster, of one bucket. Times
to live are in milliseconds.
"""

# A request adds to the totals of rows, all or none.
# KEYS: a Hash with a field for each row whose totals may not be in the row yet;
# a key that tells a second copy of this call; then for each row its entry and its totals.
# ARGV: how long that key lives; how many counters the table has, and their names; the lowest and
# the highest value of each; then for each row its key, the line (the counters of the row, and what
# of the totals is in it; '': as the row's entry has it), and what is added to each counter.
# Replies 'done' and the new value of each counter, row after row; or 'lacking' where a row has no
# entry; or 'range', which row and counter, both from 0 on, and its value.
ADD = """
local count = tonumber(ARGV[2])
local width = count + 2
local find, match, sub, format = string.find, string.match, string.sub, string.format

-- Behind ' name=' in `text`; 0 where it is not there.
local function number(text, name)
  local _, at = find(text, ' ' .. name .. '=', 1, true)
  return at and tonumber(match(text, '^%-?%d+', at + 1)) or 0
end

local replies, texts, fields, is_copy = {'done'}, {}, {}, false
for i = 3, #KEYS, 2 do
  local row = (i - 3) / 2
  local at = 3 + 3 * count + row * width
  local line = ARGV[at + 1]
  if line == '' then
    local entry = redis.call('GET', KEYS[i])
    line = entry and sub(entry, 1, 1) ~= '\\255' and match(entry, '\\n([^\\n]*)\\n$')
    if not line then
      return {'lacking'}
    end
  end
  local bar = find(line, '|', 1, true)
  local applied = sub(line, bar + 1)
  local totals = redis.call('GET', KEYS[i + 1]) or ''
  local epoch, times = match(totals, '^(%d+) (%d+)')
  local applied_epoch, applied_times = match(applied, '^(%d+) (%d+)')
  epoch, times = tonumber(epoch or 0), tonumber(times or 0)
  applied_epoch, applied_times = tonumber(applied_epoch or 0), tonumber(applied_times or 0)
  if epoch == 0 or epoch < applied_epoch
      or (epoch == applied_epoch and times < applied_times) then
    local time = redis.call('TIME')
    epoch, times, totals = math.max(time[1] * 1000000 + time[2], applied_epoch + 1), 0, ''
  end
  if epoch ~= applied_epoch then
    applied = ''
  end
  local text = format('%.0f %.0f', epoch, times + 1)
  for n = 1, count do
    local name, amount = ARGV[2 + n], tonumber(ARGV[at + 1 + n])
    local total = number(totals, name)
    local value = number(line, name) + total - number(applied, name)
    if not is_copy
        and (amount < 0 and value + amount < tonumber(ARGV[1 + count + 2 * n])
          or amount > 0 and value + amount > tonumber(ARGV[2 + count + 2 * n])) then
      is_copy = redis.call('GET', KEYS[2])
      if not is_copy then
        return {'range', row, n - 1, format('%.0f', value)}
      end
    end
    text = text .. ' ' .. name .. format('=%.0f', total + amount)
    replies[#replies + 1] = value + amount
  end
  texts[#texts + 1] = text
  fields[#fields + 1] = ARGV[at]
  fields[#fields + 1] = ''
end
if redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[1]) then
  redis.call('HSET', KEYS[1], unpack(fields))
  for row, text in ipairs(texts) do
    redis.call('SET', KEYS[2 + 2 * row], text)
  end
else
  for i = 2, #replies do
    local row, n = math.floor((i - 2) / count), (i - 2) % count
    replies[i] = replies[i] - tonumber(ARGV[3 + 3 * count + row * width + 2 + n])
  end
end
return replies
"""

# A run has added totals to the rows.
# KEYS: the Hash of rows whose totals may not be in the row yet; then the totals of each row.
# ARGV: how long these live from now on; then for each row its key, and the totals that were added.
SETTLE = """
for i = 2, #KEYS do
  local key, text = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local found = redis.call('GET', KEYS[i])
  if not found or found == text then
    redis.call('HDEL', KEYS[1], key)
    if found then
      redis.call('SET', KEYS[i], text, 'PX', ARGV[1])
    end
  end
end
"""

ALL = (ADD, SETTLE)
