"""The built supplement in a browser, on a desktop and on a phone: every page, link and picture."""

import contextlib
import functools
import http.server
import shutil
import socketserver
import subprocess
import threading
import time

import pytest

from ecglib.study import places

SITE = places.ROOT / "supplement" / "_build" / "html"
SHOTS = SITE.parent / "screenshots"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = pytest.mark.browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *words):
        """Say nothing."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Answers several requests at once, as a browser asks."""

    daemon_threads = True


@pytest.fixture(scope="module")
def site():
    """Address of the site, built anew and served from this machine."""
    built = subprocess.run(["make", "supplement"], cwd=places.ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    with Server(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright."""
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not found:
        pytest.skip("no chromium on this machine: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def pages():
    """Every page of the site."""
    return sorted(
        str(f.relative_to(SITE)) for f in SITE.rglob("*.html") if "_static" not in f.parts
    )


@contextlib.contextmanager
def opened(browser, size):
    """A page of that size, and what went wrong on it: console errors and requests that failed or
    left the site.
    """
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height})
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    # What the next page cuts off, an icon for example, is no failure.
    page.on("requestfailed", lambda r: "ABORTED" in r.failure or wrong.append(f"failed: {r.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    yield page, wrong
    context.close()


STUDIES = {file.stem for file in places.PARAMS.glob("*.yaml")}  # called by their files' names
# tables whose right edge lies outside of the room that they have
CUT = """() => [...document.querySelectorAll('.bd-article table')].filter(table => {
  const room = table.closest(
    '.wide, .output, .text_html, .pst-scrollable-table-container, section') || table.parentElement;
  return table.getBoundingClientRect().right > room.getBoundingClientRect().right + 1;
}).map(table => table.innerText.slice(0, 90))"""
# pictures without a caption, with that of another, or with another text for who can't see them
CAPTIONS = """() => { const seen = new Set();
  return [...document.querySelectorAll('.cell_output img, figure img')].flatMap(image => {
    const told = (image.closest('figure')?.querySelector('figcaption')?.innerText || '').trim();
    const bad = !told || seen.has(told) || !image.alt.startsWith(told.slice(0, 15));
    seen.add(told);
    return bad ? ['figure without a caption of its own: ' + told + image.src] : [];
  }) }"""
# names of fields, where no code, no link and no file is
NAMES = """() => [...document.querySelectorAll('.bd-article :is(table, .cell_output)')].flatMap(
  part => { const copy = part.cloneNode(true);
    copy.querySelectorAll('code, a, style').forEach(inner => inner.remove());
    return copy.textContent.match(/\\b\\w*[a-z]_\\w+\\b(?!\\.\\w)/gi) || [] })"""
EMPTY = """() => [...document.querySelectorAll('.bd-article .cell.docutils')].filter(
  cell => cell.querySelector('.cell_input') && !cell.querySelector('.cell_output')).length"""


@pytest.mark.parametrize("size", SIZES)
def test_every_page(site, browser, size):
    """No console error, nothing from elsewhere, no sideways scroll, no table cut, figures in sight,
    each with its caption, no dead picture, nothing that axe finds.
    """
    from axe_playwright_python.sync_playwright import Axe

    SHOTS.mkdir(parents=True, exist_ok=True)
    found, axe = [], Axe()
    with opened(browser, size) as (page, wrong):
        page.on(
            "request",
            lambda r: (
                wrong.append(f"elsewhere: {r.url}")
                if not r.url.startswith((site, "data:"))
                else None
            ),
        )
        for name in pages():
            page.goto(f"{site}/{name}", wait_until="load")
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            if wide > 1:
                wrong.append(f"{wide} px wider than the window")
            wrong += page.evaluate(
                "[...document.querySelectorAll('.bd-article img')]"
                ".filter(i => !i.alt || !i.complete || !i.naturalWidth)"
                ".map(i => 'picture without text or data: ' + i.src)"
            )
            if "PosixPath(" in page.inner_text("body"):
                wrong.append("a path of the machine that it was made on")
            if size == "desktop":
                wrong += [f"cut at {SIZES[size][0]} px: {told}" for told in page.evaluate(CUT)]
                wrong += page.evaluate(CAPTIONS)
                of_code = name.startswith("api/") or name == "genindex.html"
                names = () if of_code else set(page.evaluate(NAMES)) - STUDIES
                wrong += [f"name with an underscore: {w}" for w in names]
                if empty := page.evaluate(EMPTY):
                    wrong.append(f"{empty} bars of code with nothing below")
            if "/api/" not in f"/{name}" and name not in (
                "genindex.html",
                "search.html",
                "py-modindex.html",
            ):
                page.screenshot(path=SHOTS / f"{size}_{name.replace('/', '_')}.png", full_page=True)
                result = axe.run(
                    page, options={"runOnly": ["wcag2a", "wcag2aa"], "preload": False}
                ).response
                for v in result["violations"]:
                    where = "; ".join(str(n["target"]) for n in v["nodes"][:3])
                    wrong.append(f"axe {v['id']} ({v['impact']}), {len(v['nodes'])} times: {where}")
            found += [f"{name}: {w}" for w in wrong]
            wrong.clear()
    assert not found, "\n".join(found[:60])


def test_no_table_is_cut_in_print(site, browser):
    """On A4 with a margin of 10 mm."""
    found = []
    with opened(browser, "desktop") as (page, _):
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 718, "height": 1047})
        for name in sorted(set(pages()) - {"genindex.html"}):
            page.goto(f"{site}/{name}", wait_until="load")
            found += [f"{name}: {told}" for told in page.evaluate(CUT)]
        page.goto(f"{site}/index.html", wait_until="load")
        page.pdf(path=SHOTS / "index.pdf", format="A4")
    assert not found, "\n".join(found)


def test_a_page_says_where_one_is(site, browser):
    """Study in title, breadcrumb and band; the menu shows this study's pages and no other's; a
    figure opens in full size.
    """
    with opened(browser, "desktop") as (page, wrong):
        page.goto(f"{site}/demo/01_data_exploration.html", wait_until="load")
        assert "demo" in page.title() and "demo" in page.locator(".bd-article h1").inner_text()
        assert "synthetic" in page.locator(".band.synthetic").inner_text()
        assert page.locator("nav[aria-label=Breadcrumb] a[href='index.html']").count()
        menu = page.locator(".bd-sidebar-primary a:visible").all_inner_texts()
        assert sum(text.startswith("01 ·") for text in menu) == 1
        first = page.locator(".bd-article figure img").first
        source = first.get_attribute("src")
        first.click()
        assert page.url.endswith(source.rsplit("/", 1)[-1]) and not wrong


def test_no_link_is_broken(site, browser):
    """Every link within the site leads to a page, and every anchor to a place on it."""
    with opened(browser, "desktop") as (page, _):
        places, links = {}, set()
        for name in pages():
            page.goto(f"{site}/{name}", wait_until="domcontentloaded")
            places[name] = set(
                page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            )
            links |= {
                (name, link)
                for link in page.evaluate(
                    "[...document.querySelectorAll('a[href]')].map(a => a.href)"
                )
            }
    broken = []
    for name, link in links:
        if not link.startswith(site):
            continue
        target, _, anchor = link.removeprefix(site).lstrip("/").partition("#")
        target = (target or "index.html").split("?")[0]
        if not (SITE / target).is_file() or (
            anchor and target in places and anchor not in places[target]
        ):
            broken.append(f"{name}: {link.removeprefix(site)}")
    assert not broken, "\n".join(sorted(broken)[:40])


def test_the_first_page_is_readable_within_two_seconds(site, browser):
    """From asking for it to text on the screen."""
    with opened(browser, "desktop") as (page, _):
        page.goto(f"{site}/index.html")
        begin = time.perf_counter()
        page.goto(f"{site}/index.html", wait_until="domcontentloaded")
        page.locator(".bd-article h1").first.wait_for(state="visible")
        assert time.perf_counter() - begin < 2
