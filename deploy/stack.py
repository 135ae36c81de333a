#!/usr/bin/env python3
"""The local stack behind ./deploy/up, ./deploy/down and ./deploy/spritegate.

Four parts: redis, datasette, sprites (the emulator) and gateway. Everything
that is known about a stack is in its folder (build/, or SG_STATE):

  stack.json    what users and tests read while the stack runs
  stack.state   what the next `up` needs: ports, secrets, settings, pids; gone after `down`
  logs/         one log per part, and build.log
  redis/, datasette/   data; gone after `down`

A part is described by a spec (what it is started with). A part that runs with
the spec that would be used now is kept; otherwise it is replaced.
"""
import argparse
import contextlib
import copy
import fcntl
import http.client
import json
import os
import pathlib
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "fixtures"))
import sample  # noqa: E402

STATE = TOP / (os.environ.get("SG_STATE") or "build")
LOGS = STATE / "logs"
PREFIX = "SPRITEGATE_"

START_ORDER = ("redis", "datasette", "sprites", "gateway")
GRACE = {"gateway": 10, "sprites": 10, "datasette": 5, "redis": 10}   # seconds a part may take to stop
START_SECONDS = 30
READY_SECONDS = 15
DEMO = "echo Hello from $(uname -sr); python3 -c 'print(6 * 7)'"


class Failed(Exception):
    """Says which part failed; the text goes to the user as it is."""


def say(text=""):
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever read along has left (`| head`); the stack is wanted no less.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(path):
    """Is `path` the machine's own? The private root shares only these folders with it."""
    return not pathlib.Path("/opt/spritegate").is_dir() or any(
        path.resolve().is_relative_to(shared) for shared in (TOP, "/tmp", "/dev", "/proc"))


# --- the stack's folder ------------------------------------------------------

class Stack:
    """The stack's record, stack.state, and its public extract, stack.json."""

    def __init__(self):
        self.record = {
            "preset": "release", "instance": "dev-" + secrets.token_hex(3), "pepper": secrets.token_hex(32),
            "sprites_token": secrets.token_hex(16), "emulator_args": "", "token": None,
            "external": {}, "settings": {}, "ports": {}, "parts": {}}
        with contextlib.suppress(FileNotFoundError):
            self.record.update(json.loads((STATE / "stack.state").read_text()))
        self.begun = []   # parts that this process has started

    def __getitem__(self, key):
        return self.record[key]

    def __setitem__(self, key, value):
        self.record[key] = value

    def save(self):
        write_private("stack.state", self.record)

    def url(self, name):
        scheme = "redis" if name == "redis" else "http"
        return self["external"].get(name) or f"{scheme}://127.0.0.1:{self['ports'][name]}"

    def publish(self):
        parts = {name: self["parts"].get(name) for name in reversed(START_ORDER)}
        pids = {name: part["pid"] if alive(part) else None for name, part in parts.items()}
        write_private("stack.json", {
            "gateway": self.url("gateway"), "admin": self.url("admin"), "datasette": self.url("datasette"),
            "sprites": self.url("sprites"), "sprites_token": self["sprites_token"], "redis": self.url("redis"),
            "token": self["token"], "pids": pids, "logs": str(LOGS)})

    def gateway_settings(self):
        """The environment of the gateway: ours, then what the callers asked for."""
        return {
            "SPRITEGATE_LISTEN": f"127.0.0.1:{self['ports'].get('gateway')}",
            "SPRITEGATE_ADMIN_LISTEN": f"127.0.0.1:{self['ports'].get('admin')}",
            "SPRITEGATE_DATASETTE_URL": self.url("datasette"),
            "SPRITEGATE_REDIS_URL": self.url("redis"),
            "SPRITEGATE_SPRITES_URL": self.url("sprites"),
            "SPRITEGATE_PEPPER": self["pepper"],
            "SPRITEGATE_INSTANCE": self["instance"],
            **self["settings"],
            "SPRITEGATE_SPRITES_TOKEN": self["sprites_token"],
        }

    def binary(self):
        return TOP / "build" / self["preset"] / "spritegate"


