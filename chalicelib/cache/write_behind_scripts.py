"""The Lua scripts for counter totals: see `write_behind_totals` for their form.

Every script may run twice. The Redis keys are of one table and, in a cluster, of one bucket. Times
to live are in milliseconds.
"""

from functools import lru_cache

# A request adds to the totals of rows, all or none.
# KEYS: the Hash of pending counters, with a field for each row whose totals may not be in the row
# yet; a key by which a second copy of this call is known; then the totals of each row; then the
# entry of each row, where there are no records.
# ARGV: how long that second key lives; the number of the declaration, and the lowest and the
# highest value of each counter; a line feed and the names of the counters; where the row's key
# begins in the key of totals; what is added to each counter, row after row, or once where each row
# gets the same; the records of the rows, one behind the other, where no entry is to be asked.
# Replies the new value of each counter, row after row; or 'missing' where a row has no entry; or
# 'range', which row and counter, both from 0 on, and its value. A second copy adds nothing, and
# replies what the counters show then, or the refusal of the first one; or 'done' where a row has no
# entry by then.
# The first command is a write, so a replica never answers.
# Numbers are packed as doubles: to write and read decimals takes longer than all else.
# A table has few counters. `$...` stands for a list with an item for each of them.
_ADD = """
local is_copy = not redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[1])
local refusal = is_copy and redis.call('GET', KEYS[2]) or ''
if refusal ~= '' then
  return cmsgpack.unpack(refusal)
end
local pack, unpacked = struct.pack, struct.unpack
local names, amounts, records = ARGV[3], ARGV[5], ARGV[6]
local rows = (#KEYS - 2) / (records and 1 or 2)
local behind = 2 * $bytes + 24
local form, length = '<ddd$dc' .. #names, 24 + $bytes + #names
local declaration, $limits = unpacked('<d$d$d', ARGV[2])
local has_pending = redis.call('HLEN', KEYS[1]) > 0
local found = redis.call('MGET', unpack(KEYS, 3))

local function refused(...)
  if is_copy then  -- the first one was not refused
    return {'done'}
  end
  redis.call('SET', KEYS[2], cmsgpack.pack({...}), 'PX', ARGV[1])
  return {...}
end

-- Of totals that are settled, or have the counters of another declaration.
local function totals_of(text)
  local numbers, named = string.match(text, '^(.*)\\n(.*)$')
  local sums, place = {}, 25
  for name in string.gmatch(named, '[^ ]+') do
    sums[name] = unpacked('<d', numbers, place)
    place = place + 8
  end
  local _, epoch, times = unpacked('<ddd', numbers)
  return epoch, times, $sums_by_name
end

local is_alike = #amounts == $bytes
local $amounts = unpacked('<$d', amounts)
local texts, values, fields = {}, {}, {}
for i = 1, rows do
  local record, at = found[rows + i], 0
  if records then
    record, at = records, (i - 1) * behind + 1
  elseif record then
    at = #record - behind + 1
  end
  if not record or at < 1 then
    return refused('missing')
  end
  local declared, applied_epoch, applied_times, $shown = unpacked('<ddd$d$d', record, at)
  if declared ~= declaration then
    return refused('missing')
  end
  local epoch, times, $totals = 0, 0, $zeros
  local text = found[i]
  declared = 0
  if text and #text == length then
    declared, epoch, times, $totals = unpacked('<ddd$d', text)
  end
  if declared ~= declaration or not has_pending then
    fields[#fields + 1] = string.sub(KEYS[2 + i], ARGV[4])
    fields[#fields + 1] = ''
    if text and declared ~= declaration then
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
  if not is_alike then
    $amounts = unpacked('<$d', amounts, (i - 1) * $bytes + 1)
  end
  if is_copy then
    $amounts = $zeros
  end
$check
  texts[2 * i - 1] = KEYS[2 + i]
  texts[2 * i] = pack(form, declaration, epoch, times + 1, $totals, names)
end
if not is_copy then
  redis.call('MSET', unpack(texts))
  if #fields > 0 then
    redis.call('HSET', KEYS[1], unpack(fields))
  end
end
return values
"""
# For each counter.
_CHECK = """
  value# = value# + (total# - applied#)
  if amount# < 0 and (value# + amount# < lowest# or total# + amount# < -9007199254740991)
      or amount# > 0 and (value# + amount# > highest# or total# + amount# > 9007199254740991) then
    return refused('range', i - 1, # - 1, string.format('%.0f', value#))
  end
  value#, total# = value# + amount#, total# + amount#
  values[(i - 1) * $counters + #] = value#
"""


@lru_cache(maxsize=64)
def add(names: tuple[str, ...]) -> str:
    """The script for a table with these counters."""

    def each(item: str, between: str = ", ") -> str:
        numbers = range(1, len(names) + 1)
        return between.join([item.replace("#", str(n)) for n in numbers])

    parts = {
        "$bytes": str(8 * len(names)),
        "$counters": str(len(names)),
        "$d": "d" * len(names),
        "$limits": each("lowest#, highest#"),
        "$sums_by_name": ", ".join([f"sums['{name}'] or 0" for name in names]),
        "$shown": each("value#, applied#"),
        "$totals": each("total#"),
        "$zeros": each("0"),
        "$applied": each("applied#"),
        "$amounts": each("amount#"),
    }
    text = _ADD.replace("$check", each(_CHECK.rstrip("\n"), "\n"))
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
      text = struct.pack('<d', -math.abs(struct.unpack('<d', text))) .. string.sub(text, 9)
      redis.call('SET', KEYS[i], text, 'PX', ARGV[1])
    end
  end
end
"""
