"""The report of a run in a real browser, used as a grader does, by mouse and by keyboard."""

import csv
import shutil

import pyarrow as pa
import pytest
from report_rows import (
    EARLIER,
    RUN,
    adaptation_of,
    crop_rows,
    drawn_rows,
    failed_row,
    reading,
    table,
)
from test_jobs_calibrate import Reader
from test_models_bundle import tiny_bundle

import jobs.calibrate
import jobs.report
from fundus.datasets.public import open_set
from fundus.ledger import table as ledger
from fundus.models import bundle as bundles
from fundus.notebook.results import mask_of
from fundus.report import adaptation, labels, run
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
    """Results with the report of a night of eight eyes and a failure."""
    rows = drawn_rows(tmp_path_factory.mktemp("archive"), 8)
    night = table([*rows, failed_row("file:///archive/text.jpg", "unsupported", "text")])
    everything = pa.concat_tables([night, table(rows[:4], EARLIER)])
    place = open_place(str(tmp_path_factory.mktemp("results")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "read", reading(everything))
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
    """The first page, opened from its file; it must send no request and log no error."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    requested, messages = [], []
    opened.on("request", lambda request: requested.append(request.url))
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.goto((place.folder / "reports" / RUN / run.FIRST).as_uri())
    yield opened
    assert [url for url in requested if not url.startswith(("data:", "file:", "blob:"))] == []
    assert {url.partition("#")[0] for url in requested if url.startswith("file:")} == {opened.url}
    assert messages == []
    context.close()


def names(page):
    return page.locator("#list .name").all_inner_texts()


def test_a_grader_sees_suspects_first_and_switches_the_outlines(page, place):
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


def test_the_list_can_be_filtered_sorted_and_used_by_keyboard(page):
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


def test_exported_verdicts_calibrate_a_bundle(browser, tmp_path, monkeypatch, capsys):
    """From the page by keyboard to a file, a labelled set and a bundle with a risk."""
    rows = table(crop_rows(tmp_path / "archive", 24))
    monkeypatch.setattr(ledger, "read", reading(rows))
    place = open_place(str(tmp_path / "results"))
    written = run.write(place)
    page = browser.new_page(accept_downloads=True)
    page.goto(written.uri)
    for number in range(24):  # by vCDR, high first: a grader calls the first 12 suspects
        suspect = number < written.suspects
        page.keyboard.press("a" if suspect == (number < 12) else "d")
        page.keyboard.press("j")
    with page.expect_download() as download:
        page.locator("#export").click()
    download.value.save_as(tmp_path / "verdicts.csv")
    page.close()
    words = ["--results", place.uri, "--verdicts", str(tmp_path / "verdicts.csv")]
    assert jobs.report.main([*words, "--to", str(tmp_path / "labelled")]) == 0
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    monkeypatch.setattr(jobs.calibrate, "Predictor", Reader)
    words = ["--bundle", str(tmp_path / "bundle"), "--precropped"]
    words += ["--set", f"manifest:{tmp_path / 'labelled' / 'manifest.csv'}"]
    assert jobs.calibrate.main(words) == 0, capsys.readouterr().err
    model = bundles.load(tmp_path / "bundle").risk
    assert (model.healthy, model.glaucoma, model.set) == (12, 12, "verdicts")
    assert model.risk(0.8, 0.03) > 0.5 > model.risk(0.3, 0.03)


def test_the_page_is_accessible(page):
    assert_accessible(page)


def test_the_page_of_an_adaptation_is_accessible_and_hides_its_outlines(browser, tmp_path):
    [row, _] = crop_rows(tmp_path, 2)
    (tmp_path / "report.html").write_bytes(adaptation.page(adaptation_of(mask_of(row))))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert_accessible(page)
    outline = page.locator(".outline path.disc").first
    assert outline.is_visible()
    page.get_by_label("hide outlines").check()
    assert not outline.is_visible()
    page.close()


def assert_accessible(page):
    """Check at two widths: axe-core finds nothing severe, and the page fits its window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")
    for width in (1400, 420):
        page.set_viewport_size({"width": width, "height": 900})
        found = axe.Axe().run(page).response["violations"]
        severe = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        assert severe == [], found
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_print_shows_the_suspects_with_pictures(page):
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#print figure").count() == 6
    assert not page.locator("#tools").is_visible()
