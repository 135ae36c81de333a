#!/usr/bin/env python3
"""Install what the tests of this folder need, unless it is there; print the Python to run them with.

The official SDKs and Datasette's agent live apart from the other tests' packages: they bring
`websockets`, with which uvicorn treats Upgrade differently. Lists with exact versions decide
what is installed; each content of the lists has a folder of its own, beside this Python's.
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LISTS = (HERE.parent / "requirements.txt", HERE / "requirements.txt", HERE / "package.json", HERE / "package-lock.json")
STATE = pathlib.Path(sys.prefix).parent
FOLDER = STATE / ("sdk-" + hashlib.sha256(b"".join(path.read_bytes() for path in LISTS)).hexdigest()[:16])
PYTHON = FOLDER / "venv/bin/python"


def install():
    shutil.rmtree(FOLDER, ignore_errors=True)
    run(sys.executable, "-m", "venv", FOLDER / "venv")
    run(PYTHON, "-m", "pip", "install", "--no-input", "--no-deps", "--disable-pip-version-check", "--quiet",
        "--only-binary", ":all:", "-r", HERE / "requirements.txt")
    run(PYTHON, "-m", "pip", "check", "--quiet")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, FOLDER)
    # the machine's certificates, as pip and apt use them
    run(FOLDER / "venv/bin/npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent",
        cwd=FOLDER, NODE_OPTIONS="--use-system-ca")
    (FOLDER / "complete").touch()


def run(*command, cwd=None, **env):
    subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                   stdout=sys.stderr, check=True)


def main():
    if not (FOLDER / "complete").exists():
        with open(STATE / "sdk.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (FOLDER / "complete").exists():
                print("sdk: installing packages", file=sys.stderr, flush=True)
                install()
    print(PYTHON)


if __name__ == "__main__":
    main()