def write_private(name, content):
    path = STATE / (name + ".new")
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    os.replace(path, STATE / name)


@contextlib.contextmanager
def only_one(path, seconds):
    """Hold the lock file `path`; give up after `seconds`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with open(path, "w", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failed(f"{path} is held by another run") from None
                time.sleep(0.1)
        yield


def callers_settings():
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


# --- processes ---------------------------------------------------------------

def started_at(pid):
    """Start time of a living process, which tells it from a later one with the same pid; None if it is gone."""
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(part):
    return bool(part) and started_at(part["pid"]) == part["started"]


HURRY = []   # signals that came while stopping


@contextlib.contextmanager
def stopping():
    """Stopping is not interrupted; one more signal only cuts the waiting short."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: HURRY.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_gone(part, seconds):
    end = time.monotonic() + seconds
    while alive(part):
        if HURRY or time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def grace(stack, name):
    """The emulator forgets its Sprites; on a real API only a gateway that may finish draining leaves none behind."""
    if name == "gateway" and "sprites" in stack["external"]:
        drain = stack["settings"].get("SPRITEGATE_DRAIN_SECONDS", "")
        return (int(drain) if drain.isdigit() else 55) + 5
    return GRACE[name]


def stop_part(stack, name):
    part = stack["parts"].get(name)
    if not alive(part):
        stack["parts"].pop(name, None)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(part["pid"], signal.SIGTERM)
    if not wait_gone(part, grace(stack, name)):
        say(f"{name} killed: " + ("in a hurry" if HURRY else f"it did not stop within {grace(stack, name)} s"))
    # The rest of its process group, if it left any.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(part["pid"], signal.SIGKILL)
    wait_gone(part, 5)
    stack["parts"].pop(name, None)
    stack.save()


def stop_all(stack):
    (STATE / "stack.json").unlink(missing_ok=True)
    for name in reversed(START_ORDER):
        stop_part(stack, name)
    stack.save()


# --- ports -------------------------------------------------------------------

