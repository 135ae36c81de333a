"""One Sprite's machine: a persistent bubblewrap sandbox with an agent as its init.

The disk outlives the sandbox: a Sprite that turns cold loses its processes and /tmp, and
starts a new sandbox over the same home.
"""
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess

from disk import HOME, USER_ID, write_accounts

PATH = "/home/sprite/.local/bin:/.sprite/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_TIMEOUT = 20
PACKET = 32768
INSIDE = "/run/inside"         # where a Sprite finds the emulator's own programs
PYTHON = "/usr/bin/python3"

# Of the system's /etc only what programs need to run; accounts and names are the Sprite's own.
ETC = """alternatives bash.bashrc ca-certificates ca-certificates.conf debian_version fonts gai.conf inputrc
 ld.so.cache ld.so.conf ld.so.conf.d localtime magic mime.types nsswitch.conf os-release perl profile.d
 protocols python3 python3.13 rpc services skel ssl terminfo timezone""".split()


class SandboxError(Exception):
    """The sandbox could not be started, or died."""


class StartError(Exception):
    """A command could not be started; the sandbox is well."""


def check_host():
    """Names what is missing on this machine, or None."""
    if not shutil.which("bwrap"):
        return "bubblewrap (bwrap) is not installed"
    if not os.path.exists(PYTHON):
        return f"{PYTHON} is missing: Sprites run their agent with it"
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        return "setpriv (util-linux) is not installed"
    return None


class Started:
    """A command that runs: its pid inside, and our ends of its pipes or terminal."""

    def __init__(self, number, pid, path, fds, exit):
        self.number = number
        self.pid = pid
        self.path = path
        self.fds = fds
        self.exit = exit        # future of the exit code, 128+n for signals; SandboxError when the machine died


