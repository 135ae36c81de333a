#!/usr/bin/env python3
"""./tests/run [unit|integration|sdk|sdk-go|sprites [OPTION…]|fuzz|observe|browser|bench [PART…]|bars|scorecard|image|package|soak|chaos|mutants|full]

Plain: what every change must pass. `full`: what every release must pass; one
name: that part alone. All parts run even if one fails; the last lines say how
each went, and the exit status is 0 only if all were ok. A skipped test counts
as a failure, so does any report of a sanitizer, whoever started the program.
In the plain run up to three Python tests of a part may fail if each passes when
it is run again, alone; the last lines name them (docs/decisions/0016).
The parts of `bench` are those of tests/bench/run.py.

`bars` judges what the integration tests time by the bars themselves. The other runs, which may have a slow machine, give five times as much.

`sprites` states what the gateway relies on of the Sprites API, against the emulator; options (docs/SPRITES.md):
  --live            against SPRITEGATE_SPRITES_URL with SPRITEGATE_SPRITES_TOKEN, both from the environment
  --asleep SECONDS  leave a paused Sprite so long before it is woken (at most 3600)
  --burst           create until the service refuses, 10 Sprites at most (always against the emulator)

`soak --minutes MINUTES` is the mixed traffic alone, to two gateways on one pool while all that can fail does; with a table of what must never
be (docs/SOAK.md).

`chaos`, which is part of soak, kills gateways that share a pool: SG_CHAOS_ROUNDS says how often, SG_SEED in which course.

The Python tests find in SG_PRESET the build under test (build/$SG_PRESET/spritegate);
SG_JOBS is how many of their files run at once (4). SG_MODEL_STEPS is how many random steps the
scripts of Redis and their models are compared in (docs/POLICY.md, Measured).
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
REPORTS = BUILD / "sanitizer-reports"
PYTHON = os.environ.get("SG_PYTHON", sys.executable)
CORES = str(os.cpu_count() or 2)
SECOND_CHANCES = 3 if len(sys.argv) < 2 else 0  # tests of one part
UNSTEADY = []  # what passed only the second time


class Failed(Exception):
    """The part failed; the text says why when the output has not yet."""


def environment():
    """The caller's, without what would change what is tested."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith("SPRITEGATE_") and name not in ("SG_STATE", "SG_PRESET")
           and not (name.startswith("SG_") and name.endswith(("_PORT", "_ARGS")))}
    return {**env, "no_proxy": "127.0.0.1,localhost,::1", "NO_PROXY": "127.0.0.1,localhost,::1"}


def sanitizers(log_path=None):
    """Options of the sanitizers; tests/asan.supp, ubsan.supp, tsan.supp and lsan.supp hold what is not ours."""
    env = {}
    for tool, options in {"ASAN": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
                          "UBSAN": "print_stacktrace=1", "TSAN": "second_deadlock_stack=1", "LSAN": ""}.items():
        known = TOP / "tests" / f"{tool.lower()}.supp"
        env[f"{tool}_OPTIONS"] = ":".join(filter(None, [
            "halt_on_error=1", options, f"log_path='{log_path}'" if log_path else "",
            f"suppressions='{known}'" if known.exists() else "", os.environ.get(f"{tool}_OPTIONS", "")]))
    return env


ENV = {**environment(), **sanitizers(REPORTS / "report")}


def run(*command, seconds, env=None):
    """Run to the end or to the limit. Late programs are asked first, so that they stop what they started."""
    command = [str(word) for word in command]
    process = subprocess.Popen(command, cwd=TOP, env={**ENV, **(env or {})}, stdin=subprocess.DEVNULL, process_group=0)
    try:
        code = process.wait(timeout=seconds)
    except BaseException as reason:
        for number, patience in ((signal.SIGINT, 30), (signal.SIGKILL, 5)):
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                pass
        if isinstance(reason, subprocess.TimeoutExpired):
            raise Failed(f"{command[0]}: not done within {seconds} s") from None
        raise
    if code:
        raise Failed(f"{pathlib.Path(command[0]).name}: exit {code}")


def need(path):
    if not (TOP / path).exists():
        raise Failed(f"{path} is missing")


