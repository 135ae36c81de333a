-- What wrk measured, as one line of JSON; times in microseconds.
local line = '\nJSON {"requests": %d, "wall_us": %d, "p50_us": %.0f, "p99_us": %.0f, "status_errors": %d, "socket_errors": %d}\n'

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(line:format(summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
