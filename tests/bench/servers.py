"""What is measured and what it needs, each started on a free port of 127.0.0.1."""
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

from processes import NotMeasured, QUIET

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "deploy"))
from stack import free_port  # noqa: E402

PRESET = os.environ.get("SG_PRESET") or "release"
BUILD = TOP / "build" / PRESET
GATEWAY = BUILD / "spritegate"
SPRITES_TOKEN = "bench"
PEPPER = "0123456789abcdef0123456789abcdef"
MAX_CONNECTIONS = 4096

NGINX = """
daemon off; pid {folder}/nginx-{port}.pid; error_log {folder}/nginx-{port}.error warn;
user root; worker_processes 1; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log {access_log}; {cache_zone}
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-unused; uwsgi_temp_path {folder}/nginx-unused; scgi_temp_path {folder}/nginx-unused;
  keepalive_requests 1000000000;
  upstream datasette {{
    server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://datasette; proxy_http_version 1.1; {buffers}
      proxy_max_temp_file_size 0; proxy_request_buffering off; client_max_body_size 0;
      proxy_set_header Connection ""; {cache}
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn {max_connections}
  {log}
defaults
  mode http
  {log_format}
  timeout connect 10s
  timeout client 100s
  timeout server 100s
frontend public
  bind 127.0.0.1:{port} backlog 4096
  option forwardfor
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Proto http
  default_backend datasette
backend datasette
  http-reuse always
  server datasette 127.0.0.1:{upstream}
"""


def accepts(port):
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True


def status(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def started(programs, name, argv, port, ready=None, **options):
    """A Program that listens on `port`."""
    program = programs.start(name, argv, **options)
    program.port = port
    return program.wait_until(ready or (lambda: accepts(port)))


def upstream(programs, cpu):
    binary, port = programs.folder / "upstream", free_port()
    source = TOP / "tests/bench/upstream.c"
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-o", binary, source], check=True)
    return started(programs, "upstream", [binary, port], port, cpu=cpu)


def redis(programs, cpu):
    port, folder = free_port(), programs.folder / "redis"
    folder.mkdir(exist_ok=True)
    argv = ["redis-server", TOP / "deploy/redis.conf", "--port", port, "--dir", folder, "--appendonly", "no"]
    return started(programs, "redis", argv, port, cpu=cpu)


def emulator(programs, *flags):
    port = free_port()
    argv = [os.environ.get("SG_PYTHON", sys.executable), TOP / "tests/emulator", "--listen", f"127.0.0.1:{port}",
            "--token", SPRITES_TOKEN, *flags]
    return started(programs, "sprites", argv, port, lambda: status(port, "/_emulator/state") == 200)


NGINX_LARGE = "proxy_buffers 20 8k; proxy_busy_buffers_size 64k;"


def nginx(programs, name, upstream_port, cpu, access_log="off", cache=False, buffers=NGINX_LARGE):
    """Without `buffers` those that nginx has when nobody sets them: 8 of 4 KiB."""
    port, folder = free_port(), programs.folder
    config = folder / f"{name}.conf"
    config.write_text(NGINX.format(port=port, upstream=upstream_port, folder=folder, access_log=access_log, buffers=buffers,
                                   cache_zone=f"proxy_cache_path {folder}/{name} keys_zone=one:10m;" if cache else "",
                                   cache="proxy_cache one;" if cache else ""), encoding="utf-8")
    return started(programs, name, ["nginx", "-p", folder, "-c", config, "-e", folder / f"{name}.error"], port, cpu=cpu)


def varnish(programs, name, upstream_port, cpu):
    """With its own defaults but for the address: requests without a cookie are answered from memory."""
    if not shutil.which("varnishd"):
        raise NotMeasured("varnish is not installed; ./tests/run bench installs it")
    port = free_port()
    argv = ["varnishd", "-F", "-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{upstream_port}", "-n", programs.folder / name, "-s", "malloc,64m",
            "-j", "none"]
    return started(programs, name, argv, port, cpu=cpu)


def haproxy(programs, name, upstream_port, cpu, logs=False):
    """Its log goes to its standard output: Program's."""
    port, config = free_port(), programs.folder / f"{name}.conf"
    log = ("log stdout format raw local0", "log global\n  option httplog") if logs else ("", "")
    config.write_text(HAPROXY.format(port=port, upstream=upstream_port, max_connections=MAX_CONNECTIONS, log=log[0], log_format=log[1]),
                      encoding="utf-8")
    return started(programs, name, ["haproxy", "-db", "-f", config], port, cpu=cpu, log=f"{name}.access" if logs else None)


def redis_settings(redis_port):
    return {"SPRITEGATE_REDIS_URL": f"redis://127.0.0.1:{redis_port}", "SPRITEGATE_PEPPER": PEPPER}


def gateway(programs, name, base, upstream_port=9, cpu=None, binary=None, **settings):
    """`base` has the redis and the sprites it uses; settings are rows of the settings table, such as pool_hot=2."""
    port, admin = free_port(), free_port()
    settings = {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin}", "instance": f"bench-{port}",
                "datasette_url": f"http://127.0.0.1:{upstream_port}", "sprites_url": f"http://127.0.0.1:{base.sprites.port}",
                "sprites_token": SPRITES_TOKEN, "access_log": "off",
                "wrong_token_burst": 0, **settings}     # every request has the same address
    env = {f"SPRITEGATE_{key.upper()}": str(value) for key, value in settings.items()}
    program = started(programs, name, [binary or GATEWAY, "serve"], port, lambda: status(port, "/-/gateway/health") == 200, cpu=cpu,
                      env={**redis_settings(base.redis.port), **env})
    program.admin = admin
    return program


def token(redis_port, *limits):
    """A new token and its id."""
    return json.loads(token_command(redis_port, "create", "--actor", "bench", "--json", *limits))


def token_command(redis_port, *words):
    result = subprocess.run([GATEWAY, "token", *words], env={**os.environ, **QUIET, **redis_settings(redis_port)},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    if result.returncode:
        raise NotMeasured(f"spritegate token {words[0]}: {result.stderr.strip()}")
    return result.stdout
