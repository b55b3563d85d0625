"""The report of a run in a real browser: what a grader does with it, by hand and by keyboard."""

import csv
import shutil

import pyarrow as pa
import pytest
from report_rows import EARLIER, RUN, drawn_rows, failed_row, table

from fundus.datasets.public import open_set
from fundus.ledger import table as ledger
from fundus.report import labels, run
from fundus.storage.places import open_place

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *(
        "--headless",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A results place with the report of a night of eight eyes and a failure."""
    rows = drawn_rows(tmp_path_factory.mktemp("archive"), 8)
    night = table([*rows, failed_row("file:///archive/text.jpg", "unsupported", "text")])
    everything = pa.concat_tables([night, table(rows[:4], EARLIER)])
    place = open_place(str(tmp_path_factory.mktemp("results")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "read", lambda place, columns=None: everything)
        run.write(place, run.Config(most_pictures=6))
        yield place


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, place):
    """The first page, opened from its file; it may ask for nothing and may not complain."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    asked, complaints = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto((place.folder / "reports" / RUN / run.FIRST).as_uri())
    yield opened
    assert [url for url in asked if not url.startswith(("data:", "file:", "blob:"))] == []
    assert {url.partition("#")[0] for url in asked if url.startswith("file:")} == {opened.url}
    assert complaints == []
    context.close()


def names(page):
    return page.locator("#list .name").all_inner_texts()


def test_a_grader_finds_suspects_first_and_switches_the_outlines(page, place):
    risks = [float(text) for text in page.locator("#list li span:nth-child(5)").all_inner_texts()]
    assert risks == sorted(risks, reverse=True) and len(risks) == 8
    assert page.locator("#eye svg.roi image").count() == 2  # both eyes of the subject
    assert "asymmetry" in page.locator("#eye").inner_text()
    outline = page.locator("#eye .outline path.cup").first
    assert outline.is_visible()
    page.keyboard.press("o")
    assert not outline.is_visible()
    page.locator("#outlines").click()
    assert outline.is_visible()


def test_the_list_filters_sorts_and_goes_by_keyboard(page):
    everything = names(page)
    page.locator("#list").focus()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    assert page.locator("#list [aria-selected=true] .name").inner_text() == everything[2]
    assert page.locator("#eye h3").inner_text() == everything[2]
    page.keyboard.press("k")
    assert page.locator("#eye h3").inner_text() == everything[1]
    page.locator("#sort").select_option("name")
    assert names(page) == sorted(everything)
    page.locator("#show").select_option("status:unsupported")
    assert names(page) == ["archive/text.jpg"] and "text" in page.locator("#eye").inner_text()
    page.locator("#show").select_option("all")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("poor_quality")
    assert len(names(page)) == 2
    page.locator("#find").fill("nothing like it")
    assert "No row answers" in page.locator("#eye").inner_text()


def test_verdicts_survive_a_reload_and_are_read_back_as_labels(page, place, tmp_path):
    first = page.locator("#eye h3").inner_text()
    page.keyboard.press("a")
    page.keyboard.press("n")
    page.keyboard.type('=sum, "quoted"')
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("d")
    page.keyboard.press("x")
    page.reload()
    assert page.locator("#note").input_value() == '=sum, "quoted"'
    page.locator("#show").select_option("done")
    assert len(names(page)) == 2
    with page.expect_download() as download:
        page.locator("#export").click()
    file = tmp_path / "verdicts.csv"
    download.value.save_as(file)
    with file.open(newline="") as lines:
        read = list(csv.DictReader(lines))
    assert [one["verdict"] for one in read] == ["agree", "disagree"]
    assert read[0]["uri"].endswith(first) and read[1]["outline"] == "wrong"
    made = labels.write(place, file, tmp_path / "labelled")
    samples = open_set(f"manifest:{made.manifest}").samples
    assert [sample.glaucoma for sample in samples] == [True, False]  # both were called suspects
    assert made.masks == 1


def test_nothing_keeps_anybody_out(page):
    """axe-core's rules at their two highest impacts, on both sizes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")
    for width in (1400, 420):
        page.set_viewport_size({"width": width, "height": 900})
        found = axe.Axe().run(page).response["violations"]
        severe = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        assert severe == [], found


def test_print_shows_the_pictured_suspects(page):
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#print figure").count() == 6
    assert not page.locator("#tools").is_visible()