class Sandbox:
    """Starts with start(), ends with kill(); `died` fires when it ends by itself."""

    def __init__(self, disk, hostname, max_processes, died):
        self.disk = disk
        self.hostname = hostname
        self.max_processes = max_processes
        self.died = died
        self.loop = asyncio.get_running_loop()
        self.process = None
        self.spawning = None
        self.socket = None
        self.info = None            # descriptor of what bwrap tells
        self.init = None            # pid of the agent as this machine sees it
        self.namespace = None       # number of its network namespace
        self.network = None
        self.memory = None
        self.numbers = 0
        self.starting = {}          # id -> future of Started
        self.exits = {}             # id -> future of the exit code
        self.ready = self.loop.create_future()
        self.replies = {}           # "frozen"/"thawed" -> future
        self.moving = asyncio.Event()   # nothing starts while all stand still
        self.moving.set()
        self.killed = False
        self.gone = asyncio.Event()

    # -- life -----------------------------------------------------------------

    async def start(self):
        write_accounts(self.disk, self.hostname)
        self.spawning = self.loop.create_task(self.spawn())
        await asyncio.shield(self.spawning)     # whoever kills must know the process
        try:
            await asyncio.wait_for(asyncio.shield(self.ready), START_TIMEOUT)
        except (TimeoutError, SandboxError):
            await self.kill()
            reason = (self.disk.path / "log").read_text(errors="replace").strip()[-500:]
            raise SandboxError(f"sandbox did not start: {reason or 'no reason given'}") from None

    async def spawn(self):
        """bwrap must not die alone, since its child would wait for it for ever. So nothing ends it with the emulator: it starts the agent,
        which finds its socket closed and leaves. What it tells goes to a file, since a pipe without a reader would kill it."""
        self.socket, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.info = os.memfd_create("info")
        log = os.open(self.disk.path / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.arguments(channel.fileno(), self.info),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd="/",
                pass_fds=(channel.fileno(), self.info), start_new_session=True)
        except OSError as error:
            self.socket.close()
            os.close(self.info)
            raise SandboxError(f"bwrap could not be started: {error}") from None
        finally:
            channel.close()
            os.close(log)
        self.loop.add_reader(self.socket, self.receive)
        self.loop.create_task(self.watch())

    def arguments(self, channel, info):
        d = self.disk.path
        command = []
        if self.disk.user is not None:
            user = str(self.disk.user)
            command += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
        command += ["bwrap", "--as-pid-1", "--unshare-user", "--unshare-pid", "--unshare-ipc",
                    "--unshare-uts", "--unshare-net", "--unshare-cgroup-try", "--cap-drop", "ALL", "--clearenv",
                    "--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", self.hostname,
                    "--info-fd", str(info)]
        for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"/{name}"):
                command += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
            elif os.path.isdir(f"/{name}"):
                command += ["--ro-bind", f"/{name}", f"/{name}"]
        for name in ETC:
            command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        for name in os.listdir(d / "etc"):
            command += ["--ro-bind", str(d / "etc" / name), f"/etc/{name}"]
        command += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm",
                    "--perms", "0755", "--tmpfs", "/run", "--dir", "/var/lib", "--dir", "/opt", "--dir", "/root",
                    "--symlink", "/run", "/var/run", "--bind", str(d / "tmp"), "/tmp", "--symlink", "/tmp", "/var/tmp",
                    "--bind", str(d / "home"), HOME, "--ro-bind", str(d / "sprite"), "/.sprite",
                    "--ro-bind", str(self.disk.store.inside), INSIDE, "--remount-ro", "/", "--chdir", "/",
                    PYTHON, "-I", "-S", "-X", "utf8", f"{INSIDE}/agent.py", str(channel), str(self.max_processes)]
        return command

    async def watch(self):
        await self.process.wait()
        self.close()
        self.gone.set()
        if not self.killed and self.ready.done() and not self.ready.cancelled():
            self.died()

    def close(self):
        self.loop.remove_reader(self.socket)
        self.socket.close()
        os.close(self.info)
        if self.network:
            self.network.close()
        if self.memory:
            self.memory.close()
        error = SandboxError("the sandbox died")
        waiting = [self.ready, *self.starting.values(), *self.exits.values(), *self.replies.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()      # nobody may be waiting
        self.starting.clear()
        self.exits.clear()
        self.moving.set()       # to be told that it is gone

    async def kill(self):
        """End every process of the sandbox; returns when the kernel has taken them all."""
        self.killed = True
        if self.spawning:
            await asyncio.wait([self.spawning])
        if self.process is None:
            return
        if self.process.returncode is None:
            try:
                if self.init is None:
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    os.kill(self.init, signal.SIGKILL)      # its end waits for all others', and bwrap's for its
            except ProcessLookupError:
                pass
        await self.gone.wait()

    # -- the agent's socket ---------------------------------------------------

    def receive(self):
        for _ in range(64):
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 65536, 3, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.loop.remove_reader(self.socket)     # watch() sees the end of the process
                return
            self.answer(json.loads(data), fds)

    def answer(self, message, fds):
        match message:
            case {"exited": number, "code": code}:
                future = self.exits.pop(number, None)
                if future and not future.done():
                    future.set_result(code)
            case {"started": number, "pid": pid, "path": path}:
                exit = self.exits[number] = self.loop.create_future()
                future = self.starting.pop(number, None)
                if future is None or future.done():
                    for fd in fds:
                        os.close(fd)
                    return
                for fd in fds:
                    os.set_blocking(fd, False)
                future.set_result(Started(number, pid, path, fds, exit))
            case {"failed": number, "message": text}:
                future = self.starting.pop(number, None)
                if future and not future.done():
                    future.set_exception(StartError(text))
            case {"ready": True}:
                if not self.ready.done():
                    facts = json.loads(os.pread(self.info, PACKET, 0))
                    self.init, self.namespace = facts["child-pid"], facts["net-namespace"]
                    self.ready.set_result(None)
            case {"frozen": count} | {"thawed": count}:
                future = self.replies.pop(next(iter(message)), None)
                if future and not future.done():
                    future.set_result(count)

    async def ask(self, request):
        data, extra = json.dumps(request).encode(), []
        if len(data) > PACKET:
            extra = [os.memfd_create("request")]
            os.write(extra[0], data)
            data = b'{"op": "long"}'
        try:
            while True:
                try:
                    socket.send_fds(self.socket, [data], extra)
                    return
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        except OSError as error:
            raise SandboxError(f"the sandbox is gone: {error.strerror}") from None
        finally:
            for fd in extra:
                os.close(fd)

    # -- what a Sprite asks of it ----------------------------------------------

    async def run(self, spec, asked=lambda: None):
        """Start a command; a Started, or StartError. Waits while the machine is frozen. From `asked` on it may run, whatever is answered."""
        await self.moving.wait()
        if self.network:
            await self.network.ensure()
        self.numbers += 1
        number = self.numbers
        future = self.starting[number] = self.loop.create_future()
        await self.ask({"op": "start", "id": number, "argv": spec.argv, "path": spec.path, "search": PATH,
                        "env": list(spec.environment.items()), "dir": spec.dir, "tty": spec.tty,
                        "rows": spec.rows, "cols": spec.cols, "stdin": spec.stdin})
        asked()
        return await future

    async def signal(self, number, value):
        await self.ask({"op": "signal", "id": number, "signal": value})

    async def freeze(self):
        self.moving.clear()
        await self.transition("freeze", "frozen")

    async def thaw(self):
        await self.transition("thaw", "thawed")
        self.moving.set()

    async def transition(self, op, reply):
        future = self.replies[reply] = self.loop.create_future()
        await self.ask({"op": op})
        await future
