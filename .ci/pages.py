"""Every page that the product makes, with commands planted in every text that can come from outside: none may run, each must be shown as it is written."""
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("<script>hit({0})</script>", "<img src=x onerror=hit({0})>", "</script><script>hit({0})</script>", '"><svg onload=hit({0})>', "<a href='javascript:hit({0})'>a</a>",
         "[a](javascript:hit({0}))", "<b>bold</b> %{{y}}", "<iframe srcdoc='<script>parent.hit({0})</script>'>", "` | **a** <style>*{{display:none}}</style>")
BRIEF = {"data": None, "patients": 70}


class Planted:
    "Texts with a command in each, by where they are planted."
    def __init__(self): self.texts = {}

    def __call__(self, where, name=False):
        "A text for one place; the kinds of commands take turns. `name`: it is the name of a file."
        kinds = [k for k in KINDS if not (name and "/" in k)]
        number = len(self.texts)
        self.texts[f"planted{number:02}"] = text = f"planted{number:02} " + kinds[number % len(kinds)].format(number) + " end"
        self.where = {**getattr(self, "where", {}), f"planted{number:02}": where}
        return text


def export(home, planted):
    "The sample as an export, with commands in its folder's name, its files' names, its codes, descriptions, classes and sexes."
    folder = home / planted("folder of the export", name=True)
    folder.mkdir(parents=True)
    for path in (ROOT / "ehrseq" / "sample").glob("*.csv.gz"):
        table = pd.read_csv(path, dtype=str)
        name = path.name.removesuffix(".csv.gz")
        if name in ("conditions", "medications", "procedures"):
            first, *others = table.loc[table["CODE"] != "10509002", "CODE"].value_counts().index[:15]      # acute bronchitis stays: a task asks for it
            for code in others:
                table.loc[table["CODE"] == code, "DESCRIPTION"] = planted("description of a code") + (" (disorder)" if name == "conditions" else "")
            table.loc[table["CODE"] == first, ["CODE", "DESCRIPTION"]] = planted("code"), ""
        if name == "encounters": table.loc[table["ENCOUNTERCLASS"] == "inpatient", "ENCOUNTERCLASS"] = planted("class of a visit")
        if name == "patients": table.loc[table.index % 5 == 0, ["GENDER", "RACE"]] = planted("sex"), planted("race")
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{planted('file of the export', name=True)}.csv").write_text("a,b\n", encoding="utf-8")
    return folder


def downloaded(run, to, planted):
    "A run as somebody else might publish it, with commands in its configuration and vocabulary."
    from ehrseq.data.folders import seal
    shutil.copytree(run, to)
    config, vocab = (json.loads((to / n).read_text(encoding="utf-8")) for n in ("config.json", "vocab.json"))
    config |= {"tier": planted("tier in config.json"), "data": config["data"] | {"source": planted("source in config.json")}}
    vocab["descriptions"][:20] = [planted("description in vocab.json") for _ in range(20)]
    for name, value in (("config.json", config), ("vocab.json", vocab)): (to / name).write_text(json.dumps(value), encoding="utf-8")
    seal(to, ["config.json", "vocab.json"])                   # whoever writes the files writes their checksums
    return to


def wrapped(*parts):
    return "<!doctype html><html><meta charset=utf-8><body>" + "".join(map(str, parts)) + "</body></html>"


def run_notebook(name, out, parameters):
    "A job's notebook, run in this process, which has imported everything; the command that runs it in one of its own is tested in its chapter."
    import nbformat
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    from ehrseq.runs.jobs import notebook
    out.mkdir(parents=True, exist_ok=True)
    place = out / f"{name}.ipynb"
    nbformat.write(parameterize_notebook(load_notebook_node(str(notebook(name))), parameters | {"out": str(out)}), place)
    nb, shell = read_nb(place), CaptureShell(ROOT / "nbs" / "jobs")
    shell.run_all(nb, exc_stop=True)
    write_nb(nb, place)
    return place


def page_of(place, out):
    from ehrseq.runs.job_page import notebook_page
    if place.stem != "pretrain": (out / "report.html").write_text(notebook_page(place), encoding="utf-8")
    return out / "report.html"