def build(preset):
    BUILD.mkdir(exist_ok=True)
    steps = "test -e build/$0/build.ninja || cmake --preset $0; cmake --build --preset $0"
    run("flock", "-w", "1800", f"build/.{preset}.lock", "sh", "-euc", steps, preset, seconds=2400)


# --- the parts ---------------------------------------------------------------

def unit(preset):
    build(preset)
    run("ctest", "--preset", preset, "--no-tests=error", "-j", CORES, seconds=1200)


def python_tests(preset, path, *options, parallel=True, seconds=2400, python=PYTHON, env=None):
    """Without a preset nothing is built."""
    need(path)
    if preset:
        build(preset)
        env = {"SG_PRESET": preset, **(env or {})}
    BUILD.mkdir(exist_ok=True)
    cache, report = BUILD / ".pytest", BUILD / f"pytest-{preset or 'unbuilt'}.xml"
    failed = cache / "v/cache/lastfailed"
    failed.unlink(missing_ok=True)

    def tests(*words):
        report.unlink(missing_ok=True)
        run(python, "-m", "pytest", "-q", "-rfEsx", "--rootdir", TOP, "-o", f"cache_dir={cache}", "--junitxml", report, *words, seconds=seconds, env=env)
        skipped = [case.get("classname") + "." + case.get("name")
                   for case in xml.etree.ElementTree.parse(report).iter("testcase") if case.find("skipped") is not None]
        if skipped:
            raise Failed("skipped: " + ", ".join(skipped))

    try:
        tests(*(("-n", os.environ.get("SG_JOBS", "4"), "--dist", "loadfile") if parallel else ()), *options, path)
    except Failed:
        again = list(json.loads(failed.read_text())) if failed.exists() else []
        if not 1 <= len(again) <= SECOND_CHANCES:
            raise
        tests(*again)
        UNSTEADY.extend(again)


def fuzz(seconds):
    build("fuzz")
    targets = sorted(path for path in (BUILD / "fuzz").rglob("*_fuzz") if path.is_file() and os.access(path, os.X_OK))
    if not targets:
        raise Failed("no fuzz target was built")
    with concurrent.futures.ThreadPoolExecutor(int(CORES)) as pool:
        bad = [name for name in pool.map(lambda target: fuzz_one(target, seconds), targets) if name]
    if bad:
        raise Failed(", ".join(bad))
    print(f"{len(targets)} fuzz targets passed, {seconds} s each")


def fuzz_one(target, seconds):
    """Seeds are only read; what is found goes to build/fuzz. Returns the name if it failed."""
    name = target.name.removesuffix("_fuzz")
    seeds, found = TOP / "tests/fuzz/corpus" / name, BUILD / "fuzz/corpus" / name
    if not seeds.is_dir():
        print(f"{name}: no seeds in {seeds.relative_to(TOP)}", flush=True)
        return name
    found.mkdir(parents=True, exist_ok=True)
    log = BUILD / "fuzz" / f"{name}.log"
    with open(log, "wb") as output:
        try:
            code = subprocess.run(
                [target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                 f"-artifact_prefix={BUILD}/fuzz/found-{name}-", found, seeds], cwd=TOP, env={**ENV, **sanitizers()},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=seconds * 3 + 120, check=False).returncode
        except subprocess.TimeoutExpired:
            code = "timeout"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if code:
        print(f"{name}: FAILED ({code}), {log}", *lines[-40:], sep="\n", flush=True)
        return name
    runs = next((line.split()[1] for line in lines if line.startswith("stat::number_of_executed_units")), "?")
    print(f"{name}: ok, {runs} runs", flush=True)
    return None


def script(path, seconds, preset=None, arguments=()):
    need(path)
    if preset:
        build(preset)
    run(PYTHON, path, *arguments, seconds=seconds)


def integration(preset, seconds=2400):
    """All at once, in the order of fixtures.py, but for the tests whose subject is time: they have the machine to themselves."""
    failed = None
    for options, parallel in ((("-m", "not alone"), True), (("-m", "alone"), False)):
        try:
            python_tests(preset, "tests/integration", "--no-loadscope-reorder", *options, parallel=parallel, seconds=seconds)
        except Failed as failure:
            failed = failed or failure
    if failed:
        raise failed


