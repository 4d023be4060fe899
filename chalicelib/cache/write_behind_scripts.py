"""The Lua scripts for counter totals: see `write_behind_totals` for their form.

Every script may run twice. The Redis keys are of one table and, in a cluster, of one bucket. Times
to live are in milliseconds.
"""

from functools import lru_cache

# A request adds to the totals of rows, all or none.
# KEYS: a key that keeps the reply for a second copy of this call; the Hash of pending counters,
# with a field for each row whose totals may not be in the row yet; then the totals of each row;
# then the entry of each row, where there are no lines.
# ARGV: how long that reply lives; the first line of totals; the lowest and the highest value of
# each counter; what is added to each counter, row after row; where the row's key begins in the key
# of totals; the lines of the rows, one behind the other, where the entries are not to be asked.
# Replies the new value of each counter, row after row; or 'missing' where a row has no entry; or
# 'range', which row and counter, both from 0 on, and its value.
# Numbers are packed as doubles: to write and read decimals takes longer than all else.
# A table has few counters. `$...` stands for a list with an item for each of them.
_ADD = """
local done = redis.call('GET', KEYS[1])
if done then
  return done
end
local pack, unpacked, sub = struct.pack, struct.unpack, string.sub
local names, amounts, lines = ARGV[2], ARGV[4], ARGV[6]
local width, rows = #names, #amounts / $bytes
local behind = width + 2 * $bytes + 15
local form = 'c' .. width .. '<dd$d'
local $limits = unpacked('<$d$d', ARGV[3])
local has_pending = redis.call('HLEN', KEYS[2]) > 0
local found = redis.call('MGET', unpack(KEYS, 3))

-- Of totals that are settled, or have the counters of another declaration.
local function totals_of(text)
  local stop = string.find(text, '\\n', 1, true)
  local sums, place = {}, stop + 17
  for name in string.gmatch(sub(text, 1, stop - 1), '[^. ]+') do
    sums[name] = unpacked('<d', text, place)
    place = place + 8
  end
  local epoch, times = unpacked('<dd', text, stop + 1)
  return epoch, times, $sums_by_name
end

local texts, replies, fields = {}, {}, {}
for i = 1, rows do
  local line, at = found[rows + i], 0
  if lines then
    line, at = lines, (i - 1) * (behind + 1) + 1
  elseif line then
    at = #line - behind
  end
  if not line or sub(line, at, at + width - 1) ~= names then
    return {'missing'}
  end
  local applied_epoch, applied_times, $shown = unpacked('<dd$d$d', line, at + width)
  local epoch, times, $totals = 0, 0, $zeros
  local text = found[i]
  if text and has_pending and sub(text, 1, width) == names then
    epoch, times, $totals = unpacked('<dd$d', text, width + 1)
  else
    fields[#fields + 1] = sub(KEYS[2 + i], ARGV[5])
    fields[#fields + 1] = ''
    if text then
      epoch, times, $totals = totals_of(text)
    end
  end
  if epoch == 0 or epoch < applied_epoch or epoch == applied_epoch and times < applied_times then
    local time = redis.call('TIME')
    epoch, times, $totals = math.max(time[1] * 1000000 + time[2], applied_epoch + 1), 0, $zeros
  end
  if epoch ~= applied_epoch then
    $applied = $zeros
  end
  local $amounts = unpacked('<$d', amounts, (i - 1) * $bytes + 1)
$check
  texts[2 * i - 1] = KEYS[2 + i]
  texts[2 * i] = pack(form, names, epoch, times + 1, $totals)
  replies[i] = pack('<$d', $values)
end
redis.call('MSET', unpack(texts))
if #fields > 0 then
  redis.call('HSET', KEYS[2], unpack(fields))
end
local reply = table.concat(replies)
redis.call('SET', KEYS[1], reply, 'PX', ARGV[1])
return reply
"""
# For each counter.
_CHECK = """
  value# = value# + (total# - applied#)
  if amount# < 0 and (value# + amount# < lowest# or total# + amount# < -9007199254740991)
      or amount# > 0 and (value# + amount# > highest# or total# + amount# > 9007199254740991) then
    return {'range', i - 1, # - 1, string.format('%.0f', value#)}
  end
  value#, total# = value# + amount#, total# + amount#
"""


@lru_cache(maxsize=64)
def add(names: tuple[str, ...]) -> str:
    """The script for a table with these counters."""

    def each(item: str, between: str = ", ") -> str:
        numbers = range(1, len(names) + 1)
        return between.join([item.replace("#", str(n)) for n in numbers])

    parts = {
        "$bytes": str(8 * len(names)),
        "$d": "d" * len(names),
        "$limits": each("lowest#, highest#"),
        "$sums_by_name": ", ".join([f"sums['{name}'] or 0" for name in names]),
        "$shown": each("value#, applied#"),
        "$totals": each("total#"),
        "$zeros": each("0"),
        "$applied": each("applied#"),
        "$amounts": each("amount#"),
        "$values": each("value#"),
        "$check": each(_CHECK.rstrip("\n"), "\n"),
    }
    text = _ADD
    for name in sorted(parts, key=len, reverse=True):
        text = text.replace(name, parts[name])
    return text


# A run has added totals to the rows.
# KEYS: the Hash of pending counters; then the totals of each row.
# ARGV: how long these live from now on; then for each row its field in that Hash, and the totals
# that were added.
SETTLE = """
for i = 2, #KEYS do
  local field, text = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local found = redis.call('GET', KEYS[i])
  if not found or found == text then
    redis.call('HDEL', KEYS[1], field)
    if found then
      if string.sub(text, 1, 1) ~= '.' then
        text = '.' .. text
      end
      redis.call('SET', KEYS[i], text, 'PX', ARGV[1])
    end
  end
end
"""