def make(home, planted):
    "Yield (name, path) of every page, as they are made."
    import mistune
    import nbformat
    from nbconvert import HTMLExporter

    import ehrseq
    data, runs = str(export(home / "data", planted)), home / "runs"
    run = runs / planted("folder of the run", name=True)
    def job(name, out, **parameters): return page_of(run_notebook(name, out, parameters), out)

    yield "report of pretrain", job("pretrain", run, **BRIEF | {"data": data, "objective": "mlm+nvp", "minutes": 0.03})
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", widget_renderer_url="")
    (page := home / "notebook.html").write_text(exporter.from_notebook_node(nbformat.read(run / "pretrain.ipynb", 4))[0], encoding="utf-8")
    yield "saved notebook of pretrain", page
    trained = ehrseq.from_pretrained(run)
    events = ehrseq.read(data, progress=False)
    (page := home / "reading.html").write_text(wrapped(events.report._repr_html_()), encoding="utf-8")
    yield "reading report", page
    views = trained.explore(method="pca")
    views.desk.choose(views.desk.ids[:30])
    for tab in views.kinds: views.opened(tab).draw()
    yield "explorer, saved", views.export(home / "explorer.html")
    values = [w.value for view in (views.map, views.patient, *views.tab.values()) for w in vars(view).values() if type(w).__name__ == "HTML"]
    (page := home / "widgets.html").write_text(wrapped(*values, views.notice.value, views.said.value), encoding="utf-8")
    yield "texts of the explorer's widgets", page
    theirs = downloaded(run, runs / planted("folder of a downloaded model", name=True), planted)
    yield "explorer of a downloaded model, saved", ehrseq.from_pretrained(theirs).explore(method="pca").export(home / "theirs.html")
    yield "job embed", job("embed", home / planted("folder of embed", name=True), run=str(theirs), data=data)
    task = f"onset {planted('pattern of a task').replace('[', '').replace('(', '').replace(')', '').replace('*', '').replace('{', '').replace('}', '')}|^Acute bronchitis"
    asked = {"at": "2019-01-01", "horizon": 1800}
    yield "job evaluate", job("evaluate", home / "evaluate", run=str(theirs), data=data, others=[str(run)], tasks=[task], clusters=[3], **asked)
    yield "job finetune", job("finetune", home / "finetune", run=str(theirs), data=data, task=task, how="probe", **asked)
    yield "job compare", job("compare", home / planted("folder of compare", name=True), **BRIEF | {"data": data, "contenders": ["med2vec/skipgram"], "epochs": 0.1, "tuning": 0.2})
    yield "job sweep", job("sweep", home / planted("folder of sweep", name=True), **BRIEF | {"data": data, "space": {"learning_rate": [0.001]}, "encoder": "lstm", "epochs": 0.1})
    card = mistune.create_markdown(escape=False, plugins=["table", "url"])
    for name, folder in (("model card", run), ("model card of finetune", home / "finetune" / "model")):
        (page := home / f"{name}.html").write_text(wrapped(card(re.sub("^---.*?^---", "", (folder / "README.md").read_text(encoding="utf-8"), flags=re.S | re.M))), encoding="utf-8")
        yield name, page


WATCH = "window.hits = []; window.hit = n => { window.hits.push(n) };"
STRANGE = """() => [...document.querySelectorAll("img, svg[onload], [onerror], [onload], iframe, a[href^='javascript:'], a[*|href^='javascript:'], b, style, strong, em")]
    .filter(e => e.matches("[onerror], [onload], iframe, a") || e.tagName == "IMG" && !e.src.startsWith("data:") || e.tagName != "STYLE" && e.textContent.includes("planted") && !e.closest("p > b, h3")
        || e.tagName == "STYLE" && e.textContent.includes("display:none}") && !e.textContent.includes(".modebar") && e.textContent.length < 40).map(e => e.outerHTML.slice(0, 200))"""
HOVER = """() => { const said = []; for (const g of document.querySelectorAll(".js-plotly-plot")) (g._fullData || []).forEach((t, c) => { for (let i = 0; i < Math.min(5, (t.x || []).length); i++) {
    try { Plotly.Fx.hover(g, [{curveNumber: c, pointNumber: i}], (t.xaxis || "x") + (t.yaxis || "y")); } catch (e) { continue }
    const layer = g.querySelector(".hoverlayer"); if (layer) { said.push(layer.textContent); if (layer.querySelector("[style*=bold]")) said.push("BOLD " + layer.textContent) } } }); return said }"""