HELD = []   # locks of the ports given out by this process


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def take_port(port):
    """Whether it is free. Other runs that are choosing are kept off by a named socket."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0spritegate-port-{port}")
    except OSError:
        lock.close()
        return False
    if port_is_free(port):
        HELD.append(lock)
        return True
    lock.close()
    return False


def free_port():
    """A port below the ephemeral range."""
    for _ in range(1000):
        port = random.randint(20000, 32000)
        if take_port(port):
            return port
    raise Failed("no free port on 127.0.0.1")


PORTS = {"gateway": "SG_PORT", "admin": "SG_ADMIN_PORT", "datasette": "SG_DATASETTE_PORT",
         "redis": "SG_REDIS_PORT", "sprites": "SG_SPRITES_PORT"}


def choose_ports(stack):
    """Preset port, else the one the part had, else a free one."""
    for name, variable in PORTS.items():
        preset = os.environ.get(variable) or "0"
        if not preset.isdigit() or int(preset) > 65535:
            raise Failed(f"{variable}={preset} is not a port")
        mine = alive(stack["parts"].get("gateway" if name == "admin" else name))
        had = stack["ports"].get(name)
        if int(preset):
            stack["ports"][name] = int(preset)
            if name not in stack["external"] and not (mine and had == int(preset)) and not port_is_free(int(preset)):
                raise Failed(f"{name}: port {preset} ({variable}) is in use")
        elif not had or not (mine or take_port(had)):
            stack["ports"][name] = free_port()
    # A caller's own listen address is where we have to look for the gateway.
    for name, variable in (("gateway", "SPRITEGATE_LISTEN"), ("admin", "SPRITEGATE_ADMIN_LISTEN")):
        port = stack["settings"].get(variable, "").rpartition(":")[2]
        if port.isdigit() and int(port):
            stack["ports"][name] = int(port)


# --- probes ------------------------------------------------------------------

def http_get(url, seconds=2):
    """Status and body of GET url, or (None, b""). Not urllib: it would ask a configured proxy."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=seconds)
    try:
        connection.request("GET", where.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def http_status(url):
    return http_get(url)[0]


def redis_answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def ready(stack, name):
    if name == "redis":
        return redis_answers(stack["ports"]["redis"])
    path = {"datasette": "/-/versions.json", "sprites": "/_emulator/state", "gateway": "/-/gateway/health"}[name]
    return http_status(stack.url(name) + path) == 200


# --- what each part is started with ------------------------------------------

def spec(stack, name):
    """{"argv", "env"} of a part as it would be started now, or None if it is not ours to start."""
    if name in stack["external"]:
        return None
    port = str(stack["ports"][name])
    python = os.environ.get("SG_PYTHON", sys.executable)
    if name == "redis":
        return {"argv": ["redis-server", str(TOP / "deploy/redis.conf"), "--port", port, "--dir", str(STATE / "redis")],
                "env": {}}
    if name == "datasette":
        data = STATE / "datasette"
        return {"argv": [python, str(TOP / "tests/fixtures/plain_datasette.py"), "serve", str(data / "sample.db"), str(data / "readonly.db"),
                         "-c", str(TOP / "tests/fixtures/datasette.yml"), "-h", "127.0.0.1", "-p", port],
                "env": {"DATASETTE_SECRET": sample.SECRET}}
    if name == "sprites":
        return {"argv": [python, str(TOP / "tests/emulator"), "--listen", f"127.0.0.1:{port}",
                         "--token", stack["sprites_token"], *shlex.split(stack["emulator_args"])], "env": {}}
    binary = os.stat(stack.binary())
    return {"argv": [str(stack.binary()), "serve"], "env": stack.gateway_settings(),
            "binary": [binary.st_ino, binary.st_mtime_ns]}


def prepare(name):
    if name == "redis":
        (STATE / "redis").mkdir(exist_ok=True)
    if name == "datasette" and not (STATE / "datasette/readonly.db").exists():
        sample.make(STATE / "datasette")


def start_part(stack, name, wanted):
    prepare(name)
    no_proxy = "127.0.0.1,localhost," + os.environ.get("no_proxy", "")
    env = {**os.environ, "no_proxy": no_proxy, "NO_PROXY": no_proxy, **wanted["env"]}
    with open(LOGS / f"{name}.log", "ab") as log:
        offset = log.tell()
        try:
            process = subprocess.Popen(wanted["argv"], env=env, cwd=TOP, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)
        except OSError as error:
            raise Failed(f"{name} failed to start: {error}") from None
    stack["parts"][name] = {"pid": process.pid, "started": started_at(process.pid), "spec": wanted, "log_from": offset}
    stack.begun.append(name)
    stack.save()


def log_tail(stack, name, lines=20):
    offset = stack["parts"].get(name, {}).get("log_from", 0)
    try:
        with open(LOGS / f"{name}.log", "rb") as log:
            log.seek(offset)
            text = log.read()[-20000:].decode("utf-8", "replace")
    except OSError:
        text = ""
    tail = "".join(f"  {line}\n" for line in text.splitlines()[-lines:])
    return f"last lines of {LOGS / name}.log:\n{tail or '  (nothing)'}"


def wait_ready(stack, name):
    end = time.monotonic() + START_SECONDS
    while not ready(stack, name):
        if not alive(stack["parts"][name]):
            raise Failed(f"{name} ended while starting; {log_tail(stack, name)}")
        if time.monotonic() > end:
            raise Failed(f"{name} was not ready within {START_SECONDS} s; {log_tail(stack, name)}")
        time.sleep(0.03)


def start_parts(stack, names):
    """Start or keep each of `names`, all at the same time."""
    started = []
    for name in names:
        wanted, part = spec(stack, name), stack["parts"].get(name)
        if wanted and alive(part) and part["spec"] == wanted and ready(stack, name):
            say(f"{name:10} {stack.url(name)}  still running, pid {part['pid']}")
            continue
        stop_part(stack, name)
        if wanted:
            start_part(stack, name, wanted)
            started.append(name)
        else:
            say(f"{name:10} {hide_password(stack.url(name))}  yours")
    for name in started:
        wait_ready(stack, name)
        say(f"{name:10} {stack.url(name)}  pid {stack['parts'][name]['pid']}")


def hide_password(url):
    where = urllib.parse.urlsplit(url)
    return url.replace(f":{where.password}@", ":…@") if where.password else url


# --- build, token, demo ------------------------------------------------------

def build(preset):
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / "build.log"
    folder = TOP / "build" / preset
    began = time.monotonic()
    with only_one(TOP / "build" / f".{preset}.lock", 900), open(log, "wb") as output:
        commands = [] if (folder / "build.ninja").exists() else [["cmake", "--preset", preset]]
        commands.append(["cmake", "--build", "--preset", preset, "--target", "spritegate"])
        for command in commands:
            if subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=900,
                              check=False).returncode:
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
                raise Failed("build failed; last lines of {}:\n{}".format(log, "\n".join("  " + line for line in tail)))
    say(f"built      {folder.relative_to(TOP)}/spritegate in {time.monotonic() - began:.1f} s")


