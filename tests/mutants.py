#!/usr/bin/env python3
"""./tests/run mutants: breaks a copy of the code on purpose, one place at a time, and shows that the tests notice.

A mutant is caught when the tests named for it fail. It is an error when the text to replace is not there exactly
once, when a mutant does not build, and when those tests fail without any mutant. With --fit only the first is
looked at, and whether those tests exist.
"""
import argparse
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
COPY = TOP / "build" / "mutants"
PRESET = "dev"
PYTHON = os.environ.get("SG_PYTHON", sys.executable)


@dataclasses.dataclass
class Mutant:
    name: str
    path: str
    old: str
    new: str
    tests: tuple


def integration(*names):
    return tuple(f"tests/integration/test_{name}.py" for name in names)


MUTANTS = [
    Mutant("the request guard lets everything through", "gateway/http/intake.c",
           "if (verdict.reason != HTTP_GUARD_OK)", "if (0)", integration("strict_requests")),
    Mutant("a chunk extension may hold a line end", "gateway/http/chunk_line.c",
           " || is_control(line[at])", "", ("unit:http_chunk_line_test",)),
    Mutant("answers to cookies are kept for all", "gateway/cache/rules.c",
           "return CACHE_BYPASS_COOKIE;", "continue;", integration("cache")),
    Mutant("fields of any name are taken to say nothing of who asks", "gateway/cache/rules.c",
           "unknown = true;", "unknown = false;", integration("cache")),
    Mutant("a stale answer is renewed by whoever sees it", "gateway/cache/cache.c",
           "return now_us >= answer->fresh_us && now_us >= from &&", "return now_us >= answer->fresh_us ||", integration("cache")),
    Mutant("what has become private is still given", "gateway/proxy/renewal.c",
           "\telse\n\t\tcache_drop(renewal->stale);", "", integration("cache")),
    Mutant("an answer from before a change is kept", "gateway/cache/cache.c",
           "fill->epoch == epoch_of(fill) &&", "", integration("cache")),
    Mutant("any 101 opens a tunnel", "gateway/proxy/upgrade.c",
           " &&\n\t       slice_equal(only(answer, SLICE(\"sec-websocket-accept\")), buf_peek(&accept));", ";", integration("websocket")),
    Mutant("what one side of a tunnel does not take at once is lost", "gateway/proxy/tunnel.c",
           "if (moved == BLOCKED && buf_append(&way->waiting, bytes) < 0)", "if (0)", integration("websocket")),
    Mutant("the rate limit is off", "policy/scripts/admit.lua",
           "if rate.wait > 0 then violate('rate', rate.wait) end", "", integration("policy_limits")),
    Mutant("pages of other origins run commands", "gateway/endpoint/call_identity.c",
           "if (origin_is_own(", "if (true || origin_is_own(", integration("identity")),
    Mutant("a restricted API token may do everything", "gateway/endpoint/identity.c",
           "return restrictions != NULL;", "return false;", ("unit:endpoint_identity_test",)),
    Mutant("who could not be identified is remembered", "gateway/endpoint/call_identity.c",
           "if (identity->result != IDENTITY_FAILED)", "if (true)", integration("identity")),
    Mutant("a wrong token and a cookie let in", "gateway/endpoint/call_identity.c",
           "&& credentials && !has_own_token(head->fields);", "&& credentials;", integration("identity")),
    Mutant("one caller is taken for another", "gateway/endpoint/identity_cache.c",
           "memcmp(set[i].key, key, IDENTITY_CACHE_KEY) == 0)\n\t\t\treturn", "set[i].key[0])\n\t\t\treturn", ("unit:endpoint_identity_cache_test",)),
    Mutant("a network that could not be opened as asked is used", "gateway/exec/run_claim.c",
           "if (result->code == PROVIDER_OK) {\n\t\trun_launch(run);", "if (result->code != PROVIDER_GONE) {\n\t\trun_launch(run);",
           integration("exec_egress")),
    Mutant("a Sprite that was open is restored", "gateway/pool/machine_ready.c",
           "if (use != MACHINE_OPENED && may_recycle(", "if (use != MACHINE_UNUSED && may_recycle(", integration("exec_egress")),
    Mutant("what Redis did not acknowledge is forgotten at the end", "policy/settlements.c",
           "unsettled_keep(list->unsettled, &s->entry);", "continue;", integration("settlements_file")),
    Mutant("the settlements of the last run are not read", "gateway/exec/agent.c",
           "admission_restore(agent->settlement) == 0 ?", "true ?", integration("settlements_file")),
    Mutant("marks of operators are not looked at", "policy/holds.c",
           "if (event == LINK_REPLY && !holds->stopped && reply->type == REDIS_REPLY_ARRAY)", "if (0)", integration("policy_kill")),
    Mutant("what is killed while it waits for its input runs", "gateway/exec/agent.c",
           "if (kill.stopped || kill.killed)", "if (0)", integration("policy_kill")),
    Mutant("what the caller does not want recorded is", "gateway/telemetry/tracer.c",
           "if (!tracer || !trace->sampled || !trace->id[0])", "if (!tracer || !trace->id[0])", ("unit:telemetry_tracer_test",)),
    Mutant("strangers have spans", "gateway/endpoint/call_admit.c",
           "if (answer->code == ADMISSION_INVALID_TOKEN || answer", "if (answer", integration("tracing")),
    Mutant("what a collector cannot take now is dropped", "gateway/otlp.c",
           "return status == 429 ||", "return", integration("tracing")),
    Mutant("any system call may be made", "gateway/confine.c",
           "seccomp_init(SCMP_ACT_ERRNO(ENOSYS))", "seccomp_init(SCMP_ACT_ALLOW)", ("unit:worker_confine_test",)),
    Mutant("capabilities are kept", "gateway/confine.c",
           "syscall(SYS_capset, &own, none) < 0", "own.version == 0 || none[0].permitted", ("unit:worker_confine_test",)),
    Mutant("threads that ran before have all system calls", "gateway/confine.c",
           "SCMP_FLTATR_CTL_TSYNC, 1", "SCMP_FLTATR_CTL_TSYNC, 0", ("unit:worker_confine_test",)),
    Mutant("audit records that are lost are not told", "gateway/telemetry/audit.c",
           "audit->told = dropped;\n\tkeep(audit, buf_peek(&text));", "audit->told = dropped;", integration("audit")),
    Mutant("every exit code is 0", "gateway/exec/run.c",
           "run->result.exit_code = exit_code;", "run->result.exit_code = exit_code * 0;", integration("exec_answers")),
    Mutant("a missing exit frame is a success", "gateway/exec/run.c",
           'snprintf(run->result.detail, sizeof run->result.detail, "%s", reason);\n\t\trun_finish(run, EXEC_UNKNOWN);',
           "(void)reason;\n\t\trun_finish(run, EXEC_EXITED);", integration("exec_faults")),
    Mutant("op.complete without an exit frame is a success", "gateway/sprites/operation.c",
           "[OPERATION_COMPLETE] = DOUBT,\n\t\t\t\t[OPERATION_REFUSED] = DOUBT,",
           "[OPERATION_COMPLETE] = {IDLE, OPERATION_FINISH},\n\t\t\t\t[OPERATION_REFUSED] = DOUBT,",
           ("unit:sprites_truth_test",)),
    Mutant("what arrived is not compared with the record", "gateway/exec/check.c",
           "*same = strcmp(arrived, record->arrived) == 0;", "*same = true;", ("unit:exec_check_test",)),
    Mutant("a report that is missing is not missed", "gateway/exec/check.c",
           "differs = !sizes;", "differs = false;", ("unit:exec_check_test",)),
    Mutant("the sizes that are reported are not compared", "gateway/exec/check.c",
           "differs |= total != check->sizes[i];", "", ("unit:exec_check_test",)),
    Mutant("a record that the disk had no place for is finished", "gateway/shim/shim.c",
           "streams[0].record < 0 || streams[1].record < 0", "streams[0].record < 0 && streams[1].record < 0",
           ("unit:exec_launch_test",)),
    Mutant("a record that nobody finished is believed", "gateway/exec/check.c",
           '" && read -r end <" RECORD_END " && [ \\"$end\\" = $3 ] || exit', '" || exit', integration("exec_record")),
    Mutant("what is missing is not counted when the record does not help", "gateway/exec/check.c",
           "output->lost = output->total < check->sizes[i] ? check->sizes[i] - output->total : 0;", "",
           ("unit:exec_check_test",)),
    Mutant("the shim reports what it did not pass on", "gateway/shim/shim.c",
           "stream->size += (uint64_t)n;", "stream->size += (uint64_t)n + 1;", ("unit:exec_launch_test",)),
    Mutant("a TERM that came before a command's end is not told", "gateway/shim/shim.c",
           "if (sigpending(&came) == 0 && !sigismember(&came, SIGTERM))", "sigpending(&came);", ("unit:exec_launch_test",)),
    Mutant("a command that ended in time is told timed out", "gateway/exec/run.c",
           "bool in_time = run->state == RUNNING || ", "bool in_time = run->state == RUNNING && ", integration("exec_stdout_to")),
    Mutant("a command has the limits of whoever records it", "gateway/shim/shim.c",
           "\t\tlimit(start->limits);\n", "", ("unit:exec_launch_test",)),
    Mutant("a command is killed before it was told to end", "gateway/exec/run.c",
           "if (run->state != RUNNING) {\n\t\trun_cancel(run);", "if (run->state) {\n\t\trun_cancel(run);", integration("exec_lifecycle")),
    Mutant("a client that leaves does not stop its command", "gateway/endpoint/call.c",
           "if (call->with_agent)\n\t\tcall_cancel(call, call->exec_id);", "if (0)\n\t\tcall_cancel(call, call->exec_id);", integration("exec_abort")),
    Mutant("a source that breaks ends the input in order", "gateway/endpoint/call_fetch.c",
           "pass_on(call, 0, EXEC_INPUT_BROKEN, failure);", "pass_on(call, 0, EXEC_INPUT_END, failure);", integration("exec_source")),
    Mutant("a command runs though its files are cut", "gateway/shim/shim_parts.c",
           "if (n <= 0)\n\t\t\t_exit(EXIT_NO_INPUT);", "if (n <= 0)\n\t\t\treturn;", ("unit:exec_launch_test",)),
    Mutant("a slow reader is not waited for", "gateway/exec/run_answer.c",
           "if (run->sandbox && delivery_is_full(&run->delivery))", "if (0)", integration("exec_stream")),
    Mutant("more of a stream is held than may be stored", "gateway/exec/copy.c",
           "bytes.len > copy->max - held(copy) || ", "", ("unit:exec_copy_test",)),
    Mutant("anybody is told what a command ended with", "policy/scripts/shared/caller.lua",
           "if result and string.sub(result, 1, #kid + 1) == kid .. ' ' then", "if result then", integration("policy_scripts")),
    Mutant("leases are not given back", "gateway/exec/run_answer.c",
           "\tsettle(run, r < 0);\n", "\tif (0)\n\t\tsettle(run, r < 0);\n", integration("exec_abort")),
    Mutant("any secret will do", "policy/scripts/shared/caller.lua",
           "if present ~= mac and not", "if false and not", integration("policy_scripts")),
    Mutant("a restored Sprite serves anybody", "gateway/pool/machine_claims.c",
           "if (!member->owned && !fresh)", "if (!fresh)", ("unit:pool_machine_model_test",)),
    Mutant("what another gateway took is used", "gateway/pool/machine_leases.c",
           "if (event->answer != LEASE_OK || member->foreign || set_back) {", "if (false) {", ("unit:pool_machine_fleet_test",)),
    Mutant("what another gateway woke before is used", "gateway/sprites/sprites_prepare.c",
           "if (work->fence.parking && exit_code == FENCE_EXIT) {", "exit_code = 0;\n\tif (false) {", integration("sprites_client")),
    Mutant("a label of another gateway is not looked at", "gateway/sprites/sprites_prepare.c",
           "verdict->taken.parking >= fence->parking && !ours", "false && !ours", integration("sprites_client")),
    Mutant("a refused creation is made", "gateway/pool/machine_leases.c",
           "if (event->answer == LEASE_OK && !member->foreign && machine_may_begin", "if (machine_may_begin",
           ("unit:pool_machine_fleet_test",)),
    Mutant("what was parked is written again after a flush", "gateway/pool/machine_leases.c",
           "\tmachine->lease.joined = false;\n\tdisown_all(machine, now_us, POOL_WARM);", "\tmachine->lease.joined = false;",
           ("unit:pool_machine_fleet_test",)),
    Mutant("an older answer has a session's Sprite destroyed", "gateway/pool/machine_ready.c",
           "machine->lease.stale |= machine->lease.adopting;", "", ("unit:pool_machine_fleet_test",)),
    Mutant("more are paused than may be", "gateway/pool/machine_ready.c",
           " && !machine_warm_is_full(machine);", ";", ("unit:pool_machine_bounds_test",)),
    Mutant("an outdated Sprite is used", "gateway/sprites/sprites_prepare.c",
           "if (handshake_is_outdated(version))", "if (0)", ("unit:sprites_sprites_provider_test",)),
    Mutant("a beat counts from its answer", "gateway/pool/pool_leases.c",
           ".sent_us = question->asked_us", ".sent_us = pool_clock(pool)", ("unit:pool_pool_leases_test",)),
    Mutant("a greedy tenant takes all", "gateway/pool/fair.c",
           "return free > held ? (free - held + 1) / 2 : 0;", "return free;", ("unit:pool_machine_model_test",)),
    Mutant("what the other gateways of a pool lease is free", "gateway/pool/machine_claims.c",
           "max - (elsewhere < theirs ? elsewhere : theirs)", "max + 0 * (elsewhere < theirs)", ("unit:pool_machine_leases_test",)),
    Mutant("what is kept for sessions is free", "gateway/pool/machine_claims.c",
           "room > kept ? room - kept : 0;", "room + 0 * kept;", ("unit:pool_machine_limits_test",)),
    Mutant("one that was denied twice is not looked for again", "gateway/pool/machine_destroy.c",
           "if (event->code == PROVIDER_GONE && !machine->stopping && !machine->options.shared)",
           "if (event->code == PROVIDER_GONE && member->doubtful_us && !machine->stopping && !machine->options.shared)",
           ("unit:pool_machine_model_test",)),
    Mutant("what a token holds on other gateways is forgotten", "policy/scripts/pool.lua",
           "if state == 'leased' and owner ~= session then", "if state == 'hot' and owner ~= session then", integration("pool_scripts")),
    Mutant("what a restore left is not looked at", "gateway/sprites/sprites_prepare.c",
           'set -eC; : >', 'set -e; : >', integration("pool_recycle")),
    Mutant("processes that a restore left are not looked at", "gateway/sprites/sprites_prepare.c",
           "slice_equal(mark, slice_str(baseline->mark))", "false", integration("pool_recycle")),
    Mutant("anybody's request for a page wakes a Sprite", "gateway/exec/intent.c",
           "return http_fields_find(fields, SLICE(\"Cookie\")) ||", "return true ||", ("unit:exec_intent_test",)),
    Mutant("bursts are not planned for", "gateway/pool/sizing.c",
           "size_t stock = steady > burst ? steady : burst;", "size_t stock = steady + 0 * burst;", ("unit:pool_sizing_test",)),
    Mutant("a time that the provider said ends when a Sprite goes", "gateway/pool/gate.c",
           "gate->until_us[GATE_CAPACITY] = gate->told_us;", "gate->until_us[GATE_CAPACITY] = 0;", ("unit:pool_machine_model_test",)),
    Mutant("any 429 is the limit on creations", "gateway/sprites/answers.c",
           "return call == SPRITES_CREATE ? PROVIDER_RATE_LIMIT : PROVIDER_THROTTLED;", "return PROVIDER_RATE_LIMIT;",
           ("unit:sprites_answers_test",)),
    Mutant("a rule that is not known is passed over", "policy/scripts/shared/caller.lua",
           "if not form or (form", "if (form", integration("policy_scripts")),
    Mutant("any address is in every network", "policy/scripts/shared/caller.lua",
           "bits % 4 == 0 or", "true or", integration("policy_scripts")),
    Mutant("output that was cut is charged", "policy/scripts/settle.lua",
           "math.min(out, out_held or out)", "out", integration("policy_scripts")),
    Mutant("a lease that cannot be charged is forgotten", "policy/scripts/admit.lua",
           "if unusable then return unusable end", "", integration("policy_scripts")),
    Mutant("the broken keys of one token are an outage for all", "policy/link.c",
           "bool works = !broken || is_error(reply, \"WRONGTYPE\");", "bool works = !broken;", integration("policy_link")),
    Mutant("a late note of a shared pool counts", "policy/scripts/pool.lua",
           "elseif r and turn <= r.turn then", "elseif r and turn < 0 then", integration("pool_scripts")),
    Mutant("strangers do not count against a shared maximum", "policy/scripts/pool.lua",
           "redis.call('HLEN', MEMBERS) + redis.call('ZCARD', STRANGE)", "redis.call('HLEN', MEMBERS)",
           integration("pool_scripts")),
    Mutant("gateways of one pool have one more running than may", "policy/scripts/pool.lua",
           "running() + earlier() >= limit", "running() + earlier() > limit", integration("pool_scripts")),
    Mutant("who has a place takes it again before others", "policy/scripts/pool.lua",
           "if at < (since[session] or math.huge) then", "if false then", integration("pool_scripts")),
    Mutant("each gateway makes way for all who wait", "policy/scripts/pool.lua",
           "math.max(0, wanted - leaving - math.max(0, limit - running()))", "wanted", integration("pool_scripts")),
    Mutant("what was restored for somebody makes way for nobody", "gateway/pool/machine_retire.c",
           "*oldest = head ? head->prev : NULL;", "*oldest = NULL;\n\t(void)head;", ("unit:pool_machine_leases_test",)),
    Mutant("a session that is asleep is woken without a place", "policy/scripts/pool.lua",
           "if limit > 0 and redis.call('SISMEMBER', ASLEEP, sprite) == 1 then", "if false then", integration("pool_scripts")),
    Mutant("a session that was not counted keeps its place", "policy/scripts/pool.lua",
           "count = count + 1 else redis.call('SADD', ASLEEP, sprite) end", "count = count + 1 end", integration("pool_scripts")),
    Mutant("a session whose end nobody told runs on", "policy/scripts/pool.lua",
           "(lease ~= '' and is_held(kid, lease))", "lease ~= ''", integration("pool_scripts")),
    Mutant("what a dead gateway had in use is adopted as it was", "policy/scripts/pool.lua",
           "r.state == 'warm' and 'warm' or 'destroying')", "r.state)", integration("pool_scripts")),
    Mutant("a session that has ended goes on", "policy/scripts/pool.lua",
           "SESSION_MS) == 0 then return {'fenced'} end", "SESSION_MS) < 0 then return {'fenced'} end", integration("pool_scripts")),
    Mutant("of notes to Redis the first counts", "policy/pool_store.c",
           "\t\t\tmemcpy(item->entries[0], entry, ENTRY_MAX);", "\t\t\t(void)entry;", integration("pool_leases")),
    Mutant("the network policy is not compared", "gateway/sprites/answers.c",
           'if (!wanted || !json_equal(json_object_get(body, "rules"), json_object_get(wanted, "rules"))) {', "if (!wanted) {",
           ("unit:sprites_answers_test",)),
    Mutant("an answer that is cut looks whole", "gateway/proxy/relay.c",
           "if (carry->head_passed)\n\t\thttp_request_abort(carry->request);",
           "if (carry->head_passed)\n\t\thttp_request_end(carry->request);", integration("strict_answers")),
    Mutant("a cut of HTTP/1.0 looks like an end", "gateway/http/settle.c",
           "if (!request->committed || framed)", "if (true || framed)", integration("strict_answers")),
    Mutant("answers show what stands before Datasette", "gateway/http/status.c",
           'return *phrase ? phrase : " ";', 'return "";', integration("transparency")),
    Mutant("Datasette is told another Host", "gateway/proxy/forward.c",
           "struct slice host = head->host.len ? head->host : options->default_host;", "struct slice host = options->default_host;",
           integration("transparency")),
    Mutant("bodies that Datasette does not want are sent", "gateway/proxy/forward.c",
           "return head->expect_continue && has_body && forward_passes_body(head);", "return false && has_body;", integration("transparency")),
    Mutant("what a client left in the memory of its connection stays there", "gateway/http/connection_memory.c",
           "	clear(memory, len);\n", "", ("unit:http_connection_memory_test",)),
    Mutant("another process may share the address", "gateway/http/listener.c",
           "if (!first && share(s) < 0)", "if (share(s) < 0)", ("unit:http_listener_test",)),
    Mutant("gateway tokens reach Datasette", "gateway/proxy/forward.c",
           "if (known->id == HTTP_AUTHORIZATION && redact_has_token(field->value))", "if (0)", integration("proxy")),
    Mutant("a slow body is ended by the idle time", "gateway/http/sweep.c",
           "if (!request->slow_seconds++)", "if (request->slow_seconds++ > 1000000)", integration("slow_clients")),
    Mutant("half a head has the idle time on a connection that was used before", "gateway/http/sweep.c",
           "connection_expect_head(connection, now + patience_us);", ";", integration("slow_clients")),
]


