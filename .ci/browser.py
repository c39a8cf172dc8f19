"""The explorer, tried as a person would, and every page with commands planted in its texts: a real Chromium, a real mouse, runs of seconds. Screenshots go to `_runs/browser`."""
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pages

ROOT = Path(__file__).resolve().parents[1]
BIN, SHOTS, TUTORIAL = Path(sys.executable).parent, ROOT / "_runs" / "browser", "tutorials/10_explore_the_map.ipynb"
ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(*command, **env):
    "Start a server that listens on a free port of this machine, which is put for PORT; its address."
    port = free_port()
    p = subprocess.Popen([str(c).replace("PORT", str(port)) for c in command], env=os.environ | {"OMP_NUM_THREADS": "1"} | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1): break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/"
    finally:
        p.terminate()
        p.wait(20)


def served(run):
    "The explorer's page for a run folder."
    return serving(BIN / "voila", ROOT / "nbs/apps/explorer.ipynb", "--template", "ehrseq", "--no-browser", "--port", "PORT", "--Voila.ip=127.0.0.1",
                   EHRSEQ_RUN=str(run), EHRSEQ_MAP=os.getenv("EHRSEQ_MAP", "pca"), JUPYTER_PATH=str(ROOT / "nbs/apps/jupyter"))


def laboratory(run):
    "JupyterLab beside a copy of a tutorial, which trains runs of its own: short ones."
    folder = Path(tempfile.mkdtemp())
    for part in (TUTORIAL, "apps/explorer.png"):
        (folder / part).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "nbs" / part, folder / part)
    return serving(BIN / "jupyter", "lab", "--no-browser", "--allow-root", "--port=PORT", "--ip=127.0.0.1", "--ServerApp.token=", "--ServerApp.password=", f"--notebook-dir={folder}", IN_TEST="1")


