"""The manager's page in a headless Chromium, over real servers: what people do there, and what they must never see.

Run by `make page`. With SHOTS=DIR it leaves screenshots there.

  LARDER_REDIS_SERVER  the server binary
  LARDER_PROGRAM       the program `larder`
  LARDER_LOAD          the example `load`
  CHROMIUM             the browser; else chromium or google-chrome on PATH
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

SERVER = os.environ["LARDER_REDIS_SERVER"]
PROGRAM = os.environ["LARDER_PROGRAM"]
LOAD = os.environ["LARDER_LOAD"]
SHOTS = os.environ.get("SHOTS")
TOKEN = "a-token-of-thirty-two-characters"
PATIENCE = 20

SETTINGS = """
drain_pause = 0.5
rate = 1000
[health]
interval = 0.3
retry = 0.1
timeout = 0.5
remove_after = 0.6
successes = 3
hold = 0.5
pause = 0.1
"""


def free_port():
    """Below the ports that systems give to outgoing connections."""
    while True:
        port = random.randint(10000, 29999)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


class Redis:
    """A server of this test, ended by its process id."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.start()

    def start(self):
        arguments = [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        arguments += ["--dir", self.directory, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lfu"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        until("a server answers", lambda: self.answers())

    def answers(self):
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def ask(self, *words, db=0):
        """One command, whose answer is text, a number or nothing."""
        def spoken(words):
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            return f"*{len(words)}\r\n{''.join(parts)}".encode()

        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as stream:
            stream.sendall(spoken(["SELECT", str(db)]) + spoken(words))
            answer = stream.makefile("rb")
            answer.readline()
            line = answer.readline().decode().rstrip("\r\n")
            if line.startswith("$"):
                length = int(line[1:])
                return None if length < 0 else answer.read(length).decode(errors="replace")
            return line[1:]

    def url(self, db=0):
        return f"redis://127.0.0.1:{self.port}/{db}"

    def name(self):
        return f"127.0.0.1:{self.port}/0"

    def kill(self):
        self.process.kill()
        self.process.wait()


class Manager:
    def __init__(self, directory, redis, token=None):
        self.port = free_port()
        settings = Path(directory, "manager.toml")
        settings.write_text(SETTINGS)
        arguments = [PROGRAM, "manager", "--listen", f"127.0.0.1:{self.port}", "--redis", redis.url(13)]
        arguments += ["--config", str(settings)]
        if token:
            file = Path(directory, "token")
            file.write_text(token)
            arguments += ["--token-file", str(file)]
        log = open(Path(directory, f"manager-{self.port}.log"), "w")
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=log)
        until("the manager answers", self.answers)

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False

    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0, "the manager ended badly"


class Watched:
    """A page of which everything is noted that it must not do."""

    def __init__(self, browser, url, **settings):
        self.url = url
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.odd = []
        self.page.on("request", lambda request: self.foreign(request.url))
        self.page.on("pageerror", lambda error: self.odd.append(f"error: {error}"))
        self.page.on("console", lambda said: self.console(said))
        self.page.on("dialog", lambda dialog: (self.odd.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.goto(url)

    def foreign(self, url):
        if not url.startswith(self.url):
            self.odd.append(f"asked elsewhere: {url}")

    def console(self, said):
        # A token that is not taken, and a node that is refused, are answered so.
        expected = re.search(r"status of (401|400|404|502)", said.text)
        if said.type in ("error", "warning") and not expected:
            self.odd.append(f"{said.type}: {said.text}")

    def close(self):
        self.context.close()
        assert not self.odd, "\n".join(self.odd)


def accessible(page, where):
    """No violation that axe-core finds."""
    results = Axe().run(page)
    assert results.violations_count == 0, f"{where}:\n{results.generate_report()}"
    print(f"  axe-core: no violations, {where}")


def row(page, name):
    return page.locator("#nodes tr").filter(has=page.locator(".mono", has_text=re.compile(f"^{re.escape(name)}$")))


def is_state(page, name, state):
    expect(row(page, name).locator(".pill")).to_have_text(re.compile(state), timeout=PATIENCE * 1000)


def go_on(page, name):
    """Twice at once is meant once: a person takes a moment."""
    page.get_by_role("button", name=name).wait_for()
    page.wait_for_timeout(500)
    page.get_by_role("button", name=name).click()


def add(page, node):
    page.get_by_role("button", name="Add a node").click()
    page.get_by_label("Address").fill(node.url())
    page.get_by_role("button", name="What moves?").click()
    expect(page.locator("#add-moves")).to_contain_text("%")
    go_on(page, "Add it")
    expect(page.locator("#add-dialog")).not_to_be_visible()
    expect(page.locator("#said")).to_contain_text("was added")


def shares(page):
    return [float(text.split()[0]) for text in page.locator("#nodes td[data-name=Share] > span:first-child").all_inner_texts()]


def nodes_come(page, nodes, seen):
    """Three are added, each with a look at what moves before."""
    expect(page.locator("#none")).to_be_visible()
    for node in nodes:
        add(page, node)
        is_state(page, node.name(), "Up")
    until("each has a third", lambda: len(shares(page)) == 3 and all(abs(share - 100 / 3) < 2 for share in shares(page)))
    expect(page.locator("#dial")).to_have_attribute("aria-label", re.compile(re.escape(nodes[2].name())))
    seen("three nodes were added, each has a third")


def key_is_found(page, manager_redis, nodes, seen):
    """A key is looked up, and lies there."""
    written = [PROGRAM, "set", "user:42", "marmalade", "--redis", manager_redis.url(13)]
    subprocess.run(written, check=True, timeout=PATIENCE)
    page.get_by_label("Where is a key?").fill("user:42")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#found strong")).to_be_visible()
    name = page.locator("#found strong").inner_text()
    holder = next(node for node in nodes if node.name() == name)
    assert holder.ask("GET", "user:42") == "marmalade"
    assert all(node.ask("GET", "user:42") is None for node in nodes if node is not holder)
    seen(f"user:42 lies where the page says: {name}")


def node_dies(page, nodes, seen):
    """One is killed, goes, and comes back."""
    victim = nodes[0]
    victim.kill()
    is_state(page, victim.name(), "Off the ring")
    until("its part is elsewhere", lambda: sorted(shares(page))[0] == 0)
    expect(page.locator("#events")).to_contain_text("was taken off the ring")
    row(page, victim.name()).get_by_role("button", name="History").click()
    assert page.locator("#of").input_value() == victim.name()
    victim.start()
    is_state(page, victim.name(), "Up")
    expect(page.locator("#events")).to_contain_text("is back on the ring")
    page.locator("#of").select_option("")
    seen("a node that was killed went, and came back")


def node_is_drained(page, nodes, seen):
    """One is drained in steps, and put back."""
    name = nodes[1].name()
    row(page, name).get_by_role("button", name="Drain").click()
    expect(page.locator("#do-moves")).to_contain_text("%")
    page.get_by_label("In how many steps?").fill("3")
    page.get_by_role("button", name="Drain it").click()
    is_state(page, name, "Draining")
    is_state(page, name, "Drained")
    row(page, name).get_by_role("button", name="Put back").click()
    expect(page.locator("#do-moves")).to_contain_text("%")
    page.get_by_role("button", name="Put it back").click()
    is_state(page, name, "Up")
    page.get_by_role("button", name="Check all").click()
    expect(page.locator("#said")).to_contain_text("All 3 nodes are well")
    seen("a node was drained in steps, and put back")


def what_is_wrong_is_said(page, nodes, seen):
    """An address that nobody answers at, and one that is none."""
    page.get_by_role("button", name="Add a node").click()
    for address, words in [("redis://127.0.0.1:1/0", "refused"), ("http://example.org", "url")]:
        page.get_by_label("Address").fill(address)
        page.wait_for_timeout(500)
        page.locator("#add-go").click()
        if words == "refused":
            go_on(page, "Add it")
        expect(page.locator("#add-wrong")).to_contain_text(re.compile(words, re.IGNORECASE))
    page.keyboard.press("Escape")
    expect(page.locator("#add-dialog")).not_to_be_visible()
    seen("what is wrong with an address is said")


def last_node_stays(page, node, seen):
    """The last one goes only if that is meant."""
    row(page, node.name()).get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove it").click()
    expect(page.locator("#do-wrong")).to_contain_text("last node")
    page.get_by_label("It is the last one").check()
    page.get_by_role("button", name="Remove it").click()
    expect(page.locator("#none")).to_be_visible()
    seen("the last node was removed, when that was said")


def by_keyboard(page, seen):
    """Everything is reached without a mouse."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the nodes"
    page.keyboard.press("Enter")
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        names.append(name.strip().split("\n")[0])
    for wanted in ("Check all", "Add a node", "History ", "Drain ", "Remove "):
        assert any(name.startswith(wanted) for name in names), f"{wanted} is not reached: {names}"
    page.get_by_role("button", name="Add a node").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "url"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "add", "focus comes back"
    seen("all is reached by keyboard")


def markup_is_text(page, manager_redis, seen):
    """Nodes whose names are markup, written by somebody else."""
    page.get_by_label("Where is a key?").fill("<img src=x onerror=alert(2)>")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#found")).to_contain_text("<img src=x onerror=alert(2)>")
    for markup in ("redis://<img src=x onerror=alert(1)>:6379/0", "redis://<b>bold</b>:1/0"):
        manager_redis.ask("HSET", "HASH_RING_MAP", "4294967294", markup, db=13)
        is_state(page, "?", "Off the ring")
        assert page.locator("#main img, #main b").count() == 0, "a name became markup"
        row(page, "?").get_by_role("button", name="Remove").click()
        expect(page.locator("#do-moves")).to_contain_text("No keys move")
        page.get_by_role("button", name="Remove it").click()
        expect(page.locator("#nodes tr")).to_have_count(3)
    seen("names with markup are text")


def token_is_asked_for(browser, directory, manager_redis, seen):
    """A wrong token, the right one, and that it is kept nowhere."""
    manager = Manager(directory, manager_redis, TOKEN)
    watched = Watched(browser, manager.url())
    page = watched.page
    expect(page.locator("#token-dialog")).to_be_visible()
    accessible(page, "asking for the token")
    page.get_by_label("Token", exact=True).fill("x" * 32)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#token-wrong")).to_have_text("That is not the token.")
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#nodes tr")).to_have_count(3)
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie].join()")
    assert kept == "0,0,", kept
    page.reload()
    expect(page.locator("#token-dialog")).to_be_visible()
    watched.close()
    manager.end()
    seen("a token is asked for, and kept nowhere")


def shot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS, f"{name}.png")), full_page=True)


def looks(browser, manager, seen):
    """At two widths, in light and dark."""
    for width, height in ((1440, 900), (390, 844)):
        for scheme in ("light", "dark"):
            watched = Watched(
                browser, manager.url(), viewport={"width": width, "height": height}, color_scheme=scheme,
                device_scale_factor=2 if width < 500 else 1, has_touch=width < 500, reduced_motion="reduce",
            )
            page = watched.page
            expect(page.locator("#link")).to_have_text("live")
            page.get_by_label("Where is a key?").fill("user:42")
            page.get_by_role("button", name="Find").click()
            expect(page.locator("#found strong")).to_be_visible()
            # Long enough for lines to be drawn.
            until("there is something to draw", lambda: (page.locator("#all-commands-line path").get_attribute("d", timeout=5000) or "").count("L") >= (40 if SHOTS else 8))
            page.evaluate("document.activeElement.blur()")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} pixels are shown on {width}"
            accessible(page, f"{width} pixels, {scheme}")
            shot(page, f"page-{width}-{scheme}")
            if width > 500:
                page.get_by_role("button", name="Add a node").click()
                accessible(page, f"adding a node, {scheme}")
                page.keyboard.press("Escape")
                page.locator("#nodes tr").first.get_by_role("button", name="Drain").click()
                expect(page.locator("#do-moves")).to_contain_text("%")
                accessible(page, f"draining a node, {scheme}")
            watched.close()
    seen("no violations at 1440 and 390 pixels, light and dark")


def main():
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not browser_path:
        sys.exit("no Chromium: apt-get install chromium, or say where it is in CHROMIUM")
    began = time.monotonic()
    steps = []

    def seen(what):
        steps.append(what)
        print(f"ok {len(steps)}: {what}")

    with tempfile.TemporaryDirectory(prefix="larder-page-") as directory, sync_playwright() as playwright:
        ended = []
        try:
            servers = []
            for _ in range(4):
                servers.append(Redis(directory))
                ended.append(servers[-1].kill)
            manager_redis, nodes = servers[0], servers[1:]
            manager = Manager(directory, manager_redis)
            ended.append(manager.process.kill)
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            print(f"Chromium {browser.version}")
            watched = Watched(browser, manager.url(), viewport={"width": 1280, "height": 900})
            page = watched.page
            nodes_come(page, nodes, seen)
            load = subprocess.Popen([LOAD, manager_redis.url(13)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            ended.append(load.kill)
            key_is_found(page, manager_redis, nodes, seen)
            node_dies(page, nodes, seen)
            node_is_drained(page, nodes, seen)
            what_is_wrong_is_said(page, nodes, seen)
            page.reload()
            expect(page.locator("#nodes tr")).to_have_count(3)
            by_keyboard(page, seen)
            looks(browser, manager, seen)
            markup_is_text(page, manager_redis, seen)
            watched.close()
            token_is_asked_for(browser, directory, manager_redis, seen)
            load.kill()
            watched = Watched(browser, manager.url())
            for node in nodes[:2]:
                subprocess.run([PROGRAM, "node", "remove", node.name(), "--redis", manager_redis.url(13)], check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
            expect(watched.page.locator("#nodes tr")).to_have_count(1)
            last_node_stays(watched.page, nodes[2], seen)
            watched.close()
            browser.close()
            manager.end()
        finally:
            for end in reversed(ended):
                end()
    print(f"page: {len(steps)} passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
