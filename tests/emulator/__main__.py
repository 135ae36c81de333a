"""An emulator of the Sprites API: real commands in local sandboxes, real delays, faults on request."""
import argparse
import asyncio
import signal
import sys

from aiohttp import web

import app
import memory
import network
import sandbox
from faults import KNOWN
from internet import flag_resolve
from values import flag_count, flag_duration, flag_rate, flag_switch
from world import World

MAX_HEAD = 65536
BACKLOG = 512

NOTES = """
network of a Sprite: what its policy opens, IPv4 and TCP; never this machine itself or private networks. It needs root, nft and ip;
without them every Sprite stays closed.
privileges of a Sprite: stored; what a profile or a list of devices would grant is not granted, and every Sprite has less than
any profile could leave it: no capability, no new privileges, no device but those that every program needs.
memory of a Sprite: limit_mb is enforced by a control group, unless autoscale makes it advisory. It needs root; the machine's
memory stays visible in /proc/meminfo.

durations are numbers with units (ms, s, m, h; 1m30s).

faults, for POST /_emulator/faults {"name", "rate", "count", "match": {"sprite", "method", "path"}, parameters}:
sprite is a name, or a prefix and *; path a pattern with * for faults of requests, such as */checkpoints/*
a socket is cut without a word; with close it ends with a close frame of this code.

"""


def parse_flags(argv):
    faults = "".join(f"  {name:<20}{text}" + (f" ({', '.join(defaults)})" if defaults else "") + "\n"
                     for name, (text, defaults) in KNOWN.items())
    parser = argparse.ArgumentParser(prog="emulator", description=__doc__, epilog=NOTES + faults,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--listen", required=True, metavar="HOST:PORT", help="where to listen; port 0 takes a free one")
    add("--token", required=True,
        help="the bearer token that is accepted; as `FlyV1` token it mints further ones in the organization `emulator`")
    add("--seed", type=int, default=1, help="decides which occasions faults strike (default 1)")
    for name, default, text in (
            ("create-delay", "1500ms", "how long a creation takes"),
            ("wake-delay", "300ms", "how long waking from warm takes, and the first wake of a new Sprite; requests are held"),
            ("cold-wake-delay", "1500ms", "how long waking from cold takes; requests are held"),
            ("idle-pause", "30s", "without activity for this long a running Sprite turns warm; 0 never"),
            ("cold-after", "0", "after this long a warm Sprite turns cold; 0 never"),
            ("list-heartbeat", "15s", "how often a stream of the list says that it is alive"),
            ("checkpoint-delay", "700ms", "how long making a checkpoint takes at least"),
            ("restore-delay", "900ms", "how long restoring a checkpoint takes at least"),
            ("exit-tail", "0", "how long an exec socket stays open after the exit frame (live: 5s)")):
        add(f"--{name}", type=flag_duration, default=flag_duration(default), metavar="D", help=f"{text} (default {default})")
    add("--create-limit", type=flag_rate, metavar="N/D", help="creations in a window, such as 10/60s (default none)")
    add("--running-limit", type=int, metavar="N", help="Sprites running at once (default none)")
    add("--running-limit-on", choices=("wake", "create", "both"), default="both",
        help="what the running limit refuses; unknown on the live service (default both)")
    add("--warm-limit", type=int, metavar="N", help="Sprites warm at once; of more the one that was paused first turns cold (default none)")
    add("--max-processes", type=flag_count, default=512, metavar="N", help="processes of a Sprite's user (default 512)")
    add("--list-counters", type=flag_switch, default=True, metavar="true|false",
        help="lists tell the counters and limits of the organisation, as newer servers do (default true)")
    add("--control-idle-holds", type=flag_switch, default=True, metavar="true|false",
        help="an open idle control socket counts as activity; unknown on the live service (default true)")
    add("--auto-checkpoints", type=flag_count, default=0, metavar="N",
        help="restoring first makes an automatic checkpoint; the newest N are kept (default 0, none is made)")
    add("--live-op-complete", action="store_true", help="op.complete without exitCode, as live (default with)")
    add("--has-more-always", action="store_true", help="lists say has_more true even at their end, as recorded live")
    add("--live-fs", action="store_true", help="empty lists of files are null and errors have no code, as live")
    add("--sprite-version", default="v0.0.1-rc46", metavar="V", help="the version that Sprites say to be of (default v0.0.1-rc46)")
    add("--missing-500", action="store_true",
        help="GET and DELETE of a Sprite, and GET of a checkpoint, that does not exist answer 500, as recorded live (default 404)")
    add("--resolve", type=flag_resolve, action="append", default=[], metavar="NAME=ADDRESS:PORT",
        help="a name that exists for Sprites; whatever port they ask for, it leads to this one (repeatable)")
    add("--offline", action="store_true",
        help="for Sprites only the names of --resolve exist (default also what this machine resolves and reaches)")
    settings = parser.parse_args(argv)
    host, colon, port = settings.listen.rpartition(":")
    if not colon or not port.isdecimal():
        parser.error(f"--listen {settings.listen}: not HOST:PORT")
    settings.host, settings.port = host.strip("[]"), int(port)
    return settings


async def serve(settings):
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    world = World(settings)
    runner = web.AppRunner(app.make(world), access_log=None, handle_signals=False, shutdown_timeout=1,
                           max_line_size=MAX_HEAD, max_field_size=MAX_HEAD, max_headers=256)
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        await stop.wait()
    finally:
        await world.close()
        await runner.cleanup()


def main():
    settings = parse_flags(sys.argv[1:])
    missing = sandbox.check_host()
    if missing:
        sys.exit(f"emulator: {missing}")
    no_network = network.check_host()
    settings.network = no_network is None
    if no_network:
        print(f"emulator: no Sprite has a network, whatever its policy: {no_network}", file=sys.stderr, flush=True)
    try:
        settings.control_groups = memory.ControlGroups()
    except OSError as error:
        settings.control_groups = None
        print(f"emulator: memory limits are stored and not enforced: {error}", file=sys.stderr, flush=True)
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        sys.exit(f"emulator: cannot listen on {settings.listen}: {error}")


if __name__ == "__main__":
    main()
