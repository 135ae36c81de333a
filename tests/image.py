#!/usr/bin/env python3
"""Build each Dockerfile and look at the result: what is in it, who it runs as, that it serves, the gateway on a read-only disk.

debian:trixie-slim is made here with debootstrap, so that no registry is needed.
"""
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

TOP = pathlib.Path(__file__).resolve().parent.parent
CACHE = TOP / "build/image"
BASE, IMAGE, BOTH = "localhost/debian:trixie-slim", "localhost/spritegate:test", "localhost/spritegate-with-datasette:test"
ALERTS = "localhost/spritegate-alerts:test"
LARGEST_MB = 130        # of 10^6 bytes
REVISION = "0123abc"
NOT_IN_SLIM = ["usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*", "var/cache/apt/*",
               "var/lib/apt/lists/*", "var/log/*"]

# As a runtime with a read-only root does it; root user command…
READ_ONLY = """
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
user=$1; shift
exec chroot --userspec="$user" "$0" "$@"
"""


# The same with a new volume at /data, which takes over whose the image's folder is, and a place for temporary files; root owner user command…
WITH_VOLUME = """
mount --bind "$0" "$0"
mount -t tmpfs -o "$1" volume "$0/data"
mount -t tmpfs -o mode=1777 temporary "$0/tmp"
mount -o remount,bind,ro "$0"
mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
user=$2; shift 2
exec chroot "$0" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --bounding-set=-all --no-new-privs "$@"
"""

WRITABLE = """
mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
exec chroot "$0" "$@"
"""


def run(*command, seconds=900, quiet=False):
    result = subprocess.run([str(word) for word in command], cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT if quiet else None, text=True, timeout=seconds, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command[:3]))}: exit {result.returncode}\n{result.stdout[-4000:]}")
    return result.stdout.strip()


def check(what, holds):
    print(("ok      " if holds else "FAILED  ") + what, flush=True)
    if not holds:
        sys.exit(1)


def configure_buildah():
    """Chroot isolation needs no engine, but its default limits may be above ours."""
    limits = ",".join(f'"{name}={soft}:{hard}"' for name, (soft, hard) in {
        name: resource.getrlimit(number) for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    }.items() if hard != resource.RLIM_INFINITY)
    settings = CACHE / "containers.conf"
    settings.write_text(f"[containers]\ndefault_ulimits=[{limits}]\n")
    os.environ.update(CONTAINERS_CONF=str(settings), BUILDAH_ISOLATION="chroot", STORAGE_DRIVER="overlay")


def make_base():
    tar = CACHE / "base.tar"
    if not tar.exists():
        sources = pathlib.Path("/etc/apt/sources.list")
        mirror = sources.read_text().split()[1:2] if sources.exists() else []
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            run("debootstrap", "--variant=minbase", "trixie", folder, *mirror, quiet=True)
            run("tar", "-C", folder, "-cf", f"{tar}.new", *(f"--exclude=./{path}" for path in NOT_IN_SLIM), ".")
        os.replace(f"{tar}.new", tar)
    if subprocess.run(["buildah", "inspect", BASE], capture_output=True, timeout=60, check=False).returncode:
        container = run("buildah", "from", "scratch")
        run("buildah", "add", "--quiet", container, tar, "/")
        run("buildah", "commit", "--quiet", "--rm", container, BASE)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_config():
    config = json.loads(run("buildah", "inspect", IMAGE))["Docker"]["config"]
    check("does not run as root", config["User"].split(":")[0].isdigit() and config["User"].split(":")[0] != "0")
    check("serves by default", config["Entrypoint"] == ["spritegate"] and config["Cmd"] == ["serve"])
    check("exposes 8080 and 9091", set(config["ExposedPorts"]) == {"8080/tcp", "9091/tcp"})
    check("has a health check", config["Healthcheck"]["Test"] == ["CMD", "spritegate", "health"])
    return config["User"]