def sdk(preset):
    """The official SDKs and their Datasette plugin against the emulator, MCP clients and our plugin against the gateway; with packages of their own."""
    made = subprocess.run([PYTHON, TOP / "tests/sdk/packages.py"], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, check=False)
    if made.returncode:
        raise Failed("packages could not be installed")
    python_tests(preset, "tests/sdk", seconds=1200, python=made.stdout.strip())


def sdk_go():
    """The official SDK for Go against the emulator, with a Go that is fetched when it is missing."""
    python_tests(None, "tests/sdk-go", parallel=False)


LIVE = ("SPRITEGATE_SPRITES_URL", "SPRITEGATE_SPRITES_TOKEN")


def sprites():
    """What we rely on of the Sprites API, and that the tests of it can fail. Nothing of the gateway is needed."""
    given = sprites_options()
    env = {"SG_SPRITES_ASLEEP": str(given.asleep)}
    if given.live:
        env |= {name: os.environ[name] for name in LIVE}
    if given.burst:
        env["SG_SPRITES_BURST"] = "1"
    python_tests(None, "tests/sprites/contract", "--tb=short", parallel=False, seconds=1800 + given.asleep, env=env)
    if not given.live:
        python_tests(None, "tests/sprites/test_contract_fails.py", "--tb=short", "-n", "3", "--dist", "load", parallel=False)


def sprites_options():
    parser = argparse.ArgumentParser(prog="tests/run sprites", allow_abbrev=False)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--asleep", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--burst", action="store_true")
    given = parser.parse_args(sys.argv[2:] if sys.argv[1:2] == ["sprites"] else [])
    if not 0 <= given.asleep <= 3600:
        parser.error("--asleep is from 0 to 3600")
    return given


def soak():
    """Everything that takes long, or the mixed traffic alone for so many minutes."""
    parser = argparse.ArgumentParser(prog="tests/run soak", allow_abbrev=False)
    parser.add_argument("--minutes", type=int, metavar="MINUTES")
    minutes = parser.parse_args(sys.argv[2:] if sys.argv[1:2] == ["soak"] else []).minutes
    if minutes is None:
        python_tests("release", "tests/soak", parallel=False, seconds=7200)
    else:
        python_tests("release", "tests/soak/test_soak.py", "-s", parallel=False, seconds=minutes * 120 + 1800,      # its own limit ends 600 s before
                     env={"SG_SOAK_SECONDS": str(minutes * 60)})


def announce_sprites():
    """What a live run will create, or why there is none. The token is never shown."""
    given = sprites_options()
    if not given.live:
        return
    url, token = (os.environ.get(name, "") for name in LIVE)
    place = urllib.parse.urlsplit(url)
    what = f"create at most {10 if given.burst else 3} Sprites named conformance-RANDOM-NUMBER at {place.hostname or '?'}, use them for " \
           f"{1 + given.asleep // 60} to {4 + given.asleep // 60} minutes, delete them and touch no other"
    if not url or not token:
        sys.exit(f"sprites --live would {what}; it needs {' and '.join(LIVE)} in the environment")
    if place.scheme != "https" and not (place.scheme == "http" and place.hostname in ("127.0.0.1", "::1", "localhost")):
        sys.exit(f"sprites --live would {what}; {LIVE[0]} must begin with https://")
    print(f"sprites --live will {what}", flush=True)


def formatted():
    run("clang-format", "--dry-run", "-Werror", *sorted(path for folder in ("gateway", "policy", "tests")
                                                        for path in (TOP / folder).rglob("*.[ch]")), seconds=300)


