-- Forget what an account (KEYS[1]) has spent; what its leases hold goes on to count. 0: it is none.
local account = KEYS[1]
if redis.call('EXISTS', account) == 0 then return 0 end
local used = {}
local stored = redis.call('HGETALL', account)
for i = 1, #stored, 2 do
  local kind, rest = string.sub(stored[i], 1, 1), string.sub(stored[i], 2)
  if kind == 's' then
    used[rest] = used[rest] or 0
  elseif kind == 'l' then
    local slot, n = string.match(stored[i + 1], '^(%d+) %d+ %d+ (%d+) ')
    used[slot] = (used[slot] or 0) + tonumber(n)
  end
end
for slot, n in pairs(used) do
  redis.call('HSET', account, 's' .. slot, string.format('%.0f', -n))
end
redis.call('HINCRBY', account, 'resets', 1)
redis.call('HDEL', account, 'alerted')
return 1
