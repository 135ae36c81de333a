#!/usr/bin/env python3
"""dashboards.py   writes traffic.json and commands.json beside itself; they are what Grafana imports.

A panel is (title, unit, description, {legend: query}); W in a query stands for the chosen job and instance, R for
the rate interval.
"""
import json
import pathlib

W = 'job=~"$job", instance=~"$instance"'
R = "$__rate_interval"


def rate(metric, by, more=""):
    return f"sum by ({by}) (rate(spritegate_{metric}{{{W}{more}}}[{R}]))"


def share(metric, part, more=""):
    """The part of a counter that has these labels, as a ratio of all of it."""
    return f"sum(rate(spritegate_{metric}{{{W}{more}, {part}}}[{R}])) / sum(rate(spritegate_{metric}{{{W}{more}}}[{R}]))"


def quantiles(metric, more=""):
    return {f"p{q}": f"histogram_quantile({q / 100}, sum by (le) (rate(spritegate_{metric}_bucket{{{W}{more}}}[{R}])))" for q in (50, 95, 99)}


def gauge(metric, by, how="sum"):
    return f"{how} by ({by}) ({metric}{{{W}}})"


PROXIED = ', route!~"exec|gateway"'
EXEC = ', route="exec"'

TRAFFIC = [
    ("Pages of Datasette: rate, errors, duration", [
        ("Requests", "reqps", "By kind of page.", {"{{route}}": rate("http_requests_total", "route", PROXIED)}),
        ("Failed requests", "percentunit", "Answered with 5xx; the objective is 0.1 %.", {"5xx": share("http_requests_total", 'code=~"5.."', PROXIED)}),
        ("Duration", "s", "From the request's head to the end of its answer.", quantiles("http_request_duration_seconds", PROXIED)),
    ]),
    ("Answers", [
        ("By status", "reqps", "All answers of the public port.", {"{{code}}": rate("http_requests_total", "code")}),
        ("Cut short", "reqps", "By who cut.", {"{{side}}": rate("http_aborts_total", "side")}),
        ("Refused by the guard", "reqps", "Requests that are not safe to pass on.", {"{{reason}}": rate("http_rejected_total", "reason")}),
    ]),
    ("Saturation", [
        ("Requests under way", "short", "Commands wait, so exec is higher than its rate suggests.", {"{{route}}": gauge("spritegate_http_requests_in_flight", "route")}),
        ("Connections", "short", "Of clients and to Datasette.", {"clients": gauge("spritegate_connections", "job"),
                                                                  "Datasette": gauge("spritegate_upstream_connections", "job")}),
        ("Body bytes", "Bps", "Received from clients and sent to them.", {"in": rate("http_request_size_bytes_sum", "job"),
                                                                        "out": rate("http_response_size_bytes_sum", "job")}),
    ]),
    ("Datasette", [
        ("Its answers", "reqps", "By class of status.", {"{{code_class}}": rate("upstream_requests_total", "code_class")}),
        ("Its failures", "reqps", "No proper answer, by kind.", {"{{kind}}": rate("upstream_errors_total", "kind")}),
        ("Answers properly", "short", "1 when the last exchange with it worked.", {"{{instance}}": gauge("spritegate_upstream_healthy", "instance", "min")}),
        ("First byte", "s", "From the request's head to the answer's first byte, pages only; and the time to connect.",
         {**quantiles("http_response_first_byte_seconds", PROXIED), "connect p95": quantiles("upstream_connect_seconds")["p95"]}),
    ]),
    ("Cache", [
        ("Cache share", "percentunit", "Of the requests to Datasette, those answered by the cache; empty while CACHE_BYTES is 0.",
         {"answered": share("cache_requests_total", 'result=~"hit|collapsed|stale"')}),
        ("Cache results", "reqps", "By what the cache could do.", {"{{result}}": rate("cache_requests_total", "result")}),
        ("Cache memory", "bytes", "Of the answers in it.", {"{{instance}}": gauge("spritegate_cache_bytes", "instance")}),
    ]),
    ("Process", [
        ("CPU", "percentunit", "1 = one core.", {"{{instance}}": f"sum by (instance) (rate(process_cpu_seconds_total{{{W}}}[{R}]))"}),
        ("Resident memory", "bytes", "", {"{{instance}}": gauge("process_resident_memory_bytes", "instance")}),
        ("File descriptors", "percentunit", "Of the limit.",
         {"{{instance}}": f"max by (instance) (process_open_fds{{{W}}} / process_max_fds{{{W}}})"}),
    ]),
    ("Versions and records", [
        ("Running builds", "short", "Gateways by version and revision.", {"{{version}} {{revision}}": gauge("spritegate_build_info", "version, revision")}),
        ("Uptime", "s", "Since the process started.", {"{{instance}}": f"time() - max by (instance) (process_start_time_seconds{{{W}}})"}),
        ("Scraped", "short", "1 while Prometheus gets the metrics.", {"{{instance}}": gauge("up", "instance", "min")}),
        ("Settings read", "short", "0 when they were found faulty the last time.",
         {"{{instance}}": gauge("spritegate_config_last_reload_successful", "instance", "min")}),
        ("Access log lines lost", "cps", "Its reader is too slow.", {"{{instance}}": rate("access_log_dropped_total", "instance")}),
        ("Audit records lost", "cps", "By where they should have gone.", {"{{instance}} {{sink}}": rate("audit_dropped_total", "instance, sink")}),
        ("Spans of traces", "cps", "Those that the collector took, and that were dropped.", {"{{result}}": rate("trace_spans_total", "result")}),
    ]),
]

