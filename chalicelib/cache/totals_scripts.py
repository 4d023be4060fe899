"""What Redis runs by itself on totals: see `totals` for their form.

Every script may run twice. The Redis keys are of one table and, in a cluster, of one bucket. Times
to live are in milliseconds.
"""

# A request adds to the totals of rows, all or none.
# KEYS: the table's marks, a Hash with a field for each row whose totals may not be in the row yet;
# a key that tells a second copy of this call; then for each row its entry and its totals.
# ARGV: how long that key lives; how many counters the table has, and their names; the lowest and
# the highest value of each; then for each row its key, the line (the counters of the row, and what
# of the totals is in it; '': as the row's entry has it), and what is added to each counter.
# Replies 'done' and the new value of each counter, row after row; or 'lacking' where a row has no
# entry; or 'range', which row and counter, both from 0 on, and its value.
ADD = """
local count = tonumber(ARGV[2])
local width = count + 2

local function parsed(text)
  local epoch, times, rest = string.match(text or '', '^(%d+) (%d+)(.*)$')
  local sums = {}
  for name, sum in string.gmatch(rest or '', ' (%S+)=(%-?%d+)') do
    sums[name] = tonumber(sum)
  end
  return tonumber(epoch or 0), tonumber(times or 0), sums
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local is_copy = redis.call('GET', KEYS[2])
local replies, texts, fields = {'done'}, {}, {}
for i = 3, #KEYS, 2 do
  local row = (i - 3) / 2
  local at = 3 + 3 * count + row * width
  local line = ARGV[at + 1]
  if line == '' then
    local entry = redis.call('GET', KEYS[i])
    line = entry and string.sub(entry, 1, 1) ~= '\\255' and string.match(entry, '\\n([^\\n]*)\\n$')
    if not line then
      return {'lacking'}
    end
  end
  local values, applied = string.match(line, '^(.*)|(.*)$')
  local _, _, row_values = parsed('0 0' .. values)
  local applied_epoch, applied_times, done = parsed(applied)
  local epoch, times, sums = parsed(redis.call('GET', KEYS[i + 1]))
  if epoch == 0 or epoch < applied_epoch
      or (epoch == applied_epoch and times < applied_times) then
    epoch, times, sums = math.max(now, applied_epoch + 1), 0, {}
  end
  if epoch ~= applied_epoch then
    done = {}
  end
  local text = {}
  for n = 1, count do
    local name = ARGV[2 + n]
    local amount = is_copy and 0 or tonumber(ARGV[at + 1 + n])
    local value = (row_values[name] or 0) + (sums[name] or 0) - (done[name] or 0)
    local lowest, highest = tonumber(ARGV[1 + count + 2 * n]), tonumber(ARGV[2 + count + 2 * n])
    if amount ~= 0 and (value + amount < lowest or value + amount > highest) then
      return {'range', row, n - 1, string.format('%.0f', value)}
    end
    sums[name] = (sums[name] or 0) + amount
    replies[#replies + 1] = string.format('%.0f', value + amount)
  end
  for name, sum in pairs(sums) do
    text[#text + 1] = string.format(' %s=%.0f', name, sum)
  end
  texts[#texts + 1] = string.format('%.0f %.0f', epoch, times + 1) .. table.concat(text)
  fields[#fields + 1] = ARGV[at]
  fields[#fields + 1] = ''
end
if not is_copy then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[1])
  redis.call('HSET', KEYS[1], unpack(fields))
  for row, text in ipairs(texts) do
    redis.call('SET', KEYS[2 + 2 * row], text)
  end
end
return replies
"""

# A run has added totals to the rows.
# KEYS: the table's marks; then the totals of each row.
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