def check_files(root):
    size = int(run("du", "-sx", "--block-size=1MB", root).split()[0])
    check(f"{size} MB, at most {LARGEST_MB}", size <= LARGEST_MB)
    present = [name for name in ("gcc", "cmake", "curl", "git", "python3") if (root / "usr/bin" / name).exists()]
    check(f"brings no tools {present or ''}", not present)
    packages = {line.split()[0]: line.split()[1] for line in run("chroot", root, "dpkg-query", "-W").splitlines()}
    sbom = json.loads((root / "usr/share/doc/spritegate/sbom.cdx.json").read_text(encoding="utf-8"))
    listed = {one["name"]: one["version"] for one in sbom["components"]}
    check(f"lists its {len(listed)} packages", sbom["bomFormat"] == "CycloneDX" and listed.items() >= {
        name.partition(":")[0]: version for name, version in packages.items()}.items())
    linked = {name: listed.get(name) for name in ("libmicrohttpd-dev", "musl-dev", "uthash-dev", "libgcc-14-dev")}
    check(f"lists what was linked statically {linked}", all(linked.values()) and not linked.keys() & packages.keys())
    check("brings its licence", (root / "usr/share/doc/spritegate/LICENSE").exists())


def check_serving(root, user):
    public, admin = free_port(), free_port()
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", READ_ONLY, root, user, "env", "-i",
              "PATH=/usr/local/bin:/usr/bin:/bin"]
    for name, value in {"LISTEN": f"127.0.0.1:{public}", "ADMIN_LISTEN": f"127.0.0.1:{admin}", "PEPPER": "0" * 64,
                        "SPRITES_TOKEN": "none", "SPRITES_URL": "http://127.0.0.1:1", "POOL_HOT": "0",
                        "REDIS_URL": "redis://127.0.0.1:1", "DATASETTE_URL": "http://127.0.0.1:1"}.items():
        inside.append(f"SPRITEGATE_{name}={value}")
    check("finds all its libraries", "not found" not in run(*inside, "ldd", "/usr/local/bin/spritegate"))
    check("cannot write", "Read-only" in run(*inside, "sh", "-c", "! touch /x 2>&1"))
    version = run(*inside, "spritegate", "version")
    check("version: " + version, version.endswith(f"(revision {REVISION})"))
    server = start([*inside, "spritegate", "serve"], f"http://127.0.0.1:{public}/-/gateway/health",
                   "answers /-/gateway/health on a read-only disk, without Redis")
    try:
        run(*inside, "spritegate", "health", seconds=10)
        check("`spritegate health` agrees", True)
        server.terminate()
        check("ends with 0 on SIGTERM", server.wait(timeout=30) == 0)
    finally:
        server.kill()


def check_python_packages(root):
    """By their folders, which pip has made."""
    installed = {"-".join(re.split("[-_.]+", folder.name.removesuffix(".dist-info").rpartition("-")[0].lower())): folder.name.removesuffix(".dist-info").rpartition("-")[2]
                 for folder in root.glob("opt/datasette/lib/python3*/site-packages/*.dist-info")}
    sbom = json.loads((root / "usr/share/doc/spritegate/sbom.cdx.json").read_text(encoding="utf-8"))
    listed = {one["purl"].partition("?")[0] for one in sbom["components"]}
    packages = {f"pkg:pypi/{name}@{version}" for name, version in installed.items()}
    check(f"lists its {len(packages)} Python packages", "datasette" in installed and packages == {one for one in listed if "pypi" in one})
    names = {one["name"] for one in sbom["components"]}
    check("and all of Debian's", {line.partition(":")[0] for line in run("chroot", root, "dpkg-query", "-W", "-f", "${Package}\n").splitlines()} <= names)


def environment_of(image):
    """What whoever enters a container of it has."""
    return json.loads(run("buildah", "inspect", image))["Docker"]["config"]["Env"]


def start(words, url, what):
    """A server that has begun to answer there."""
    server = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not answers(url):
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            check(what, False)
        time.sleep(0.1)
    check(what, True)
    return server