COMMANDS = [
    ("Commands: rate, errors, duration", [
        ("Ended", "reqps", "By outcome; unknown and not_started are failures.", {"{{outcome}}": rate("exec_total", "outcome")}),
        ("Failed requests", "percentunit", "Answered with 5xx; the objective is 0.1 %.", {"5xx": share("http_requests_total", 'code=~"5.."', EXEC)}),
        ("Run time", "s", "Of the command alone.", quantiles("exec_seconds")),
    ]),
    ("Decisions", [
        ("Decisions", "reqps", "Stacked: allowed, denied, failed.", {"{{outcome}}": rate("exec_decisions_total", "outcome")}),
        ("Top reasons to deny", "reqps", "The five most frequent.", {"{{reason}}": f"topk(5, {rate('exec_decisions_total', 'reason', ', outcome=' + chr(34) + 'deny' + chr(34))})"}),
        ("Decisions that failed", "reqps", "By reason; none of these commands ran.",
         {"{{reason}}": rate("exec_decisions_total", "reason", ', outcome="error"')}),
        ("Wrong tokens", "reqps", "By reason.", {
            "{{reason}}": rate("auth_failures_total", "reason"), "refused without asking Redis": rate("auth_known_bad_total", "job"),
            "answered 429": rate("auth_throttled_total", "job")}),
    ]),
    ("Waiting for a Sprite", [
        ("Wait", "s", "From the decision to a Sprite; a hot one takes no time.",
         {**quantiles("exec_queue_seconds"), "cold p95": quantiles("pool_claim_seconds", ', tier="cold"')["p95"]}),
        ("Cold share", "percentunit", "Commands for which a Sprite had to be made first.", {"cold": share("pool_claims_total", 'tier="cold"')}),
        ("Waiting", "short", "Commands that wait, and the age of the oldest in seconds.",
         {"waiters": gauge("spritegate_pool_waiters", "job"), "oldest": gauge("spritegate_pool_wait_oldest_seconds", "job", "max")}),
    ]),
    ("The pool", [
        ("Sprites", "short", "By state; hot, leased and those between cost money.", {"{{state}}": gauge("spritegate_pool_members", "state")}),
        ("Hot Sprites and their target", "short", "", {"hot": f'sum(spritegate_pool_members{{{W}, state="hot"}})', "target": f'sum(spritegate_pool_target{{{W}, tier="hot"}})'}),
        ("Claims refused, Sprites lost", "cps", "Refusals by reason; idle Sprites whose connection broke.",
         {"{{reason}}": rate("pool_refusals_total", "reason"), "lost": rate("pool_lost_total", "job")}),
    ]),
    ("Making and removing Sprites", [
        ("Created", "cps", "By result.", {"{{result}}": rate("pool_creates_total", "result")}),
        ("Prepared", "cps", "By result; policy is a network that could not be closed.", {"{{result}}": rate("pool_prepares_total", "result")}),
        ("Time to create and to prepare", "s", "p95.", {"create": quantiles("pool_create_seconds")["p95"], "prepare": quantiles("pool_prepare_seconds")["p95"]}),
        ("Destroyed", "cps", "By result.", {"{{result}}": rate("pool_destroys_total", "result")}),
    ]),
    ("Paused Sprites and used ones", [
        ("Woken", "cps", "By result.", {"{{result}}": rate("pool_wakes_total", "result"), "begun beside a slow one": rate("pool_hedges_total", "job")}),
        ("Time to wake", "s", "And to verify.", quantiles("pool_wake_seconds")),
        ("Restored for the same token", "cps", "By result.", {"{{result}}": rate("pool_restores_total", "result")}),
    ]),
    ("Shared pool", [
        ("Gateways and Sprites", "short", "Of one pool, as each gateway was told last.",
         {"gateways": gauge("spritegate_pool_fleet_instances", "job", "max"), "Sprites": gauge("spritegate_pool_fleet_members", "job", "max")}),
        ("Last sign of life", "s", "Its age; above 10 s nothing is granted, above 15 s others take over.",
         {"{{instance}}": gauge("spritegate_pool_beat_age_seconds", "instance", "max")}),
        ("Taken by others", "cps", "And sessions that ended, by reason.",
         {"taken": rate("pool_revoked_total", "job"), "{{reason}}": rate("pool_sessions_lost_total", "reason")}),
    ]),
    ("Spend", [
        ("Sandbox time", "short", "Sprites that were running a command, and hot ones that waited for one, on average.",
         {"running": rate("exec_sandbox_seconds_total", "job"), "idle": rate("pool_idle_seconds_total", "job")}),
        ("Spend of a day", "currencyUSD", "At list price, if it goes on as it does.", {"dollars": "86400 * " + rate("pool_cost_dollars_total", "job")}),
        ("Refill stalled", "short", "1: Sprites are missing and none became ready.", {"{{instance}}": gauge("spritegate_pool_refill_stalled", "instance", "max")}),
    ]),
    ("Limits that are tried out, output", [
        ("In shadow", "reqps", "Requests that a limit in shadow would have refused.", {"{{policy}}": rate("exec_shadowed_total", "policy")}),
        ("Outputs checked", "cps", "Whether all that the command wrote has arrived, by result.", {"{{result}}": rate("exec_output_checks_total", "result")}),
        ("Output", "Bps", "Written by commands.", {"bytes": rate("exec_output_bytes_total", "job")}),
        ("Rows into Datasette", "cps", "Written by commands, and those of which Datasette did not say.", {"{{result}}": rate("exec_rows_total", "result")}),
        ("Commands that write rows", "cps", "By what became of all they printed.", {"{{result}}": rate("exec_row_writers_total", "result")}),
    ]),
    ("Leases", [
        ("Ended by the gateway", "cps", "Commands, by reason.", {"{{reason}}": rate("exec_killed_total", "reason")}),
        ("Held", "short", "Concurrency leases of running commands.", {"leases": gauge("spritegate_exec_leases", "job"), "commands": gauge("spritegate_exec_running", "job"),
                                                                            "not settled yet": gauge("spritegate_exec_settlements_pending", "job")}),
        ("Ended without being settled", "cps", "Each was charged its whole reservation.", {"reaped": rate("exec_leases_reaped_total", "job")}),
    ]),
    ("Redis", [
        ("Round trips", "s", "", quantiles("redis_command_seconds")),
        ("Not answered", "cps", "By kind.", {"{{kind}}": rate("redis_errors_total", "kind")}),
        ("Connection and breaker", "short", "up is 1 when connected; the breaker is 0 when closed.",
         {"up {{instance}}": gauge("spritegate_redis_up", "instance"), "breaker {{instance}}": gauge("spritegate_redis_breaker_state", "instance")}),
        ("Decided without Redis", "reqps", "With REDIS_DOWN=degrade, by result.", {"{{result}}": rate("exec_degraded_total", "result")}),
        ("Granted without Redis", "s", "Sandbox time that it does not know of yet; what a kill -9 would lose.",
         {"{{instance}}": gauge("spritegate_exec_degraded_unbooked_seconds", "instance")}),
    ]),
    ("Sprites API", [
        ("Calls", "reqps", "By call.", {"{{call}}": rate("sprites_calls_total", "call")}),
        ("Calls that failed", "reqps", "", {"{{call}} {{result}}": rate("sprites_calls_total", "call, result", ', result!="ok"')}),
        ("Duration", "s", "p95 by call.",
         {"{{call}}": f"histogram_quantile(0.95, sum by (call, le) (rate(spritegate_sprites_call_seconds_bucket{{{W}}}[{R}])))"}),
    ]),
]