def program(stack, *words):
    return subprocess.run([str(stack.binary()), *words], env={**os.environ, **stack.gateway_settings()},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)


def check_settings(stack):
    """Before anything that runs is stopped for them."""
    result = program(stack, "check-config")
    if result.returncode:
        raise Failed(f"gateway: {result.stderr.strip()}")


def mint_token(stack):
    """A token for the demo, unless an earlier start's is still known."""
    if stack["token"] and program(stack, "token", "show", stack["token"][4:20]).returncode == 0:
        return
    result = program(stack, "token", "create", "--actor", "demo", "--rate", "60/1m", "--burst", "20", "--conc", "5", "--sessions", "3",
                     "--json")
    try:
        stack["token"] = json.loads(result.stdout)["token"]
    except (ValueError, KeyError, TypeError):
        raise Failed(f"gateway: `spritegate token create` failed (exit {result.returncode}):\n"
                     f"{result.stdout}{result.stderr}") from None


def curl_line(stack, command):
    body = json.dumps({"command": command})
    return ["curl", "-sS", "--noproxy", "*", stack.url("gateway") + "/-/agent/exec",
            "-H", "Authorization: Bearer " + stack["token"], "-H", "Content-Type: application/json", "-d", body]


def await_redis(stack):
    """A gateway that was kept notices a moment later that Redis is there again."""
    end = time.monotonic() + READY_SECONDS
    while b'"redis":"up"' not in http_get(stack.url("admin") + "/health/ready")[1]:
        if time.monotonic() > end:
            raise Failed(f"gateway: no connection to Redis after {READY_SECONDS} s; {log_tail(stack, 'gateway')}")
        time.sleep(0.05)


def demo(stack):
    end = time.monotonic() + READY_SECONDS
    while http_status(stack.url("admin") + "/health/ready") != 200:
        if time.monotonic() > end:
            say(f"gateway    not ready after {READY_SECONDS} s; trying all the same")
            break
        time.sleep(0.05)
    arguments = curl_line(stack, DEMO)
    say(f"\n$ curl …/-/agent/exec -d {shlex.quote(arguments[-1])}")
    result = subprocess.run(arguments + ["--max-time", "60", "-w", "\n%{http_code} %{time_total}"],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=70, check=False)
    body, _, status = result.stdout.rpartition("\n")
    code, _, seconds = status.partition(" ")
    with contextlib.suppress(ValueError):
        body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    say(f"{body}{result.stderr}")
    if code != "200":
        raise Failed(f"gateway: the demo command was answered with status {code}; {log_tail(stack, 'gateway')}")
    say(f"HTTP {code}, {float(seconds) * 1000:.1f} ms in all")


