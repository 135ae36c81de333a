"""The Debian package: it is built, sound, complete, and what is in it runs; its unit confines the gateway and lets it work."""
import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

import rig as rigs
from rig import BINARY, TOP, until

BUILD = TOP / "build/package"

# What lintian says that is meant so.
MEANT = {"bogus-mail-host", "bogus-mail-host-in-debian-changelog",     # there is no address to write to
         "non-standard-file-perm"}                                     # the configuration holds secrets
CONFIG = "/etc/spritegate/spritegate.conf"


def call(*words, seconds=600, ok=True, **more):
    done = subprocess.run([str(word) for word in words], cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=seconds, check=False, **more)
    assert not ok or done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def deb():
    for old in BUILD.glob("*.deb"):
        old.unlink()
    call("cmake", "--preset", "package")
    call("cmake", "--build", "--preset", "package")
    call("cpack", "--config", BUILD / "CPackConfig.cmake")
    (made,) = BUILD.glob("*.deb")
    return made


@pytest.fixture(scope="session")
def unpacked(deb):
    folder = BUILD / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    call("dpkg-deb", "--raw-extract", deb, folder)
    return folder


@pytest.mark.timeout(900)
def test_lintian_finds_nothing_that_is_not_meant(deb):
    said = call("lintian", "--allow-root", "--display-level", ">=warning", deb, ok=False)
    found = {match[1]: line for line in said.splitlines() if (match := re.match(r"[EW]: spritegate: (\S+)", line))}
    assert set(found) <= MEANT, said


def test_it_says_what_it_needs(unpacked):
    fields = dict(line.split(": ", 1) for line in (unpacked / "DEBIAN/control").read_text(encoding="utf-8").splitlines() if re.match(r"\w", line))
    version = call(BINARY, "version").split()[1]
    assert fields["Package"] == "spritegate" and fields["Version"] == version
    needs = dict(re.findall(r"([a-z0-9.+-]+)(?: \(([^)]*)\))?", fields["Depends"]))
    assert {"libc6", "libcurl4t64", "libgnutls30t64", "libhiredis1.1.0", "libjansson4", "libllhttp9.2", "libseccomp2", "libssl3t64", "libuv1t64", "ca-certificates"} <= set(needs)
    assert "libcurl4t64 (>= 8.14)" in fields["Depends"]


def test_its_files(unpacked):
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file() and "DEBIAN" not in path.parts}
    assert files == {"usr/bin/spritegate", "usr/lib/systemd/system/spritegate.service", "usr/lib/sysusers.d/spritegate.conf", "etc/spritegate/spritegate.conf",
                     "usr/share/bash-completion/completions/spritegate", "usr/share/man/man1/spritegate.1.gz", "usr/share/man/man5/spritegate.conf.5.gz",
                     "usr/share/doc/spritegate/changelog.gz", "usr/share/doc/spritegate/copyright", "usr/share/doc/spritegate/examples/datasette.service"}
    assert (unpacked / "etc/spritegate/spritegate.conf").stat().st_mode & 0o777 == 0o600
    assert (unpacked / "DEBIAN/conffiles").read_text(encoding="utf-8") == "/etc/spritegate/spritegate.conf\n"
    call("shellcheck", *(unpacked / "DEBIAN").glob("p*"))


# --- installed ---------------------------------------------------------------