# Of every alert: the panel (in each dashboard that has it) that shows what it is about, and what to do first.
ALERTS = {
    "Failed requests": {
        "SpritegateErrorBudgetFast": "Find the route and status that fail; 502 and 504 are Datasette, 503 of commands is Redis or the pool.",
        "SpritegateErrorBudgetSlow": "The same, in working hours."},
    "Answers properly": {
        "SpritegateUpstreamDown": "See that Datasette runs and listens at DATASETTE_URL; `spritegate doctor` asks it."},
    "Wait": {
        "SpritegateExecSlowStart": "See the cold share: raise POOL_HOT if bursts use the hot ones up, else look at how creations go."},
    "Waiting": {
        "SpritegateExecWaiting": "See the states of the Sprites: all leased is load (POOL_MAX), creating or preparing a slow provider."},
    "Ended": {
        "SpritegateExecUnknown": "One or two: nothing. Many: look at the failed calls of the Sprites API and its status page."},
    "Top reasons to deny": {
        "SpritegateMostlyDenied": "The access log has the token ids; `spritegate token show KID` tells limits and use."},
    "Decisions that failed": {
        "SpritegateDecisionFailed": "Reason other is a defect: keep the log of that time and report it."},
    "Wrong tokens": {
        "SpritegateAuthFailures": "The access log says from where; other-pepper means that SPRITEGATE_PEPPER is not the one of the tokens."},
    "Sprites": {
        "SpritegateSpritesLeft": "The log says why they cannot be destroyed; delete those named sg-INSTANCE-… with the provider's tool."},
    "Hot Sprites and their target": {
        "SpritegatePoolEmpty": "See whether creations or preparations fail, or POOL_MAX is reached."},
    "Created": {
        "SpritegateCreatesFail": "The log has the provider's words; unauthorized is the token, capacity the organisation's limit.",
        "SpritegateCreatesLimited": "Ask the provider for a higher limit, or lower the tokens' rates; more hot Sprites do not help."},
    "Prepared": {
        "SpritegateNetworkPolicyUnverified": "No such Sprite was handed out. If it goes on keep the log and report it."},
    "Taken by others": {
        "SpritegatePoolFenced": "Was Redis away, or did the process or its machine stand still? It has begun anew by itself.",
        "SpritegatePoolFlushed": "Find out who flushed Redis: tokens and budgets are in it too."},
    "Refill stalled": {
        "SpritegatePoolRefillStalled": "See which of creating, preparing and waking fails, and how; the log names each Sprite."},
    "Ended without being settled": {
        "SpritegateLeasesReaped": "Do gateways die, or lose Redis for long? Their callers lose what was reserved."},
    "Held": {
        "SpritegateSettlementsPending": "Is Redis up? The log says what it answers; do not kill the gateway meanwhile."},
    "Round trips": {
        "SpritegateRedisSlow": "Put gateway and Redis into one region; SLOWLOG and LATENCY of Redis tell who slows it down."},
    "Connection and breaker": {
        "SpritegateRedisDown": "Bring Redis back; the log says why connections fail. Datasette's pages are served meanwhile.",
        "SpritegateBreakerOpen": "Redis is there but slow or refuses: its memory, its rights, its load."},
    "Decided without Redis": {
        "SpritegateDegraded": "Bring Redis back; to stop a token now restart the gateways."},
    "Calls that failed": {
        "SpritegateSpritesUnauthorized": "Set a valid SPRITEGATE_SPRITES_TOKEN and restart."},
    "Scraped": {
        "SpritegateDown": "Does the process run? Its log says why not; exit status 2 is a setting that it refuses.",
        "SpritegateAbsent": "Prometheus has no target of that job: look at its configuration."},
    "File descriptors": {
        "SpritegateDescriptors": "See the connections of clients and to Datasette; else raise LimitNOFILE."},
    "Settings read": {
        "SpritegateReloadFailed": "The log names every fault, so does `spritegate check-config`; correct it and send SIGHUP again."},
    "Access log lines lost": {
        "SpritegateLogDropped": "Is the disk full, or whoever reads the log too slow?"},
    "Audit records lost": {
        "SpritegateAuditDropped": "log: the disk or its reader; table: Datasette refuses the rows, the log has its answer."},
    "Spans of traces": {
        "SpritegateSpansDropped": "The log says whether the collector refuses them or is away; commands are not affected."},
}

