"""One conversation about a Sprite, and what the model is told in it, whichever plugin gives the tools."""
import json
import re

HOME = "/home/sprite/made"
TEXT = "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{GRINNING FACE}e\n"
WORK = {"name": "work"}

STEPS = [
    [("create_sprite", WORK)],
    [("write_sprite_file", {**WORK, "path": f"{HOME}/here.txt", "content": TEXT})],
    [("exec_on_sprite", {**WORK, "command": "cat ~/made/here.txt; pwd; cat; echo err >&2; exit 3", "working_directory": "/tmp"})],
    [("exec_on_sprite", {**WORK, "command": "cd made; printf '\\377\\n' | tee x.png x.bin; kill -9 $$"})],
    [("get_sprite", WORK), ("list_sprites", {"prefix": "wo"}), ("list_sprites", {}), ("list_sprites", {"prefix": "other"})],
    [("read_sprite_file", {**WORK, "path": f"{HOME}/here.txt"})],
    [("read_sprite_file", {**WORK, "path": f"{HOME}/x.png"})],
    [("read_sprite_file", {**WORK, "path": f"{HOME}/x.bin"})],
    [("read_sprite_file", {**WORK, "path": f"{HOME}/gone"})],
    [("read_sprite_file", {**WORK, "path": HOME})],
    [("exec_on_sprite", {**WORK, "command": "echo one"}), ("exec_on_sprite", {**WORK, "command": "echo two"})],
    [("create_sprite", WORK)],
    [("delete_sprite", WORK)],
    [("list_sprites", {}), ("get_sprite", WORK), ("delete_sprite", WORK), ("exec_on_sprite", {**WORK, "command": "true"}),
     ("read_sprite_file", {**WORK, "path": "/etc/passwd"}), ("write_sprite_file", {**WORK, "path": "/tmp/x", "content": "x"})],
]

THERE = {"sprites": [{"name": "work", "status": "running"}], "has_more": False}
GONE = {"error": "Sprite 'work' not found"}
IMAGE = {"file_id": "ID", "file_name": "x.png", "content_type": "image/png", "note": "Image has been displayed to the user"}
OTHER = {"file_id": "ID", "file_name": "x.bin", "content_type": "application/octet-stream", "download_url": "/-/agent/sprite-file/ID"}

TOLD = [
    [{"name": "work", "status": "cold"}],
    [{"ok": True, "path": f"{HOME}/here.txt", "message": f"Wrote {len(TEXT)} characters to {HOME}/here.txt"}],
    [{"stdout": f"{TEXT}/tmp\n", "stderr": "err\n", "exit_code": 3}],
    [{"stdout": "\N{REPLACEMENT CHARACTER}\n", "stderr": "", "exit_code": 137}],
    [{"name": "work", "status": "running"}, THERE, THERE, {"sprites": [], "has_more": False}],
    [{"file_id": "ID", "file_name": "here.txt", "content_type": "text/plain", "text_content": TEXT}],
    [IMAGE],
    [OTHER],
    [{"error": f"read {HOME}/gone: file not found (ENOENT)"}],
    [{"error": f"read {HOME}: is a directory (EISDIR)"}],
    [{"stdout": "one\n", "stderr": "", "exit_code": 0}, {"stdout": "two\n", "stderr": "", "exit_code": 0}],
    [{"error": "Failed create sprite (status 409): …"}],
    [{"ok": True, "message": "Sprite 'work' deleted"}],
    [{"sprites": [], "has_more": False}, GONE, GONE, GONE, GONE, GONE],
]


def alike(told):
    """Without what is new each time, a Sprite's address, and the words in which a service refuses."""
    text = re.sub(r'("file_id": "|/sprite-file/)[0-9a-f]+', r"\1ID", json.dumps(told))
    told = json.loads(re.sub(r"(\(status \d+\): )[^\"\\]*(\\.[^\"\\]*)*", r"\1…", text))
    for step in told:
        for result in step:
            result.pop("url", None)
    return told


def images(events):
    """Those that a page is given to show."""
    shown = [json.loads(data["output"]).get("_html") for event, data in events if event == "tool_result"]
    return [re.match(r'<img src="(/-/agent/sprite-file/[0-9a-f]+)" alt="([^"]*)"', image).groups() for image in shown if image]