@pytest.fixture(scope="module")
def installed(deb, tmp_path_factory):
    """This system once more, with what dpkg makes of the package; no systemd runs in it."""
    layers = tmp_path_factory.mktemp("installed")
    root = layers / "root"
    call("mount", "-t", "tmpfs", "-o", "mode=755", "layers", layers)
    try:
        for name in ("upper", "work", "root"):
            (layers / name).mkdir()
        call("mount", "-t", "overlay", "-o", f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work", "overlay", root)
        for name in ("dev", "proc"):
            call("mount", "--bind", f"/{name}", root / name)
        shutil.copy(deb, root / "spritegate.deb")
        install(root)
        yield root
    finally:
        call("umount", "--lazy", "--recursive", layers)


def install(root):
    call("chroot", root, "dpkg", "--install", "/spritegate.deb")


def owner(root, path):
    return call("chroot", root, "stat", "--format", "%U:%G %a", path).strip()


def as_user(root, user, group):
    return ["chroot", root, "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def test_only_the_gateways_user_reads_its_settings(installed):
    assert owner(installed, CONFIG) == "root:spritegate 640"
    gateway, stranger = as_user(installed, "spritegate", "spritegate"), as_user(installed, "nobody", "nogroup")
    assert call(*gateway, "head", "-n", 1, CONFIG).startswith("# Settings of the gateway")
    assert "Permission denied" in call(*gateway, "sh", "-c", f"echo x >>{CONFIG}", ok=False)
    assert "Permission denied" in call(*stranger, "cat", CONFIG, ok=False)


def test_an_upgrade_keeps_what_an_administrator_said(installed):
    changed = installed / CONFIG.lstrip("/")
    before = changed.read_text(encoding="utf-8")
    changed.write_text(before + "workers = 1\n", encoding="utf-8")
    call("chroot", installed, "dpkg-statoverride", "--update", "--add", "root", "root", "600", CONFIG)
    install(installed)
    assert owner(installed, CONFIG) == "root:root 600" and "workers = 1" in changed.read_text(encoding="utf-8")
    call("chroot", installed, "dpkg-statoverride", "--remove", CONFIG)
    install(installed)
    assert owner(installed, CONFIG) == "root:spritegate 640"
    changed.write_text(before, encoding="utf-8")


def test_a_purge_leaves_nothing(installed):
    state = installed / "var/lib/spritegate/settlements"
    state.parent.mkdir()
    state.touch()
    call("chroot", installed, "dpkg", "--remove", "spritegate")
    assert state.exists() and (installed / CONFIG.lstrip("/")).exists()
    call("chroot", installed, "dpkg", "--purge", "spritegate")
    assert not state.parent.exists() and not (installed / CONFIG.lstrip("/")).parent.exists()
    install(installed)


def test_its_program_serves_with_its_configuration(unpacked, rig, stack, tmp_path):
    """As shipped, every line of it allowed; with the two secrets it is complete."""
    shipped = (unpacked / "etc/spritegate/spritegate.conf").read_text(encoding="utf-8")
    config = tmp_path / "spritegate.conf"
    program = unpacked / "usr/bin/spritegate"
    config.write_text(shipped, encoding="utf-8")
    refused = subprocess.run([program, "check-config", "--config", config], env=rigs.clean_environment(), capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 2 and {line.split(":")[0] for line in refused.stderr.splitlines()[1:]} == {"sprites_token", "pepper"}, refused.stderr
    uncommented = re.sub(r"^#(\w+ =)", r"\1", shipped, flags=re.MULTILINE)
    config.write_text(re.sub(r"^(sprites_token|pepper) =$", r"\1 = " + "0" * 32, uncommented, flags=re.MULTILINE), encoding="utf-8")
    checked = call(program, "check-config", "--config", config, env=rigs.clean_environment())
    assert "datasette_url = http://127.0.0.1:8001" in checked
    gateway = rigs.OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url, "pool_hot": 0},
                              argv=[program, "serve", "--config", config])
    rig.add(gateway, gateway.stop_at_once)
    assert gateway.get("/sample/stations.json").status_code == 200


# --- the unit ----------------------------------------------------------------

PAGE = (TOP / "docs/PACKAGE.md").read_text(encoding="utf-8")
UNIT = TOP / "deploy/debian/spritegate.service"
DATASETTE_UNIT = TOP / "deploy/debian/datasette.service"


def test_the_unit_is_confined():
    """0 is a safe service, 10 an unsafe one; 20 here is 2.0."""
    said = call("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", UNIT)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)[1]
    assert f"`systemd-analyze security`: {exposure}" in PAGE, exposure