def check_both(root):
    """Datasette and the gateway on one machine; here the container's folders may be written."""
    public, admin = free_port(), free_port()
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", WRITABLE, root, "env", "-i", *environment_of(BOTH)]
    for name, value in {"LISTEN": f"127.0.0.1:{public}", "ADMIN_LISTEN": f"127.0.0.1:{admin}", "PEPPER": "0" * 64, "SPRITES_TOKEN": "none",
                        "SPRITES_URL": "http://127.0.0.1:1", "POOL_HOT": "0", "REDIS_URL": "redis://127.0.0.1:1"}.items():
        inside.append(f"SPRITEGATE_{name}={value}")
    server = start([*inside, "gateway-and-datasette", "--memory"], f"http://127.0.0.1:{public}/-/versions.json",
                   "with Datasette beside it, its pages are served over the socket")
    try:
        found = subprocess.run([str(word) for word in inside] + ["spritegate", "doctor", "--json"], stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, timeout=60, check=False)
        check("doctor finds that Datasette", {one["name"]: one["status"] for one in json.loads(found.stdout)["checks"]}["datasette"] == "ok")
        server.terminate()
        check("both end with 0 on SIGTERM", server.wait(timeout=60) == 0)
    finally:
        server.kill()


def check_compose(root):
    """Its Datasette, as deploy/compose.yml starts it."""
    service = yaml.safe_load((TOP / "deploy/compose.yml").read_text(encoding="utf-8"))["services"]["datasette"]
    volume, port = (root / "data").stat(), free_port()
    given = ["127.0.0.1" if word == "0.0.0.0" else str(port) if word == "8001" else word for word in service["command"]]
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", WITH_VOLUME, root, f"uid={volume.st_uid},gid={volume.st_gid},mode=755",
             service["user"], "env", "-i", *environment_of(BOTH), "DATASETTE_SECRET=none", *service["entrypoint"], *given]
    server = start(words, f"http://127.0.0.1:{port}/datasette.json", "the Datasette of compose.yml serves the database that it made")
    try:
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        check("as a user of its own", re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)[1] == service["user"].split(":")[0] != "0")
        server.terminate()
        server.wait(timeout=60)
    finally:
        server.kill()


def is_ready(server, port):
    """On the network of that process."""
    words = ["nsenter", f"--net=/proc/{server.pid}/ns/net", "curl", "--silent", "--fail", "--max-time", "5", f"http://127.0.0.1:{port}/-/ready"]
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0


def check_alerts(root):
    """Prometheus and Alertmanager of deploy/prometheus/fly, with a network of their own: their ports are not to be chosen."""
    inside = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", "ip link set lo up" + WRITABLE, root, "env", "-i", *environment_of(ALERTS)]
    entrypoint = json.loads(run("buildah", "inspect", ALERTS))["Docker"]["config"]["Entrypoint"]
    folder = pathlib.Path(entrypoint[0]).parent
    run(*inside, "promtool", "check", "config", folder / "prometheus.yml")
    run(*inside, "amtool", "check-config", folder / "alertmanager.yml")
    given = [f"{name}=http://127.0.0.1:1" for name in ("ALERT_PAGE", "ALERT_TICKET")]
    server = subprocess.Popen([str(word) for word in (*inside, "GATEWAY_APP=spritegate", *given, *entrypoint)], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        for port, what in ((9090, "Prometheus"), (9093, "Alertmanager")):
            while not (up := is_ready(server, port)) and server.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
            check(f"with the rules, {what} is ready", up)
        server.terminate()
        check("both of them end with 0 on SIGTERM", server.wait(timeout=60) == 0)
    finally:
        server.kill()


def answers(url):
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def main():
    CACHE.mkdir(parents=True, exist_ok=True)
    configure_buildah()
    make_base()
    build = ["buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--quiet", "--layers", "--build-arg", f"REVISION={REVISION}"]
    run(*build, "-t", IMAGE, ".")
    certificates = "/tmp/machine-certificates.crt"
    run(*build, "--volume", f"/etc/ssl/certs/ca-certificates.crt:{certificates}:ro", "--build-arg", f"PIP_CERT={certificates}",
        "--target", "with-datasette", "-t", BOTH, ".")
    run(*build, "-f", "deploy/prometheus/fly/Dockerfile", "-t", ALERTS, ".")
    user = check_config()
    containers = [run("buildah", "from", "--pull-never", image) for image in (IMAGE, BOTH, ALERTS)]
    try:
        root, both, alerts = (pathlib.Path(run("buildah", "mount", container)) for container in containers)
        check_files(root)
        check_serving(root, user)
        check_python_packages(both)
        check_both(both)
        check_compose(both)
        check_alerts(alerts)
    finally:
        run("buildah", "rm", *containers)
        run("buildah", "prune", "--force", quiet=True)
    print("image: passed")


if __name__ == "__main__":
    main()
