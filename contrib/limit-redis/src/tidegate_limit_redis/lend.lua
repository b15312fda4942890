-- One worker's lease of one account: take down how it stands, lend what there is. Atomic.
--
-- KEYS[1] is the account, a hash of:
--   wall, now    Redis' clock when it was last asked, and the account's: it never goes back
--   born         when it was made; another one than a worker knows: Redis has lost data since
--   resets       how often a person has reset it, counted from 1
--   alerted      "slot percent" of the last alert
--   s<slot>      what closed leases have spent of that slot
--   l<lease>     "slot granted returned used seen" of an open lease
-- Numbers are whole and below 2^53, which a double holds exactly.

local account = KEYS[1]
local id, acknowledged = ARGV[1], ARGV[2] == '1'
local told_granted, told_returned, told_used = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local need, extra, closed = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local slot, stop, since = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local own_slot = tonumber(ARGV[12]) -- of the lease, where the worker knows it
local amount, grace, lifetime = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local alert_slot = tonumber(ARGV[16])
local patient, channel = ARGV[17] == '1', ARGV[18]
local known_born, known_resets = ARGV[19], tonumber(ARGV[20])
local marks = tonumber(ARGV[21])
-- ARGV[22 …]: the marks of alerts; then pairs of a slot and what it is known to have spent.

local function whole(n) return string.format('%.0f', n) end

local fields, spent, leases, open = {}, {}, {}, 0
local stored = redis.call('HGETALL', account)
for i = 1, #stored, 2 do
  local name, value = stored[i], stored[i + 1]
  local kind, rest = string.sub(name, 1, 1), string.sub(name, 2)
  if kind == 's' then
    spent[rest] = tonumber(value)
  elseif kind == 'l' then
    local a, b, c, d, e = string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%S+)$')
    leases[rest] = {slot = tonumber(a), granted = tonumber(b), returned = tonumber(c),
                    used = tonumber(d), seen = tonumber(e)}
    open = open + 1
  else
    fields[name] = value
  end
end

-- The clock runs with Redis' own; where that goes back, a tenth slower until both agree.
local time = redis.call('TIME')
local wall = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now = wall
if fields.now then
  local passed = math.max(0, wall - tonumber(fields.wall))
  now = tonumber(fields.now) + passed
  now = now - math.min(now - wall, passed / 10)
end
if now < slot or now >= stop then
  return {'when', string.format('%.6f', now)} -- the worker took it for another time
end

local function held(lease) return math.max(lease.granted - lease.returned, lease.used) end
local function spend(at, n)
  local name = whole(at)
  spent[name] = (spent[name] or 0) + n
  redis.call('HSET', account, 's' .. name, whole(spent[name]))
end
local function close(name, lease)
  leases[name], open = nil, open - 1
  redis.call('HDEL', account, 'l' .. name)
  if lease.slot > 0 then spend(lease.slot, held(lease)) end -- of what is in progress: it is over
end

redis.call('HSET', account, 'wall', string.format('%.6f', wall), 'now', string.format('%.6f', now))
redis.call('EXPIRE', account, lifetime)
for name, lease in pairs(leases) do
  if name ~= id and now - lease.seen > grace then close(name, lease) end
end
for name in pairs(spent) do
  if tonumber(name) < since then
    spent[name] = nil
    redis.call('HDEL', account, 's' .. name)
  end
end

-- Data that Redis has lost (a failover, an eviction): the workers say again what they know.
local born = fields.born or string.format('%.6f', now)
local lost = known_born ~= '' and known_born ~= born
local resets = tonumber(fields.resets or '1')
if not fields.born or known_resets > resets then
  resets = math.max(resets, known_resets)
  redis.call('HSET', account, 'born', born, 'resets', whole(resets))
end
local told_again = 0
for i = 22 + marks, #ARGV, 2 do
  local there, known = spent[ARGV[i]], tonumber(ARGV[i + 1])
  if known_resets == resets and known ~= 0 and known > (there or -math.huge) then
    spend(tonumber(ARGV[i]), known - (there or 0))
    told_again = 1
  end
end

local function answer(status, granted, short, left, back, percent, lease_slot, recalled)
  local known = {}
  for name, n in pairs(spent) do
    known[#known + 1] = name
    known[#known + 1] = whole(n)
  end
  return {status, string.format('%.6f', now), born, whole(resets), told_again, whole(granted), short,
          whole(left), whole(back), percent, whole(lease_slot), recalled, known}
end

local lease = leases[id]
if not lease then
  if acknowledged and not lost then
    return answer('gone', 0, 0, 0, slot, 0, slot, 0)
  end
  lease = {slot = acknowledged and own_slot or slot, granted = 0, returned = 0, used = 0}
  leases[id], open = lease, open + 1
  if acknowledged then told_again = 1 end
end
lease.granted = math.max(lease.granted, told_granted)
lease.returned = math.max(lease.returned, math.min(told_returned, lease.granted))
lease.used = math.max(lease.used, told_used)

local used, counted = 0, 0
for name, n in pairs(spent) do
  used, counted = used + n, counted + n
end
for _, other in pairs(leases) do
  if other.slot >= since then
    used, counted = used + other.used, counted + held(other)
  end
end

local function alert(percent)
  local passed = 0
  for i = 22, 21 + marks do
    if tonumber(ARGV[i]) <= percent then passed = math.max(passed, tonumber(ARGV[i])) end
  end
  local at, before = string.match(fields.alerted or '', '^(%d+) (%d+)$')
  if passed > (tonumber(at) == alert_slot and tonumber(before) or 0) then
    redis.call('HSET', account, 'alerted', whole(alert_slot) .. ' ' .. whole(passed))
    return passed
  end
  return 0
end

if closed then
  close(id, lease)
  return answer('gone', 0, 0, 0, slot, alert(math.floor(used * 100 / amount)), lease.slot, 0)
end

-- Lend what is needed; of what is beyond it, a part that shrinks as the limit comes near.
local function lend()
  need = need - (lease.granted - told_granted) -- granted before, in an answer that was lost
  extra = math.max(0, extra + math.min(0, need))
  local debt = held(lease) - math.max(0, lease.granted - lease.returned) -- counts already
  local left = amount - counted + debt
  local given = math.max(0, math.min(left, need))
  if left > given then
    given = given + math.min(extra, math.floor((left - given) / (2 * open)))
  end
  local before = held(lease)
  lease.granted = lease.granted + given
  counted = counted + held(lease) - before
end
local needed = need
if lease.slot >= since then lend() end
local short = lease.granted - told_granted < needed
redis.call('HSET', account, 'l' .. id, table.concat({whole(lease.slot), whole(lease.granted),
           whole(lease.returned), whole(lease.used), string.format('%.6f', now)}, ' '))

-- Others may hold what they don't use.
local recalled = 0
if short and patient and lease.slot >= since then
  for name, other in pairs(leases) do
    if name ~= id and other.slot >= since and held(other) > other.used then
      redis.call('PUBLISH', channel .. string.match(name, '^[^:]*'), name)
      recalled = recalled + 1
    end
  end
end

local oldest = slot
for name, n in pairs(spent) do
  if n > 0 then oldest = math.min(oldest, tonumber(name)) end
end
for _, other in pairs(leases) do
  if other.slot >= since and held(other) > 0 then oldest = math.min(oldest, other.slot) end
end
local percent = alert(short and recalled == 0 and 100 or math.floor(used * 100 / amount))
return answer('granted', lease.granted, short and 1 or 0, math.max(0, amount - counted), oldest,
              percent, lease.slot, recalled)