BOLD = """() => [...document.querySelectorAll("svg tspan[style*=bold], svg a")].map(e => e.textContent)"""


def look(context, path, planted, point=True):
    "Open a page as a reader would, and `point` at what is drawn; the planted texts found on it."
    page, asked, wrong = context.new_page(), [], []
    page.add_init_script(WATCH)
    page.on("request", lambda r: asked.append(r.url))
    page.on("dialog", lambda d: (wrong.append("a dialog"), d.dismiss()))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(path.resolve().as_uri(), wait_until="load")
    page.wait_for_timeout(300)
    drawn = page.evaluate("() => [...document.querySelectorAll('.js-plotly-plot')].every(g => g.querySelector('.main-svg'))")
    assert drawn and not wrong, f"{path.name}: {wrong[:3] or 'a figure is not drawn'}"
    hovered = page.evaluate(HOVER) if point else []
    text = "\n".join([page.evaluate("() => document.body.innerText"), *page.evaluate("() => [...document.querySelectorAll('svg text')].map(t => t.textContent)"), *hovered, page.title()])
    strange, bold = page.evaluate(STRANGE), [b for b in page.evaluate(BOLD) if "planted" in b or b == "bold"] + [h for h in hovered if h.startswith("BOLD")]
    assert not page.evaluate("window.hits"), f"{path.name}: ran {page.evaluate('window.hits')}"
    outside = [u for u in asked if not u.startswith(("data:", "blob:")) and u != page.url]
    assert not outside, f"{path.name}: asked for {outside[:3]}"
    assert not strange and not bold, f"{path.name}: {(strange + bold)[:3]}"
    found = {key for key, whole in planted.texts.items() if shown(text, key, whole)}
    page.close()
    return found


def shown(text, key, whole):
    "Whether a planted text is on the page. Raises `AssertionError` where it is not shown as it is written, to its end or to where it was cut."
    places = [i for i in range(len(text)) if text.startswith(key, i)]
    for i in places:
        line = text[i:i + len(whole)].split("\n")[0]
        same = len(os.path.commonprefix([line, whole]))
        assert same >= min(len(whole), 14), f"{key}: {text[i:i + 80]!r}, not {whole!r}"
    return bool(places)


def visits(browser, shots=None):
    "Each page, opened; a name and what was found on it. The browser is told to leave the pages' own policy aside, then to keep it."
    planted, seen = Planted(), set()
    kept = {name: os.environ.get(name) for name in ("EHRSEQ_CACHE", "EHRSEQ_THRESHOLD", "PLOTLY_RENDERER")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"EHRSEQ_CACHE": f"{folder}/cache", "EHRSEQ_THRESHOLD": "0", "PLOTLY_RENDERER": "plotly_mimetype"}
        open_to_all, strict = browser.new_context(bypass_csp=True), browser.new_context()
        try:
            for name, path in make(Path(folder), planted):
                found = look(open_to_all, path, planted)
                if name in ("report of pretrain", "job evaluate", "explorer, saved"): look(strict, path, planted, point=False)
                seen |= found
                yield f"{name}: nothing ran, nothing was asked; {len(found)} planted texts as they were written", None
                if shots and name in ("report of pretrain", "job evaluate"):
                    page = open_to_all.new_page()
                    page.goto(path.resolve().as_uri()); page.wait_for_timeout(500)
                    page.screenshot(path=shots / f"planted {name}.png", full_page=True); page.close()
        finally:
            for name, value in kept.items(): os.environ.pop(name) if value is None else os.environ.update({name: value})
    unseen = sorted(set(planted.texts) - seen)
    places = {planted.where[key] for key in seen}
    missing = sorted({planted.where[key] for key in unseen} - places - UNSHOWN)
    assert not missing, f"planted, but on no page: {missing}"
    yield f"{len(seen)} of {len(planted.texts)} planted texts were seen, from {len(places)} kinds of places", None


UNSHOWN = {"race", "class of a visit", "source in config.json", "folder of compare", "folder of sweep", "folder of embed"}     # no page says them, or not always