def misfits():
    """What does not fit the code any more, in words."""
    for mutant in MUTANTS:
        count = (TOP / mutant.path).read_text().count(mutant.old)
        if count != 1:
            yield f"{mutant.name}: the text to replace is {count} times in {mutant.path}"
        for test in mutant.tests:
            if not has_test(test):
                yield f"{mutant.name}: there is no {test}"


def has_test(name):
    if not name.startswith("unit:"):
        return (TOP / name).is_file()
    units = [*(TOP / "gateway").glob("*/*_test.c"), *(TOP / "policy").glob("*_test.c")]
    names = {f"{path.parent.name}_{path.stem}" for path in units} | {f"worker_{path.stem}" for path in (TOP / "gateway").glob("*_test.c")}
    return name.removeprefix("unit:") in names


def copy_sources():
    """What git knows and what is new, so that uncommitted work is judged too; the build folder of the copy is kept."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP, check=True,
                            capture_output=True).stdout
    wanted = {name.decode() for name in listed.split(b"\0") if name and (TOP / name.decode()).is_file()}
    for old in COPY.rglob("*"):
        name = str(old.relative_to(COPY))
        if old.is_file() and not name.startswith("build/") and name not in wanted:
            old.unlink()
    for name in wanted:
        target = COPY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != (TOP / name).read_bytes():
            shutil.copy(TOP / name, target)


def build():
    configured = (COPY / "build" / PRESET / "build.ninja").exists()
    for command in ([] if configured else [["cmake", "--preset", PRESET]]) + [["cmake", "--build", "--preset", PRESET]]:
        done = subprocess.run(command, cwd=COPY, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise SystemExit(f"the build failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def tests_pass(tests):
    """True, or the first line that says what failed. `unit:NAME` is a test program, the rest goes to pytest."""
    if tests[0].startswith("unit:"):
        program = COPY / "build" / PRESET / "bin" / tests[0].removeprefix("unit:")
        done = subprocess.run([program], cwd=COPY, timeout=120, capture_output=True, text=True)
        return done.returncode == 0 or next((line for line in done.stderr.splitlines() if "FAILED" in line), "a test failed")
    done = subprocess.run([PYTHON, "-m", "pytest", "-q", "-x", "-m", "not alone", *tests], cwd=COPY, timeout=600,
                          capture_output=True, text=True, env={**os.environ, "SG_PRESET": PRESET})
    if done.returncode == 0:
        return True
    if done.returncode != 1:
        raise SystemExit(f"pytest could not judge (exit {done.returncode}):\n{done.stdout[-3000:]}")
    return next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "a test failed")


def judge(mutant):
    path = COPY / mutant.path
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        build()
        return tests_pass(mutant.tests)
    finally:
        path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="only look whether each mutant still fits the code")
    options = parser.parse_args()
    if found := list(misfits()):
        raise SystemExit("\n".join(found))
    if options.fit:
        print(f"{len(MUTANTS)} mutants fit the code")
        return 0
    copy_sources()
    build()
    for tests in sorted({mutant.tests for mutant in MUTANTS}):
        verdict = tests_pass(tests)
        if verdict is not True:
            raise SystemExit(f"without any mutant: {verdict}")
    survivors = 0
    for mutant in MUTANTS:
        began = time.monotonic()
        verdict = judge(mutant)
        survivors += verdict is True
        print(f"{'NOT CAUGHT' if verdict is True else 'caught    '}  {mutant.name}  ({time.monotonic() - began:.0f} s)", flush=True)
        if verdict is not True:
            print(f"            {verdict[:150]}", flush=True)
    build()
    print(f"{len(MUTANTS) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