def summary(stack):
    command = curl_line(stack, "date; id -un")
    command.remove("--noproxy")
    command.remove("*")
    say(f"""
Datasette  {stack.url('gateway')}/
Gateway    {stack.url('gateway')}/-/agent/exec
Admin      {stack.url('admin')}/metrics
Logs       {LOGS}
Token      {stack['token']}

{shlex.join(command)}
""")


# --- commands ----------------------------------------------------------------

WISHES = ("settings", "external", "emulator_args", "preset", "sprites_token")


def remember_wishes(stack, options):
    """Merge what this caller asks for into what earlier ones did."""
    stack["settings"].update(callers_settings())
    stack["preset"] = os.environ.get("SG_PRESET") or stack["preset"]
    if "SG_EMULATOR_ARGS" in os.environ:
        stack["emulator_args"] = os.environ["SG_EMULATOR_ARGS"]
    for name in ("datasette", "redis", "sprites"):
        variable = f"{PREFIX}{name.upper()}_URL"
        url = getattr(options, name) or os.environ.get(variable)
        stack["settings"].pop(variable, None)   # from here on in "external"
        if url:
            stack["external"][name] = url.rstrip("/")
    token = stack["settings"].get("SPRITEGATE_SPRITES_TOKEN")
    if "sprites" in stack["external"] and not token:
        raise Failed("sprites: --sprites needs the API token in SPRITEGATE_SPRITES_TOKEN")
    stack["sprites_token"] = token or stack["sprites_token"]


def give_up(stack, before):
    """What this run has started is stopped; what ran before stays, and stack.json tells what there is."""
    if stack.begun:
        say("stopping what was started: " + ", ".join(stack.begun))
    for name in reversed(stack.begun):
        stop_part(stack, name)
    stack.record.update(before)
    stack.save()
    left = [name for name in START_ORDER if alive(stack["parts"].get(name))]
    if not left:
        (STATE / "stack.json").unlink(missing_ok=True)
        return
    if (STATE / "stack.json").exists():
        stack.publish()
    say("still running from before: " + ", ".join(left) + "; ./deploy/down stops it")


def up(options):
    STATE.mkdir(parents=True, exist_ok=True)
    with only_one(STATE / ".stack.lock", 180):
        if not (STATE / "stack.state").exists():
            for log in LOGS.glob("*.log"):
                log.unlink()
        stack = Stack()
        before = {key: copy.deepcopy(stack[key]) for key in (*WISHES, "ports")}
        remember_wishes(stack, options)
        build(stack["preset"])
        choose_ports(stack)
        check_settings(stack)
        stack.save()
        try:
            start_parts(stack, START_ORDER[:-1])
            start_parts(stack, START_ORDER[-1:])
            await_redis(stack)
            mint_token(stack)
            stack.save()
            if not options.no_demo:
                demo(stack)
            stack.publish()
        except BaseException:
            with stopping():
                give_up(stack, before)
            raise
        HELD.clear()
        summary(stack)
    if options.detach:
        say("It stays up: ./deploy/down stops it.")
    else:
        watch()


def watch():
    """Stay until a signal or until another run takes the stack down; tell what dies meanwhile."""
    say("Ctrl-C stops it.")
    told = set()
    try:
        while (STATE / "stack.json").exists():
            stack = Stack()
            for name, part in stack["parts"].items():
                if not alive(part) and (name, part["pid"]) not in told:
                    told.add((name, part["pid"]))
                    say(f"{name} (pid {part['pid']}) has died; ./deploy/up from elsewhere replaces it; "
                        f"{log_tail(stack, name)}")
            time.sleep(0.5)
    except BaseException as reason:
        say("\nstopping; once more to stop at once")
        with stopping(), only_one(STATE / ".stack.lock", 180):
            stop_all(Stack())
        if isinstance(reason, (KeyboardInterrupt, SystemExit)):
            say("stopped; the data stays until ./deploy/down")
            return
        raise
    say("the stack was taken down")