class Visitor:
    "A page, with what it asked for and what went wrong on it."
    def __init__(self, browser, address, home=None):
        self.page, self.asked, self.wrong, self.address = browser.new_page(viewport={"width": 1400, "height": 1100}), [], [], home or address
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.set_default_timeout(60_000)
        self.page.goto(address, wait_until="domcontentloaded")

    @property
    def outside(self): return [u for u in self.asked if not u.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:"))]
    def said(self): return self.page.locator(".ehrseq [aria-live=polite]").inner_text()
    def until(self, what, seconds=30):
        "Wait until `what()` is true; the seconds it took."
        start = time.perf_counter()
        while not what():
            if time.perf_counter() - start > seconds: raise AssertionError(f"not seen within {seconds} s")
            time.sleep(0.02)
        return time.perf_counter() - start
    def figure(self, n): return self.page.locator(".ehrseq .js-plotly-plot").nth(n)
    def title(self, n): return self.figure(n).locator(".gtitle").first.text_content()
    def on_map(self, i, n=0):
        "Where patient i of the map (the n-th figure) is on the screen."
        return self.page.evaluate("""([i, n]) => { const g = document.querySelectorAll('.ehrseq .js-plotly-plot')[n], b = g.getBoundingClientRect(), l = g._fullLayout, t = g._fullData[0];
            return [b.left + l.xaxis._offset + l.xaxis.d2p(t.x[i]), b.top + l.yaxis._offset + l.yaxis.d2p(t.y[i])] }""", [i, n])
    def click(self, n, said):
        "Click a point of the n-th figure: one of several, for a point may lie under another."
        for i in (11, 40, 77, 100):
            self.figure(n).scroll_into_view_if_needed()
            x, y = self.on_map(i, n)
            self.page.mouse.move(x, y); time.sleep(0.3); self.page.mouse.click(x, y)
            with contextlib.suppress(AssertionError): return self.until(lambda: self.said() != said, 4)
    def star(self, n=0): return self.page.evaluate("n => Array.from(document.querySelectorAll('.ehrseq .js-plotly-plot')[n]._fullData[2].x)", n)
    def shoot(self, name): self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    def tab(self, name): self.page.locator(".lm-TabBar-tab", has_text=name).click()


def a_run():
    import ehrseq
    cohort = ehrseq.tokenize(ehrseq.read("sample", progress=False))
    return ehrseq.pretrain(cohort, Path(tempfile.mkdtemp()) / "run", encoder="behrt", objective="mlm", tier="small", epochs=0.3, progress=False).folder


def visits(browser, address):
    "What a person does; each step is a name and what was seen (seconds, where it is a wait)."
    v = Visitor(browser, address)
    start = time.perf_counter()
    v.page.wait_for_selector(".js-plotly-plot .gtitle")
    v.until(lambda: v.page.locator(".js-plotly-plot .gtitle").count() >= 2 and "Patient" in v.said())
    yield "the page is drawn", time.perf_counter() - start
    v.shoot("page")

    said, title, star = v.said(), v.title(1), v.star()
    v.page.locator("select[multiple], .widget-select select[size]").first.select_option(index=2)
    yield "a neighbour, chosen: the sentence follows", v.until(lambda: v.said() != said)
    yield "… the timeline", v.until(lambda: v.title(1) != title)
    yield "… the map", v.until(lambda: v.star() != star)

    said, title = v.said(), v.title(1)
    v.click(0, said)
    yield "a point, clicked: sentence and timeline follow", v.until(lambda: v.said() != said and v.title(1) != title)

    box = v.figure(0).locator(".nsewdrag").first.bounding_box()
    corner = lambda a, b: (box["x"] + a * box["width"], box["y"] + b * box["height"])
    v.page.mouse.move(*corner(0.05, 0.05)); v.page.mouse.down()
    for a, b in ((0.55, 0.05), (0.55, 0.95), (0.05, 0.95), (0.05, 0.05)): v.page.mouse.move(*corner(a, b), steps=8)
    v.page.mouse.up()
    yield "a lasso: the group is described", v.until(lambda: "Group:" in v.said())
    yield "… its tab opens, with codes", v.until(lambda: v.page.get_by_text("codes as CSV").count() == 1 and v.page.locator(".js-plotly-plot").count() >= 4)
    v.shoot("group")
    v.page.get_by_role("button", name="everybody").click()
    yield "everybody: the group is gone", v.until(lambda: "Group:" not in v.said())

    v.tab("what if")
    v.page.get_by_role("button", name="without this code").click()
    yield "a code taken away: encoded again, and shown", v.until(lambda: "Edited" in v.said())
    yield "… the timeline says so", v.until(lambda: "edited" in v.title(1))
    yield "… the map shows where it went", v.until(lambda: v.page.evaluate("() => document.querySelectorAll('.js-plotly-plot')[0]._fullData[3].x.length") == 2)
    v.shoot("what_if")
    v.page.get_by_role("button", name="as it was").click()
    yield "undone", v.until(lambda: "Edited" not in v.said())

    v.tab("attention")
    heads = lambda: [t for t in v.page.locator(".js-plotly-plot .gtitle").all_text_contents() if "Layer" in t]
    v.until(lambda: len(heads()) == 1)
    v.page.locator(".widget-slider .noUi-handle").nth(-1).focus()
    v.page.keyboard.press("ArrowRight")
    yield "a slider, by keyboard: the next head", v.until(lambda: "head 1" in heads()[0])
    v.shoot("attention")

    find = v.page.get_by_placeholder("a code, a name or a patient's number").first
    find.fill("hyperspace"); find.press("Enter")
    yield "nonsense, searched: a message", v.until(lambda: "no code or name" in v.page.locator("[role=alert]").inner_text())
    find.fill("hypertension"); find.press("Enter")
    yield "a disease, searched: a group", v.until(lambda: "Group:" in v.said() and v.page.locator("[role=alert]").count() == 0)
    v.page.get_by_role("button", name="dark").click()
    yield "dark", v.until(lambda: v.page.locator(".ehrseq-dark").count() == 1)
    time.sleep(1); v.shoot("dark")
    assert "Group:" in v.said(), "the group was lost"
    yield "… and the group still stands", 0
    assert not v.outside, f"asked of others: {v.outside[:5]}"
    yield "nothing was asked of another machine", len(v.asked)
    assert not v.wrong, f"on the console: {v.wrong[:3]}"
    yield "nothing went wrong on the console", 0


def lab_visit(browser, address):
    "A tutorial in JupyterLab, every cell run; then its last one, alive, with a second run beside."
    v = Visitor(browser, address + "lab/tree/" + TUTORIAL, address)
    v.page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content")
    v.page.get_by_text("| Idle").wait_for()                                   # else Lab asks which kernel
    v.page.get_by_text("Run", exact=True).first.click()
    v.page.get_by_text("Run All Cells", exact=True).first.click()
    start = time.perf_counter()
    v.page.wait_for_selector(".ehrseq", state="attached", timeout=300_000)
    v.page.locator(".ehrseq [aria-live=polite]").scroll_into_view_if_needed()  # Lab ran on to the picture below
    v.until(lambda: v.page.locator(".ehrseq .js-plotly-plot .gtitle").count() >= 2)
    assert not v.page.locator(".jp-OutputArea-output[data-mime-type$=error]").count(), "a cell failed"
    yield "a tutorial in JupyterLab, run to its end", time.perf_counter() - start
    said, title = v.said(), v.title(1)
    v.page.locator(".widget-select select[size]").first.select_option(index=2)
    yield "… a neighbour chosen, sentence and timeline follow", v.until(lambda: v.said() != said and v.title(1) != title)
    v.tab("compare")
    v.until(lambda: v.page.locator(".ehrseq .js-plotly-plot").count() >= 3)
    said, star, theirs = v.said(), v.star(), v.star(2)
    assert star != theirs, "the two runs draw the same map"
    v.click(2, said)
    yield "… a point clicked on the other run's map: both maps follow", v.until(lambda: v.said() != said and v.star() != star and v.star(2) != theirs)
    v.shoot("lab")
    assert not v.outside and not v.wrong, f"asked of others: {v.outside[:3]}; on the console: {v.wrong[:3]}"
    yield "… nothing asked of another machine, nothing wrong on the console", 0


def main():
    chromium = shutil.which("chromium")
    if chromium is None:
        print("SKIPPED: no Chromium on this machine, so nobody has tried the explorer's page; `make browser` installs it.", flush=True)
        return bool(os.getenv("EHRSEQ_BROWSER"))                             # CI sets it: there it must run
    from playwright.sync_api import sync_playwright
    SHOTS.mkdir(parents=True, exist_ok=True)
    passed, failed, step = 0, 0, "the browser starts"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            run = a_run()
            for place, visit in ((served, visits), (laboratory, lab_visit)):
                with place(run) as address:
                    for step, seen in visit(browser, address):
                        passed += 1
                        print(f"ok   {step}  {seen:.2f}" if isinstance(seen, float) else f"ok   {step}", flush=True)
            for step, _seen in pages.visits(browser, SHOTS):
                passed += 1
                print(f"ok   {step}", flush=True)
            with served(tempfile.mkdtemp()) as address:
                v = Visitor(browser, address)
                v.page.wait_for_selector("[role=alert]")
                assert "config.json" in v.page.locator("[role=alert]").inner_text()
                v.shoot("no_run")
                passed += 1
                print("ok   a folder that is no run: the page says so", flush=True)
        except Exception as e:
            failed += 1
            print(f"FAIL after: {step}\n{type(e).__name__}: {str(e)[:2000]}", flush=True)
            with contextlib.suppress(Exception): browser.contexts[0].pages[-1].screenshot(path=SHOTS / "failed.png", full_page=True)
    print(f"browser: {passed} passed, {failed} failed; screenshots in {SHOTS.relative_to(ROOT)}")
    return failed > 0


if __name__ == "__main__": sys.exit(main())