@pytest.mark.parametrize("unit", [UNIT, DATASETTE_UNIT], ids=lambda unit: unit.stem)
def test_systemd_understands(unit):
    said = call("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit, ok=False)
    complaints = [line for line in said.splitlines() if "is not executable" not in line]     # it is not installed here
    assert not complaints, said


def of_the_unit(name):
    """What it says there, in words."""
    return shlex.split(re.search(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)[1])


def test_the_unit_starts_the_program(unpacked):
    words = of_the_unit("ExecStart")
    assert (unpacked / words[0].lstrip("/")).is_file() and words[1:] == ["serve", "--config", CONFIG]


def system_calls(name):
    """A filter set of systemd, with the sets inside it."""
    found = set()
    for line in call("systemd-analyze", "syscall-filter", "--no-pager", name).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= system_calls(word)
        elif re.fullmatch(r"\w+", word):
            found.add(word)
    return found


def allowed_calls():
    allowed = set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        named = set().union(*(system_calls(word) if word.startswith("@") else {word} for word in words.removeprefix("~").split()))
        allowed = allowed - named if words.startswith("~") else allowed | named
    return allowed


def test_the_filter_of_system_calls_lets_it_work(rig, stack, tmp_path):
    """From its start through pages, a command and the drain, without capabilities as the unit has it; execve is systemd's own."""
    counts = tmp_path / "calls"
    folder = os.fspath(counts)
    gateway = rigs.OwnGateway({"datasette_url": stack.datasette.replace("127.0.0.1", "localhost"), "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                               "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 1, "redis_timeout_ms": 5000},
                              argv=["setpriv", "--bounding-set=-all", "--inh-caps=-all", "strace", "-f", "-c", "-o", folder, BINARY, "serve"])
    rig.add(gateway, gateway.kill)
    gateway.minted = rig.mint()
    gateway.token = gateway.minted["token"]
    gateway.until_ready()
    assert gateway.get("/sample/stations.json").status_code == 200
    gateway.run("echo hello")
    gateway.metrics()
    traced = int(pathlib.Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()[0])
    os.kill(traced, 15)
    assert gateway.wait(60) == 0
    used = counted(counts)
    assert len(used) > 30
    assert used - {"execve"} <= allowed_calls(), used - allowed_calls()


def counted(file):
    """The calls in what strace has counted."""
    return {line.split()[-1] for line in until(lambda: file.read_text(encoding="utf-8"), "strace has counted").splitlines()
            if re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+\d+", line)} - {"total"}


def test_systemctl_reload_changes_settings(installed, rig, stack):
    """As the unit's user, without capabilities, from the file that the operator edits; what it does is allowed there."""
    config, counts = installed / CONFIG.lstrip("/"), installed / "tmp/calls"
    shipped = config.read_text(encoding="utf-8")
    (user,) = of_the_unit("User")
    as_it = as_user(installed, user, user)
    gateway = rigs.OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                               "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 0}, argv=[*as_it, *of_the_unit("ExecStart")])
    rig.add(gateway, gateway.stop_at_once)
    env = {**rigs.clean_environment(gateway.settings), "MAINPID": str(gateway.pid)}

    def reload(line, *before):
        config.write_text(f"{shipped}{line}\n", encoding="utf-8")
        return subprocess.run([*as_it, *before, *of_the_unit("ExecReload")], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    def refused():
        return [gateway.http.post("/sample/stations", content=b"x" * 2000).status_code == 413 for _ in range(10)]

    assert not any(refused())
    done = reload("max_body_bytes = 1KiB", "strace", "-f", "-c", "-o", "/tmp/calls")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    until(lambda: all(refused()), "every worker has the new limit")
    used = counted(counts)
    assert {"kill", "execve"} <= used and used - {"execve"} <= allowed_calls(), used - allowed_calls()

    done = reload("max_body_bytes = 17GiB")
    assert done.returncode and "max_body_bytes" in done.stderr and "reload: nothing was changed" not in gateway.log, done.stderr
    config.chmod(0o600)
    done = reload("max_body_bytes = 2KiB")
    assert done.returncode and f"{CONFIG}: cannot be read" in done.stderr, done.stderr
    assert all(refused())
    config.chmod(0o640)
    config.write_text(shipped, encoding="utf-8")


# --- docs/PACKAGE.md: who follows it has a gateway -----------------------------

def written(path):
    """What the page has its reader put into that file."""
    return re.search(rf"^cat >+{re.escape(path)} <<('?)EOF\1\n(.*?)^EOF$", PAGE, re.MULTILINE | re.DOTALL)[2]


def start_datasette(rig, folder, port):
    """As its unit does."""
    words = re.search(r"^ExecStart=\S+ (.*)$", DATASETTE_UNIT.read_text(encoding="utf-8"), re.MULTILINE)[1].replace(" 8001 ", f" {port} ").split()
    datasette = rigs.Part("datasette", [rigs.PYTHON, "-m", "datasette", *words], cwd=folder)
    rig.add(datasette, datasette.kill)


def start_redis(rig, folder, port):
    (folder / "redis.conf").write_text(written("/etc/redis/spritegate.conf"), encoding="utf-8")
    redis = rigs.Part("redis", ["redis-server", folder / "redis.conf", "--port", port, "--bind", "127.0.0.1", "--dir", folder])
    rig.add(redis, redis.kill)


def test_the_page_leads_to_a_gateway(unpacked, rig, stack, tmp_path):
    program = unpacked / "usr/bin/spritegate"
    config = tmp_path / "spritegate.conf"
    lines = written("/etc/spritegate/spritegate.conf").replace("$(openssl rand -hex 32)", "0" * 64)
    config.write_text((unpacked / "etc/spritegate/spritegate.conf").read_text(encoding="utf-8") + lines, encoding="utf-8")
    redis, datasette = rigs.free_port(), rigs.free_port()
    start_redis(rig, tmp_path, redis)
    start_datasette(rig, tmp_path, datasette)
    gateway = rigs.OwnGateway({"datasette_url": f"http://127.0.0.1:{datasette}", "redis_url": f"redis://127.0.0.1:{redis}", "pool_hot": 0,
                               "sprites_url": stack.sprites.url, "sprites_token": stack.sprites.token}, argv=[program, "serve", "--config", config])
    rig.add(gateway, gateway.stop_at_once)
    until(lambda: gateway.get("/datasette.json").status_code == 200, "Datasette's pages are served")
    env = rigs.clean_environment({"SPRITEGATE_PEPPER": "0" * 64, "SPRITEGATE_REDIS_URL": f"redis://127.0.0.1:{redis}"})
    (command,) = re.findall(r"^spritegate (token create .*)$", PAGE, re.MULTILINE)
    gateway.token = re.search(r"sgt_\w+", call(program, *command.split(), env=env))[0]
    assert gateway.run("echo hello").stdout == "hello\n"
    examined = call(program, "doctor", "--config", config, env=rigs.clean_environment(gateway.settings))
    assert {line.split()[0] for line in examined.splitlines()} == {"ok"}, examined


# --- the manual pages --------------------------------------------------------

@pytest.fixture(params=["spritegate.1", "spritegate.conf.5"])
def page(request, unpacked, tmp_path):
    file = tmp_path / request.param
    (packed,) = unpacked.glob(f"usr/share/man/*/{request.param}.gz")
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    return file


def test_manual_pages_are_clean(page):
    said = call("mandoc", "-T", "lint", "-W", "style", page, ok=False)
    complaints = [line for line in said.splitlines() if "referenced manual not found: Xr spritegate" not in line]    # not installed here
    assert not complaints, said


def test_every_setting_has_its_paragraph(unpacked):
    text = gzip.decompress((unpacked / "usr/share/man/man5/spritegate.conf.5.gz").read_bytes()).decode()
    named = re.findall(r"^\.It Ic (\w+) Pq Ev SPRITEGATE_(\w+)$", text, re.MULTILINE)
    table = re.findall(r"^\| `SPRITEGATE_(\w+)` \|", call(BINARY, "help", "config"), re.MULTILINE)
    assert [upper for _, upper in named] == table and all(name.upper() == upper for name, upper in named)