def down():
    with only_one(STATE / ".stack.lock", 180):
        stop_all(Stack())
        for name in ("redis", "datasette"):
            shutil.rmtree(STATE / name, ignore_errors=True)
        (STATE / "stack.state").unlink(missing_ok=True)
    say("The stack is down.")


def enter_callers_folder(arguments):
    """Relative paths are the caller's, where the private root can see them."""
    folder = pathlib.Path(os.environ.pop("SG_CALLED_FROM", TOP))
    for option, value in zip(arguments, arguments[1:]):
        if option == "--config" and not visible(folder / value):
            raise Failed(f"--config {folder / value}: must lie below the checkout or /tmp, the private root has nothing else of this machine")
    if visible(folder):
        os.chdir(folder)


def run_program(arguments):
    """Become the built program, with the settings of the stack if there is one."""
    stack = Stack()
    stack["preset"] = os.environ.get("SG_PRESET") or stack["preset"]
    if not stack.binary().exists():
        with contextlib.redirect_stdout(sys.stderr):
            build(stack["preset"])
    enter_callers_folder(arguments)
    env = {**os.environ}
    if (STATE / "stack.state").exists():
        settings = stack.gateway_settings()
        if arguments[:1] == ["serve"]:
            # A gateway more, never the running one again: its own addresses and name.
            settings.pop("SPRITEGATE_INSTANCE")
            for name in ("SPRITEGATE_LISTEN", "SPRITEGATE_ADMIN_LISTEN"):
                settings[name] = f"127.0.0.1:{free_port()}"
        env = {**settings, **env}
    os.execve(stack.binary(), [str(stack.binary()), *arguments], env)


def parse_up(arguments):
    parser = argparse.ArgumentParser(
        prog="./deploy/up", description="Build and start Redis, Datasette, the Sprites emulator and the gateway on loopback.",
        epilog="Ports: " + ", ".join(PORTS.values()) + ". SG_EMULATOR_ARGS goes to the emulator, SPRITEGATE_* to the gateway; "
        "SG_STATE is the stack's folder (build), SG_PRESET the build (release).")
    parser.add_argument("--detach", action="store_true", help="leave it running; ./deploy/down stops it")
    parser.add_argument("--datasette", metavar="URL", help="use this Datasette")
    parser.add_argument("--redis", metavar="URL", help="use this Redis")
    parser.add_argument("--sprites", metavar="URL", help="use this Sprites API, with SPRITEGATE_SPRITES_TOKEN")
    parser.add_argument("--no-demo", action="store_true", help="run no command at the end")
    return parser.parse_args(arguments)


def parse_down(arguments):
    argparse.ArgumentParser(
        prog="./deploy/down", description="Stop the stack that ./deploy/up left running and forget its data.",
        epilog="SG_STATE is the stack's folder (build).").parse_args(arguments)


def main():
    if not visible(STATE):
        raise Failed(f"SG_STATE={STATE}: must lie below the checkout or /tmp, the private root has nothing else of this machine")
    command, *arguments = sys.argv[1:]
    if command == "up":
        # Also when a shell without job control, having put us in the background, made SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
        up(parse_up(arguments))
    elif command == "down":
        parse_down(arguments)
        down()
    elif command == "run":
        run_program(arguments)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"failed: {failure}")
    except subprocess.TimeoutExpired as late:
        sys.exit(f"failed: {late.cmd[0]} took longer than {late.timeout} s")
    except KeyboardInterrupt:
        sys.exit(130)
