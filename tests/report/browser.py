#!/usr/bin/env python3
"""Opens a report in Chromium, headless, and checks what a reader would meet: no console errors, tables and drawings with the
run's numbers, nothing that scrolls the page sideways at 400 px, everything reachable by the keyboard, light and dark.

    tests/report/browser.py RUN [--keep DIR] [--program SECATEUR]

RUN has report.html and summary.json; DIR gets the screenshots. With SECATEUR the page of a copy of the run that goes on is served, too,
and must follow it without being loaded again, keep what the reader opened, and be readable without its script.

Exit code 0 if all holds, 1 if not, 77 without Chromium. Speaks the DevTools protocol over pipes; the standard library is enough."""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWER_S = 60


class Browser:
    """A page in Chromium, which is told what to do by messages of the DevTools protocol that end in a zero byte."""

    def __init__(self, program, profile):
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()

        def descriptors():
            # The browser reads 3 and writes 4; neither may be closed by the other's move.
            read, write = os.dup2(to_browser, 200), os.dup2(from_browser, 201)
            os.dup2(read, 3)
            os.dup2(write, 4)

        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
                     f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen([program, *arguments], preexec_fn=descriptors, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.out, self.into, self.rest, self.last_id, self.events = from_us, to_us, b"", 0, []
        # A browser that answers nothing must not hold up everything behind it.
        self.watch = threading.Timer(5 * ANSWER_S, self.process.kill)
        self.watch.daemon = True
        self.watch.start()
        targets = self.ask("Target.getTargets", session=None)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.ask("Target.attachToTarget", {"targetId": page, "flatten": True}, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            part = os.read(self.into, 1 << 20)
            if not part:
                raise SystemExit("FAILED: the browser went away")
            self.rest += part
        whole, self.rest = self.rest.split(b"\0", 1)
        return json.loads(whole)

    def ask(self, method, parameters=None, session=""):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise SystemExit(f"FAILED: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url, width, height, scheme):
        self.ask("Emulation.setDeviceMetricsOverride",
                 {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.ask("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.events.clear()
        self.ask("Page.navigate", {"url": url})
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def value(self, expression):
        result = self.ask("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        if "exceptionDetails" in result:
            raise SystemExit(f"FAILED: {expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def press_tab(self):
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", {"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9})

    def screenshot(self):
        return base64.b64decode(self.ask("Page.captureScreenshot", {"format": "png"})["data"])

    def close(self):
        with contextlib.suppress(OSError):
            os.write(self.out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.watch.cancel()


def bytes_of_rows(png):
    """The unpacked rows of a PNG, each behind the number of its filter; enough to tell an empty picture from a drawn one."""
    at, packed = 8, b""
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at:at + 4]), png[at + 4:at + 8]
        packed += png[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return zlib.decompress(packed)


def check(browser, run, keep):
    summary = json.loads((run / "summary.json").read_text())
    url = (run / "report.html").resolve().as_uri()
    failures = []

    def must(holds, what):
        if not holds:
            failures.append(what)

    papers = {}
    for width, height, scheme in ((1280, 1600, "light"), (1280, 1600, "dark"), (400, 900, "light"), (400, 900, "dark")):
        at = f"{width} px, {scheme}"
        browser.open(url, width, height, scheme)
        for event in browser.events:
            method, parameters = event.get("method"), event.get("params", {})
            must(method != "Runtime.exceptionThrown", f"{at}: exception {parameters}")
            must(method != "Runtime.consoleAPICalled", f"{at}: console {parameters}")
            must(method != "Log.entryAdded" or parameters["entry"]["level"] != "error", f"{at}: log {parameters}")
            wanted = parameters.get("request", {}).get("url", url)
            must(method != "Network.requestWillBeSent" or wanted.startswith(("file:", "data:")), f"{at}: fetches {wanted}")
        wide = browser.value("document.scrollingElement.scrollWidth")
        must(wide <= width, f"{at}: the page is {wide} px wide")
        text = browser.value("document.body.innerText").replace("\u00a0", " ")
        for task in summary["tasks"]:
            must(task["name"] in text, f"{at}: task {task['name']} is not shown")
            must(f"{task['macs']:,}" in text, f"{at}: the MACs of {task['name']} are not shown")
            for key in ("test_accuracy_original", "test_accuracy_before_tuning", "test_accuracy_after_tuning"):
                share = task.get(key)
                must(share is None or f"{100 * share:.2f} %" in text, f"{at}: {key} of {task['name']} is not shown")
        drawn = browser.value(
            "[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().height > 50 "
            "&& svg.querySelectorAll('path.line, .mark, rect.cell').length > 0).length")
        all_drawings = browser.value("document.querySelectorAll('svg').length")
        must(drawn == all_drawings and drawn >= 5, f"{at}: {drawn} of {all_drawings} drawings are drawn")
        tables = browser.value("[...document.querySelectorAll('table')].filter(table => table.rows.length > 1).length")
        must(tables >= 4, f"{at}: {tables} tables")
        hidden = browser.value(
            "[...document.querySelectorAll('section p, section li, section h2')].filter(e => e.offsetParent && "
            "(e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)).length")
        must(hidden == 0, f"{at}: {hidden} texts stand beside the page")
        papers[scheme] = browser.value("getComputedStyle(document.body).backgroundColor")
        png = browser.screenshot()
        rows = bytes_of_rows(png)
        must(len(set(rows)) > 32, f"{at}: the screenshot has {len(set(rows))} values")
        if keep:
            (keep / f"{width}-{scheme}.png").write_bytes(png)
    must(papers["light"] != papers["dark"], f"light and dark have the same paper: {papers}")

    # By keyboard: the first stop leads to the content, and every link and scrolled part is a stop.
    browser.open(url, 1280, 1600, "light")
    stops = browser.value("document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    met = []
    for _ in range(min(stops, 40)):
        browser.press_tab()
        met.append(browser.value("document.activeElement.textContent.trim().slice(0, 40)"))
    must(met[0] == "Skip to the content", f"the first stop of the keyboard is '{met[0]}'")
    must(len(set(met)) > 8, f"the keyboard meets {met}")
    return failures


def check_served(browser, run, program, keep):
    """The page of a run whose second half is written while it is served."""
    failures = []

    def must(holds, what):
        if not holds:
            failures.append(f"served: {what}")

    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "goes on"
        shutil.copytree(run, copy)
        (copy / "summary.json").unlink()
        (copy / ".lock").write_text("1\n")
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        candidates = [at for at, line in enumerate(lines) if '"candidate"' in line]
        half = candidates[len(candidates) // 2]
        (copy / "metrics.jsonl").write_text("".join(lines[:half]))
        served = subprocess.Popen([program, "report", copy, "--serve", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = served.stdout.readline().strip()
            browser.open(url, 1280, 1600, "light")
            counted = lambda: browser.value("document.querySelector('#take-away caption').textContent")
            before = counted()
            must(f"{len(candidates) // 2:,} walk" in before, f"the table says: {before}")
            browser.value("document.querySelector('#environment').dataset.kept = 'yes'; window.loaded = 1; 1")
            # What the reader opened in a section that changes stays open.
            browser.value("document.querySelector('#search details').open = true; 1")
            rest = "".join(lines[half:])
            with (copy / "metrics.jsonl").open("a") as metrics:
                metrics.write(rest)
            expected, until = f"{len(candidates):,} walk", time.monotonic() + 60
            while expected not in counted() and time.monotonic() < until:
                time.sleep(0.2)
            must(expected in counted(), f"the table still says: {counted()}")
            must(browser.value("window.loaded") == 1, "the page was loaded again")
            must(browser.value("document.querySelector('#search details').open"), "what was opened is closed again")
            must(browser.value("document.querySelector('#environment').dataset.kept") == "yes", "what did not change was replaced")
            must("Live" in browser.value("document.querySelector('.live').textContent"), "it does not say that it is live")
            must(browser.value("document.scrollingElement.scrollWidth") <= 1280, "it is too wide")
            if keep:
                (keep / "served.png").write_bytes(browser.screenshot())
            # Its end: the results come, and the looking ends.
            shutil.copy(run / "summary.json", copy / "summary.json")
            (copy / ".lock").unlink()
            until = time.monotonic() + 60
            while browser.value("Boolean(document.querySelector('.live'))") and time.monotonic() < until:
                time.sleep(0.2)
            must(not browser.value("Boolean(document.querySelector('.live'))"), "it still looks for what is new")
            must(browser.value("document.querySelectorAll('.card').length") > 0, "the results did not come")
            for event in browser.events:
                method, parameters = event.get("method"), event.get("params", {})
                must(method != "Runtime.exceptionThrown", f"exception {parameters}")
                must(method != "Runtime.consoleAPICalled", f"console {parameters}")
                must(method != "Log.entryAdded" or parameters["entry"]["level"] != "error", f"log {parameters}")
                wanted = parameters.get("request", {}).get("url", url)
                must(method != "Network.requestWillBeSent" or wanted.startswith((url, "data:")), f"fetches {wanted}")
            # Without scripts it is there, and is loaded again by itself.
            (copy / "summary.json").unlink()
            (copy / ".lock").write_text("1\n")
            browser.ask("Emulation.setScriptExecutionDisabled", {"value": True})
            # The page of just now is served for a moment, so that readers cannot keep the processor from the run.
            until = time.monotonic() + 60
            browser.open(url, 1280, 1600, "light")
            while expected not in (counted() or "") and time.monotonic() < until:
                time.sleep(0.5)
                browser.open(url, 1280, 1600, "light")
            must(expected in (counted() or ""), f"without scripts the table says: {counted()}")
            browser.ask("Emulation.setScriptExecutionDisabled", {"value": False})
        finally:
            served.kill()
            served.wait()
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--program", type=pathlib.Path, help="the program, to serve the page of a run that goes on")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the screenshots")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print("SKIPPED: no Chromium, so no report was opened in a browser", file=sys.stderr)
        return 77
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, profile)
        try:
            failures = check(browser, arguments.run, arguments.keep)
            if arguments.program:
                failures += check_served(browser, arguments.run, arguments.program.resolve(), arguments.keep)
        finally:
            browser.close()
    for failure in failures:
        print(f"FAILED: {failure}")
    if not failures:
        print(f"the report of '{arguments.run}' opens in {program}: light, dark, 400 px, by keyboard")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
