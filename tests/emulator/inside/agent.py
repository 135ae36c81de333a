"""The agent inside a Sprite: first process of the sandbox, starts and signals commands.

It runs with the system's own Python (-I -S), speaks JSON over one SOCK_SEQPACKET socket
whose number is its only argument, and imports nothing that costs start-up time.

Requests   {"op": "start", "id", "argv", "path", "env", "dir", "tty", "rows", "cols", "stdin"}
           {"op": "signal", "id", "signal"}   {"op": "freeze"}   {"op": "thaw"}
           A request longer than one packet arrives as a file descriptor: {"op": "long"}.
Answers    {"started": id, "pid", "path"} with descriptors [stdin, stdout, stderr] or [pty]
           {"failed": id, "message"}   {"exited": id, "code"}   {"frozen": n}   {"thawed": n}

Pipes are made here and not by the emulator, so that they belong to the sandbox's user and
/dev/stdout can be opened. When the socket closes the agent leaves, and the kernel takes
every process of its namespace with it.
"""
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time

HOME = "/home/sprite"
PACKET = 65536
STOPPING = 1.0
RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD]


class Agent:
    def __init__(self, fd):
        self.socket = socket.socket(fileno=fd)
        self.socket.set_inheritable(False)
        self.running = {}       # pid -> id
        self.frozen = []

    def answer(self, message, fds=()):
        data = json.dumps(message).encode()
        if fds:
            socket.send_fds(self.socket, [data], fds)
        else:
            self.socket.send(data)

    # -- starting -------------------------------------------------------------

    def start(self, request):
        try:
            pid, path, fds = self.spawn(request)
        except OSError as error:
            self.answer({"failed": request["id"], "message": f"{request['path']}: {os.strerror(error.errno)}"})
            return
        self.running[pid] = request["id"]
        self.answer({"started": request["id"], "pid": pid, "path": path}, fds)
        for fd in fds:
            os.close(fd)

    def spawn(self, request):
        enter(request.get("dir"))
        path = find(request["path"], request["search"])
        env = {os.fsencode(k): os.fsencode(v) for k, v in request["env"]}
        argv = [os.fsencode(a) for a in request["argv"]]
        ours, theirs, actions = [], [], []
        try:
            if request["tty"]:
                master, slave = os.openpty()
                ours, theirs = [master], [slave]
                size = struct.pack("HHHH", request["rows"], request["cols"], 0, 0)
                fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
                # opened after setsid, so it becomes the controlling terminal
                actions = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0),
                           (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
            else:
                for number in (0, 1, 2):
                    if number == 0 and not request["stdin"]:
                        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
                        continue
                    read, write = os.pipe()
                    ours.append(write if number == 0 else read)
                    theirs.append(read if number == 0 else write)
                    actions.append((os.POSIX_SPAWN_DUP2, theirs[-1], number))
            pid = os.posix_spawn(path, argv, env, file_actions=actions, setsid=True, setsigmask=[], setsigdef=RESET)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
            os.chdir("/")
        return pid, path, ours

    # -- stopping -------------------------------------------------------------

    def signal(self, request):
        for pid, number in self.running.items():
            if number == request["id"]:
                try:
                    os.killpg(pid, request["signal"])
                except ProcessLookupError:
                    pass

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self.running.pop(pid, None)     # None: an orphan that init inherits
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                self.answer({"exited": number, "code": code if code >= 0 else 128 - code})

    # -- pausing --------------------------------------------------------------

    def freeze(self):
        """Stop every process of the namespace; one kill(-1) is atomic against forks."""
        already = {pid for pid in processes() if is_stopping(pid)}     # first those, lest they stop in between
        already |= {pid for pid, (state, _) in processes().items() if state in "Tt"}
        try:
            os.kill(-1, signal.SIGSTOP)
        except ProcessLookupError:
            pass
        self.wait_for_stops()
        self.frozen = [pid for pid in processes() if pid not in already and pid != os.getpid()]
        self.answer({"frozen": len(self.frozen)})

    def wait_for_stops(self):
        """A process stops when it next leaves the kernel; one that waits for its vfork child never does, and does nothing."""
        end = time.monotonic() + STOPPING
        while any(state in "RS" and pid != os.getpid() for pid, (state, _) in processes().items()) and time.monotonic() < end:
            time.sleep(0.001)

    def thaw(self):
        """Children first: a shell that woke earlier would report its job as stopped."""
        parents = {pid: parent for pid, (_, parent) in processes().items()}

        def depth(pid):
            steps = 0
            while pid in parents and steps < 1000:
                pid, steps = parents[pid], steps + 1
            return steps

        for pid in sorted(self.frozen, key=depth, reverse=True):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.answer({"thawed": len(self.frozen)})
        self.frozen = []

    # -- the loop -------------------------------------------------------------

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.socket, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if request["op"] == "long":
            with open(fds[0], "rb") as file:
                file.seek(0)
                request = json.load(file)
        return request

    def run(self):
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)      # commands must not be able to end their init
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self.answer({"ready": True})
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wake_read in ready:
                os.read(wake_read, 4096)
                self.reap()
            if self.socket.fileno() in ready:
                request = self.receive()
                match request["op"]:
                    case "start": self.start(request)
                    case "signal": self.signal(request)
                    case "freeze": self.freeze()
                    case "thaw": self.thaw()


def enter(folder):
    """A folder that does not exist is ignored, as the live service does."""
    for candidate in (folder, HOME, "/"):
        if candidate:
            try:
                return os.chdir(os.path.join(HOME, candidate))
            except OSError:
                continue


def find(path, search):
    if "/" in path:
        return path
    denied = False
    for folder in search.split(":"):
        candidate = os.path.join(folder, path)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        denied = denied or os.path.exists(candidate)
    raise OSError(errno.EACCES if denied else errno.ENOENT, path)


def is_stopping(pid):
    """Whether a SIGSTOP waits for a process that has not run since."""
    try:
        with open(f"/proc/{pid}/status") as file:
            masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    except OSError:
        return False
    return any(mask >> (signal.SIGSTOP - 1) & 1 for mask in masks)


def processes():
    """pid -> (state, parent) of everything in the namespace."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            found[int(name)] = (fields[0].decode(), int(fields[1]))
    return found


if __name__ == "__main__":
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    os.umask(0o022)
    Agent(int(sys.argv[1])).run()