STACKED = {"Decisions", "Sprites", "Requests", "Ended", "By status"}
WIDTH, HEIGHT = 8, 8
ABREAST = 24 // WIDTH


def described(title, description):
    """With what to do when an alert on it fires; Grafana shows it as Markdown."""
    advice = [f"**{alert}**: {what} (docs/RUNBOOK.md#{alert.lower()})" for alert, what in ALERTS.get(title, {}).items()]
    return "\n\n".join([description, *advice] if description else advice)


def panel(number, title, unit, description, queries, x, y):
    custom = {"fillOpacity": 10, "showPoints": "never"}
    if title in STACKED:
        custom = {**custom, "fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number, "type": "timeseries", "title": title, "description": described(title, description), "datasource": source,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [{"refId": chr(ord("A") + i), "datasource": source, "expr": query, "legendFormat": legend}
                    for i, (legend, query) in enumerate(queries.items())],
    }


def choice(name, query):
    # On Fly there is no job label: All must match its absence too.
    return {"name": name, "label": name, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query,
            "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(uid, title, rows):
    panels, number, y = [], 1, 0
    for row, content in rows:
        panels.append({"id": number, "type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        number, y = number + 1, y + 1
        for i, one in enumerate(content):
            panels.append(panel(number, *one, x=i % ABREAST * WIDTH, y=y + i // ABREAST * HEIGHT))
            number += 1
        y += -(-len(content) // ABREAST) * HEIGHT
    return {
        "uid": uid, "title": title, "tags": ["spritegate"], "schemaVersion": 39, "version": 1, "editable": True, "timezone": "browser",
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "panels": panels,
        "links": [{"type": "dashboards", "title": "Spritegate", "tags": ["spritegate"], "asDropdown": False}],
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            choice("job", "label_values(spritegate_build_info, job)"),
            choice("instance", 'label_values(spritegate_build_info{job=~"$job"}, instance)'),
        ]},
    }


DASHBOARDS = {"traffic.json": dashboard("spritegate-traffic", "Spritegate: traffic", TRAFFIC),
              "commands.json": dashboard("spritegate-commands", "Spritegate: commands", COMMANDS)}


def text(name):
    return json.dumps(DASHBOARDS[name], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file in DASHBOARDS:
        pathlib.Path(__file__).with_name(file).write_text(text(file), encoding="utf-8")
