"""A headless Chromium, driven through WebDriver (W3C) as chromedriver speaks it."""
import base64

import rig as rigs
from rig import TOP, free_port, until

SHOTS = TOP / "build" / "screenshots"
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--no-first-run")
ENTER, TAB = "\ue007", "\ue004"


class Browser(rigs.Part):
    def __init__(self):
        port = free_port()
        super().__init__("chromedriver", ["chromedriver", f"--port={port}", "--log-level=WARNING"])
        self.http = rigs.client(base_url=f"http://127.0.0.1:{port}")
        self.session = ""
        self.until_up(self.answers)
        capabilities = {"browserName": "chrome", "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": list(OPTIONS)},
                        "goog:loggingPrefs": {"browser": "INFO"}}
        self.session = "/session/" + self.ask("POST", "/session", capabilities={"alwaysMatch": capabilities})["sessionId"]

    def answers(self):
        try:
            return self.ask("GET", "/status")["ready"]
        except rigs.httpx.TransportError:
            return False

    def ask(self, method, path, **body):
        answer = self.http.request(method, self.session + path, **({"json": body} if method == "POST" else {}))
        assert answer.status_code == 200, f"{method} {path}: {answer.text[:1000]}"
        return answer.json()["value"]

    def stop(self):
        if self.session:
            self.ask("DELETE", "")
        super().stop()

    def open(self, url):
        self.ask("POST", "/url", url=url)

    def run(self, script, *args):
        """What the script returns."""
        return self.ask("POST", "/execute/sync", script=script, args=list(args))

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? null", selector)

    def until_text(self, selector, wanted):
        until(lambda: wanted in (self.text(selector) or ""), lambda: f"{selector} says {wanted!r}; it says {self.text(selector)!r}", 30)

    def press(self, keys):
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": pressed}])

    def focused(self):
        return self.run("const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.tagName")

    def look(self, width, height, scheme):
        """Like a screen of that size, light or dark."""
        for cmd, params in (("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
                            ("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})):
            self.ask("POST", "/goog/cdp/execute", cmd=cmd, params=params)

    def shoot(self, name):
        shot = self.ask("POST", "/goog/cdp/execute", cmd="Page.captureScreenshot", params={"captureBeyondViewport": True})
        SHOTS.mkdir(parents=True, exist_ok=True)
        (SHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def console(self):
        """What it has said since the last time."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.ask("POST", "/se/log", type="browser")]
