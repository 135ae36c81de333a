-- What wrk measured, as one line of JSON; times in microseconds, latencies as pairs of one and how many.
local line = '\nJSON {"requests": %d, "wall_us": %d, "status_errors": %d, "socket_errors": %d, "latencies": [%s]}\n'

done = function(summary, latency, requests)
  local e, pairs_of = summary.errors, {}
  for i = 1, #latency do
    pairs_of[i] = ('[%d,%d]'):format(latency(i))
  end
  io.write(line:format(summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout, table.concat(pairs_of, ',')))
end
