"""The HTML report: its texts, and how it behaves in a browser."""

import contextlib
import json
import re
import shutil
import sys

import numpy as np
import pytest

from tests.benchmarking.test_results import curves_to, make_pair, make_results
from tests.benchmarking.test_runtimes import timed_pair
from tests.faults import MARKUP

LABEL = f"{MARKUP} $\\frac$ <b>bold</b> &lt;"
PLAIN = "<script>alert(1)</script>[red]`|\N{REPLACEMENT CHARACTER}[31m # x $\\frac$ <b>bold</b> &lt;"


def small_results():
    """Returns results with hostile labels, a failed pair, runtimes, and pairs measured alone and beside other work."""
    alone = timed_pair("a", "p", [1.0, 1e-8], [[8.0, 40.0], [4.0, np.nan]], [40, 50])
    disturbed = timed_pair(LABEL, "p", [1.0, 1e-8], [[20.0, np.nan], [np.nan, np.nan]], [50, 50])
    alone.info["load"] = {"cores": 2, "busy_others": 0.02}
    disturbed.info["load"] = {"cores": 2, "busy_others": 1.3}
    pairs = [make_pair("a", LABEL, curves_to(1.0, 2.0)), make_pair(LABEL, LABEL, [], error=MARKUP)]
    pairs[0].info["strategy_settings"] = {MARKUP: MARKUP, "sigma": 0.1}
    pairs[1].info["traceback"] = f"Traceback:\n  File {MARKUP}"
    return make_results(alone, disturbed, *pairs)


def many_results():
    """Returns results of 12 strategies; strategy s07 is the best one, then s00, s01, ..."""
    finals = [3.0 + i if i != 7 else 1.0 for i in range(12)]
    pairs = [make_pair(f"s{i:02}", "p", curves_to(final, final)) for i, final in enumerate(finals)]
    return make_results(*pairs, num_seeds=2)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "small": small_results().report(folder / "small.html"),
        "many": many_results().report(folder / "new" / "many.html"),
    }


def texts_of(path):
    """Returns the page without its scripts and its style."""
    return re.sub(r"<(script|style).*?</\1>", "", path.read_text(), flags=re.DOTALL)


def test_labels_and_errors_are_text(pages):
    text = texts_of(pages["small"])
    assert "<b>bold" not in text
    assert "\x1b" not in pages["small"].read_text()
    assert re.sub("<wbr>", "", text).count("&lt;script&gt;alert(1)&lt;/script&gt;[red]") > 5
    data = re.search(r'id="data">(.*?)</script>', pages["small"].read_text(), re.DOTALL)
    assert json.loads(data[1])["strategies"] == ["a", PLAIN]


def test_what_was_measured_beside_other_work_says_so(pages):
    text = texts_of(pages["small"])
    assert "beside other work (1.3 of 2 cores busy)" in text
    assert "1 of 3 pairs were measured alone, 1 beside other work, for 1 it is not recorded." in text
    assert "measured alone" not in texts_of(pages["many"])


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs plotly.*pip install es-zoo\[html\]"):
        many_results().report(tmp_path / "report.html")


# In a browser

OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1300,1000"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    programs = [shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("there is no Chromium with chromedriver here (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with contextlib.closing(Browser(webdriver.Chrome(options, webdriver.ChromeService(programs[1])))) as opened:
        yield opened


class Browser:
    """A browser, and what the tests do with it."""

    def __init__(self, driver):
        self.driver = driver
        self.close = driver.quit
        driver.set_script_timeout(30)

    def open(self, path):
        self.driver.get(path.as_uri())

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def click(self, selector, number=0):
        self.run("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, number)

    def texts(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def drawn(self, figure):
        """Returns the names and the colours of the lines of a figure, once it is drawn."""
        script = """
            const [id, done] = arguments, place = document.getElementById(id);
            place.scrollIntoView();
            const look = () => place.data
                ? done(place.data.filter((t) => t.name).map((t) => [t.name, t.line.color, t.line.dash, t.x.length]))
                : setTimeout(look, 20);
            look();"""
        return self.driver.execute_async_script(script, figure)

    def width(self, pixels):
        metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_a_page_in_a_browser(browser, pages):
    """Everything is one test, because starting a browser and loading a page take seconds."""
    browser.driver.get_log("performance")
    browser.open(pages["small"])
    check_figures(browser)
    check_tables(browser)
    check_themes(browser)
    check_narrow(browser)
    browser.open(pages["many"])
    check_many(browser)
    assert browser.driver.get_log("browser") == []  # no errors, and nothing that the page's policy forbade
    messages = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = {
        url for url in requests if not url.startswith(("data:", "blob:", "chrome:"))
    }  # chrome: the empty first page
    assert asked == {pages["small"].as_uri(), pages["many"].as_uri()}


def check_figures(browser):
    """A click in the legend hides a curve; labels are no markup, also in a figure."""
    names = [name for name, *_ in browser.drawn("curves-0")]
    assert names == ["a", PLAIN.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")]
    for figure in ("curves-1", "ecdf", "profile"):
        assert len(browser.drawn(figure)) == (1 if figure == "curves-1" else 2)
    assert browser.texts("#strategies span") == ["a", PLAIN]
    styles = [tuple(style) for _, *style, _ in browser.drawn("curves-0")]
    assert len(set(styles)) == 2
    browser.click("#strategies button")
    assert [name for name, *_ in browser.drawn("curves-0")] == names[1:]
    assert [name for name, *_ in browser.drawn("ecdf")] == names[1:]
    browser.click("#strategies button")
    assert [name for name, *_ in browser.drawn("curves-0")] == names
    title = "return document.getElementById('curves-0').layout.xaxis.title.text"
    assert browser.run(title) == "problem steps"
    browser.click(".tabs button", 1)
    assert browser.run(title).startswith("wall-clock seconds")


def check_tables(browser):
    rows = ".matrix tbody th"
    assert browser.texts(rows) == ["a", PLAIN]
    for first in (PLAIN, "a"):  # ascending, then descending
        browser.click(".matrix thead button")
        assert browser.texts(rows)[0] == first
    for _ in range(2):  # a pair without a score stays below
        browser.click(".matrix thead button", 3)
        assert browser.texts(f"{rows} ~ td:last-child") == ["1.5", "failed"]
    browser.click(".matrix thead button", 1)
    assert browser.texts(rows) == ["a", PLAIN]


def check_themes(browser):
    look = """
        const page = getComputedStyle(document.body), layout = document.getElementById("curves-0")._fullLayout;
        return [page.backgroundColor, page.color, layout.paper_bgcolor, layout.font.color];"""
    before = browser.run(look)
    browser.click("#theme")
    after = browser.run(look)
    assert before[:2] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert all(one != other for one, other in zip(before, after, strict=True))
    browser.click("#theme")
    assert browser.run(look) == before
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.run("return getComputedStyle(document.querySelector('aside')).display") == "none"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def check_narrow(browser):
    """Tables and code scroll inside of the page, which is as wide as the window."""
    browser.width(400)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    script = """
        const look = (done) => document.getElementById("curves-0")._fullLayout.width < 400
            ? done() : setTimeout(look, 20, done);
        look(arguments[0]);"""
    browser.driver.execute_async_script(script)  # figures follow the window
    wide, seen = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= seen <= 400
    browser.width(1300)


def check_many(browser):
    """The ten best have colours; the others are grey until they are clicked."""
    best = ["s07", *(f"s{i:02}" for i in range(10) if i != 7)]
    assert browser.texts("#strategies span") == [*best, "s10", "s11"]

    def colored():
        lines = browser.drawn("curves-0")
        assert len(lines) == 12
        (grey,) = {color for _, color, *_ in lines if color in ("#c9cdd3", "#444b55")} or {None}
        return {name: (color, dash) for name, color, dash, _ in lines if color != grey}

    assert set(colored()) == set(best)
    assert len(set(colored().values())) == 10
    browser.click("#strategies button", 11)
    assert set(colored()) == {*best, "s11"}
    browser.click('#choices button[data-choice="all"]')
    assert len(set(colored().values())) == 12
    browser.run("const f = document.getElementById('filter'); f.value = 's1'; f.dispatchEvent(new Event('input'))")
    assert browser.texts("#strategies li:not([hidden])") == ["s10", "s11"]