FORMAT = ("format", formatted)
UNIT = ("unit", lambda: unit("release"))
EMULATOR = ("emulator", lambda: python_tests("release", "tests/emulator"))
SDK = ("sdk", lambda: sdk("release"))
SDK_GO = ("sdk-go", sdk_go)
SPRITES = ("sprites", sprites)
INTEGRATION = ("integration", lambda: integration("release"))
UNIT_ASAN = ("unit, asan+ubsan", lambda: unit("asan"))
SMOKE_ASAN = ("smoke, asan+ubsan", lambda: python_tests("asan", "tests/integration", "-m", "smoke"))
INTEGRATION_ASAN = ("integration, asan+ubsan", lambda: integration("asan", 4800))
UNIT_TSAN = ("unit, tsan", lambda: unit("tsan"))
INTEGRATION_TSAN = ("integration, tsan", lambda: integration("tsan", 7200))
FUZZ_BRIEF = ("fuzz, 5 s each", lambda: fuzz(5))
FUZZ = ("fuzz, 60 s each", lambda: fuzz(60))
BENCH = ("bench", lambda: script("tests/bench/run.py", 3600, "release", sys.argv[2:]))
POOL = ("pool in virtual time", lambda: script("tests/bench/run.py", 1200, "release", ["pool"]))
POLICY = ("policy, time and CPU", lambda: script("tests/bench/run.py", 1200, "release", ["admission", "failures"]))
BARS = ("bars", lambda: python_tests("release", "tests/integration", "-m", "bar", "-s", parallel=False, env={"SG_BARS": "1"}))
OBSERVE = ("observe", lambda: python_tests("release", "tests/observe", parallel=False))
BROWSER = ("browser", lambda: python_tests("release", "tests/browser", parallel=False))
IMAGE = ("image", lambda: script("tests/image.py", 1800))
PACKAGE = ("package", lambda: python_tests("release", "tests/package", parallel=False))
SCORECARD = ("scorecard", lambda: script("tests/scorecard/run.py", 2400, "release"))
CHAOS = ("chaos", lambda: python_tests("release", "tests/soak/test_chaos.py", "-s", parallel=False, seconds=7200))
SOAK = ("soak", soak)
MUTANTS_FIT = ("mutants fit the code", lambda: script("tests/mutants.py", 300, arguments=["--fit"]))
MUTANTS = ("mutants", lambda: script("tests/mutants.py", 7200))

PARTS = {
    "": [FORMAT, MUTANTS_FIT, UNIT, EMULATOR, SDK, SPRITES, INTEGRATION, UNIT_ASAN, SMOKE_ASAN, FUZZ_BRIEF],
    "unit": [UNIT], "integration": [EMULATOR, INTEGRATION], "sdk": [SDK], "sdk-go": [SDK_GO], "sprites": [SPRITES], "fuzz": [FUZZ],
    "observe": [OBSERVE], "browser": [BROWSER], "bench": [BENCH], "bars": [BARS], "scorecard": [SCORECARD], "image": [IMAGE], "package": [PACKAGE], "soak": [SOAK],
    "chaos": [CHAOS], "mutants": [MUTANTS],
    "full": [FORMAT, MUTANTS_FIT, UNIT, EMULATOR, SDK, SDK_GO, SPRITES, INTEGRATION, UNIT_ASAN, INTEGRATION_ASAN, UNIT_TSAN,
             INTEGRATION_TSAN, FUZZ, OBSERVE, BROWSER, BARS, POOL, POLICY, SCORECARD, SOAK, IMAGE, PACKAGE],
}


def run_part(function):
    """"ok" or why not."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    reason = "ok"
    try:
        function()
    except Failed as failure:
        reason = f"FAILED  {failure}"
    except (OSError, xml.etree.ElementTree.ParseError) as failure:
        reason = f"FAILED  {failure!r}"
    reports = sorted(REPORTS.iterdir())
    for report in reports:
        print(f"--- {report.name}", report.read_text(encoding="utf-8", errors="replace")[:20000], sep="\n", flush=True)
    if reports and reason == "ok":
        reason = f"FAILED  {len(reports)} sanitizer reports"
    return reason


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PARTS or (len(sys.argv) > 2 and name not in ("bench", "sprites", "soak")):
        sys.exit(__doc__)
    if name == "sprites":
        announce_sprites()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = []
    for title, function in PARTS[name]:
        print(f"\n=== {title}", flush=True)
        began = time.monotonic()
        result = run_part(function)
        results.append((title, result, time.monotonic() - began))
        if result != "ok":
            print(result, flush=True)
    print()
    for title, result, seconds in results:
        verdict, _, why = result.partition("  ")
        print(f"{title:24} {verdict:6} {seconds:6.0f} s  {why}".rstrip())
    for test in UNSTEADY:
        print(f"UNSTEADY: failed, then passed alone: {test}")
    return any(result != "ok" for _, result, _ in results)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
