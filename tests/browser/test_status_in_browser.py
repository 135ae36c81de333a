"""The status page as a person sees it: on a phone, in the dark, by keyboard, while things happen. Screenshots: build/screenshots."""
import concurrent.futures
import decimal
import json
import os

import pytest

from browser import ENTER, TAB, Browser
from processes import running
from rig import free_port, until

ADMIN_TOKEN = "an-admin-token-of-the-tests-32/~+="
SCREENS = {"phone": (360, 740), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def browser(stack):
    browser = Browser()
    yield browser
    browser.stop()


@pytest.fixture(scope="module")
def gateway(shared_rig):
    gateway = shared_rig.gateway(emulator=shared_rig.emulator(), pool_hot=2, admin_token=ADMIN_TOKEN, token={"budget": "600s/day"})
    gateway.until_ready()
    for code in (0, 3):
        gateway.run(f"exit {code}")
    gateway.exec(command="true", env={"A": 1})
    return gateway


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def page(browser, gateway):
    browser.console()
    browser.look(*SCREENS["desktop"], "light")
    browser.open(gateway.admin + "/")
    browser.until_text("#link", "live")
    yield browser
    assert browser.console() == []


def begin(gateway, executor, mark):
    answer = executor.submit(gateway.exec, command=f"sleep {mark}", timeout_seconds=200)
    until(lambda: running(mark), "the command runs")
    return answer


def command_shown(page):
    return until(lambda: page.run("return document.querySelector('#running tr')?.dataset.key"), "the command is shown")


def contrast(page, selector):
    """Of the text to what is behind it (WCAG 2.2, relative luminance)."""
    return page.run("""
        const parts = text => text.match(/[\\d.]+/g).map(Number);
        const light = text => parts(text).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const node = document.querySelector(arguments[0]);
        let behind = node;
        while ((parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
        const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(behind).backgroundColor)];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)""", selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_it_can_be_read(page, gateway, executor, screen, scheme):
    pending = begin(gateway, executor, f"31360.{os.getpid()}")
    page.look(*SCREENS[screen], scheme)
    command_shown(page)
    page.shoot(f"status-{screen}-{scheme}")
    wide = page.run("return [...document.querySelectorAll('body, section')].map(e => e.getBoundingClientRect().right - innerWidth)")
    assert max(wide) <= 0 and page.run("return document.documentElement.scrollWidth <= innerWidth"), "it has to be moved sideways"
    for selector in ("h1", "h2", "#since", "#redis", "#states td", "#running td", "#running button", "th", "#token"):
        assert contrast(page, selector) >= 4.5, f"{selector} in {scheme}"
    behind = page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(behind) < 384) is (scheme == "dark"), behind
    assert gateway.admin_http.delete(f"/status/commands/{command_shown(page)}", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).status_code == 202
    pending.result()


def test_what_it_says(page, gateway):
    page.until_text("#instance", gateway.instance)
    assert [page.text(f"#{name}") for name in ("gateway", "redis", "datasette", "sprites")] == ["serving", "up", "up", "creating is possible"]
    assert page.run("return document.querySelectorAll('#charts svg polyline').length") == 5
    page.until_text("#recent", "exited 3")
    page.until_text("#refusals", "invalid request")
    page.until_text("#budgets", gateway.kid)
    assert page.run("return document.querySelector('#budgets meter').max") == 600


def told(gateway):
    """What the page is told next."""
    with gateway.admin_http.stream("GET", "/status/events") as answer:
        return next(json.loads(line.removeprefix("data:")) for line in answer.iter_lines() if line)


def counts(state):
    return {tier["tier"]: tier["count"] for tier in state["tiers"]}


def test_what_it_says_of_tiers(page, gateway):
    """As many a minute as commands were run, in the window that the page names."""
    before = counts(told(gateway))
    ran = [gateway.run("true").sandbox["tier"] for _ in range(4)]

    def rows():
        return page.run("return [...document.querySelectorAll('#tiers tr')].map(row => [...row.cells].map(cell => cell.innerText))")

    def a_minute(state):
        minutes = max(state["window_s"], 5) / 60
        return {tier: str(decimal.Decimal(count / minutes).quantize(decimal.Decimal("0.1"), decimal.ROUND_HALF_UP)) for tier, count in counts(state).items()}

    def shown():
        state, table = told(gateway), rows()
        # In a window of a minute a count that is not divided would be right, too.
        return abs(state["window_s"] - 60) > 5 and {row[0]: row[1] for row in table} == a_minute(state) and (state, table)

    state, table = until(shown, lambda: f"the page says {rows()}, it was told {a_minute(told(gateway))}")
    # What was run before leaves the window in the end.
    assert all(ran.count(tier) <= count <= before[tier] + ran.count(tier) for tier, count in counts(state).items()), (state, ran)
    assert [row[0] for row in table] == list(before)
    for tier, _, half, most in table:
        assert half.startswith("≤ ") is most.startswith("≤ ") is bool(counts(state)[tier]), table


def test_it_goes_on_by_itself(page, gateway):
    ran = gateway.run("exit 7")
    page.until_text("#recent tr", "exited 7")
    page.until_text("#recent tr", ran.exec_id)


def test_cancelling_by_keyboard(page, gateway, executor):
    pending = begin(gateway, executor, f"31361.{os.getpid()}")
    exec_id = command_shown(page)
    button = f"Cancel {exec_id}"
    reached = []
    while page.focused() != button:
        page.press(TAB)
        reached.append(page.focused())
        assert len(reached) < 30, f"Tab does not lead to the button: {reached}"
    assert "token" in reached
    page.press(ENTER)
    page.until_text("#said", "Give the admin token first.")
    assert page.focused() == "token"
    page.press("wrong" + TAB)
    assert page.focused() == button
    page.press(ENTER)
    page.until_text("#said", "This is not the admin token.")
    page.run("document.querySelector('#token').value = ''; document.querySelector('#token').focus()")
    page.press(ADMIN_TOKEN + TAB)
    moments = page.text("#running")
    until(lambda: page.text("#running") != moments, "the page has been told something new")
    assert page.focused() == button, "what is new took the focus away"
    page.press(ENTER)
    page.until_text("#said", f"{exec_id} is being canceled.")
    assert pending.result().json()["outcome"] == "canceled"
    page.until_text("#recent tr", "canceled")
    until(lambda: not page.text("#running"), "it runs no more")
    # The browser itself tells of the refusal.
    assert [entry for entry in page.console() if "401" not in entry] == []


def test_it_comes_back_after_a_restart(browser, rig):
    settings = {"token": False, "listen": f"127.0.0.1:{free_port()}", "admin_listen": f"127.0.0.1:{free_port()}"}
    gateway = rig.gateway(**settings)
    browser.open(gateway.admin + "/status")
    browser.until_text("#link", "live")
    gateway.stop_at_once()
    browser.until_text("#link", "not connected")
    gateway = rig.gateway(**settings)
    browser.until_text("#link", "live")
    browser.until_text("#instance", gateway.instance)
    browser.console()


def test_nothing_else_is_fetched(page, gateway):
    fetched = page.run("return JSON.stringify(performance.getEntriesByType('resource').map(entry => entry.name))")
    assert set(json.loads(fetched)) <= {f"{gateway.admin}/status/events"}, fetched
