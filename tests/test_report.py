"""The report of a run: order, content, size, and verdicts read back. No browser, no Ray."""

import csv
import re
from html import unescape
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from report_rows import EARLIER, RUN, adaptation_of, drawn_rows, failed_row, reading, table

from fundus.anatomy.biomarkers import rim_profile
from fundus.anatomy.labels import cup_of
from fundus.datasets.public import open_set
from fundus.errors import ConfigurationError
from fundus.ledger import table as ledger
from fundus.notebook.results import mask_of
from fundus.report import adaptation, labels, run, worklist
from fundus.storage.places import open_place
from jobs import report as job

HOSTILE = "file:///archive/%3Cscript%3Ealert(1)%3C/script%3E</script><b>.jpg"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return drawn_rows(tmp_path_factory.mktemp("archive"), 6)


@pytest.fixture
def results(rows, tmp_path, monkeypatch):
    """Results with a night of six eyes and a failure, and an earlier night of two eyes."""
    night = table([*rows[:5], rows[5] | {"etag": "changed"}, failed_row(HOSTILE, "crashed", "why")])
    everything = pa.concat_tables([night, table(rows[:2], EARLIER)])
    monkeypatch.setattr(ledger, "read", reading(everything))
    return open_place(str(tmp_path / "results"))


def page_of(place, name=run.FIRST):
    return place.read(f"reports/{RUN}/{name}")[0].decode()


def test_suspects_come_first_by_risk_or_without_one_by_percentile(rows):
    mixed = [failed_row("file:///a.txt", "unsupported", "text"), *rows]
    calibrated = worklist.worklist(table(mixed), np.array([0.3, 0.9]), 100)
    risks = [one["risk"] for one in calibrated.rows[:-1]]
    assert calibrated.order == worklist.RISK and risks == sorted(risks, reverse=True)
    assert calibrated.rows[-1]["status"] == "unsupported"
    assert [one["suspect"] for one in calibrated.rows[:-1]] == [risk >= 0.5 for risk in risks]
    bare = [one | {"risk": None, "referable": None} for one in mixed]
    archive = np.array([one["vcdr"] for one in rows])
    ranked = worklist.worklist(table(bare), archive, 4)
    assert ranked.order == worklist.PERCENTILE and ranked.left_out == 3
    assert ranked.rows[0]["percentile"] == 100 and ranked.suspects == 1


def test_a_rim_profile_starts_on_the_temporal_side_of_either_eye():
    """A cup on the temporal side leaves a thin rim there, and the eyes are mirrored."""
    y, x = np.mgrid[:200, :200] + 0.5
    disc = np.hypot(x - 100, y - 100) < 60
    right = disc.astype(np.uint8) + (np.hypot(x - 75, y - 100) < 30)  # OD: temporal is to the left
    for mask, side in ((right, "OD"), (right[:, ::-1], "OS")):
        tsnit = worklist.ordered_as_tsnit(rim_profile(mask, worklist.RAYS), side)
        assert tsnit[0] < 0.1 and tsnit[-1] < 0.1 and tsnit[18] > 0.3
        assert tsnit[9] == pytest.approx(tsnit[26], abs=0.02)


def test_the_eyes_of_a_subject_are_paired_by_the_better_picture(rows):
    again = rows[1] | {"quality": 0.99, "uri": "file:///again.jpg"}
    assert worklist.fellows([*rows[:2], again])[0] == 2
    assert worklist.fellows([rows[0], rows[3]]) == {}


def test_a_page_is_one_file_and_escapes_its_content(results):
    written = run.write(results, run.Config(most_pictures=3, site="Ward <7>"))
    page = page_of(results)
    assert written.pictures >= 3 and page.count("data:image/jpeg") == written.pictures
    policy = unescape(page.partition('Policy" content="')[2].partition('"')[0])
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!data:)[^\"]*//", page)
    assert "<b>" not in page.replace("<b>1</b>", "") and "Ward &lt;7&gt;" in page
    assert "crashed: why" in page and "earlier runs" in page
    assert page.count("</script>") == 2


def test_a_picture_that_the_archive_no_longer_holds_is_drawn_from_its_mask(results, rows):
    """The etag of the sixth picture is not that of its file."""
    written = run.write(results, run.Config(most_pictures=100))
    assert written.pictures == 5
    assert "5 of 6 measured eyes are shown with their picture" in page_of(results)


def test_ten_thousand_rows_fit_on_a_page_of_two_megabytes_and_on_further_pages(
    rows, tmp_path, monkeypatch
):
    low = {"risk": 0.0001, "referable": False, "vcdr": 0.15, "mask_png": None}
    many = [
        rows[n % 6]
        | ({"uri": f"{rows[n % 6]['uri']}-{n}"} if n > 5 else {})
        | (low if n > 999 else {})
        for n in range(10_000)
    ]
    everything = table(many)
    monkeypatch.setattr(ledger, "read", reading(everything))
    place = open_place(str(tmp_path))
    written = run.write(place)
    assert written.pages == 1000 / run.EYES_PER_PAGE
    assert len(page_of(place)) < 2_000_000
    assert page_of(place).count("-9999") == 1 and len(page_of(place)) > 1_000_000
    assert 'aria-current="page">eyes 801 to 1000' in page_of(place, "eyes-005.html")


def put(folder, rows, measuring):
    """Write the rows to a real table of results."""
    place = open_place(str(folder))
    ledger.opened(place)
    write_deltalake(
        str(folder / "rows"), table(rows, measuring=measuring), mode="append", schema_mode="merge"
    )
    return str(folder)


def encoded(mask):
    return cv2.imencode(".png", mask)[1].tobytes()


def test_a_comparison_of_two_bundles_starts_where_their_outlines_differ_most(
    rows, tmp_path, capsys
):
    """One eye is lost, one cup is smaller, and one ROI is elsewhere with the same disc."""
    mask = mask_of(rows[1])
    smaller = np.minimum(mask, 1) + cv2.erode(cup_of(mask).astype(np.uint8), np.ones((21, 21)))
    turned = mask_of(rows[2])
    moved = {
        "roi_x": rows[2]["roi_x"] - rows[2]["roi_size"] / 4,
        "mask_png": encoded(np.roll(turned, turned.shape[1] // 4, axis=1)),
    }
    later = [
        rows[0] | {"status": "no_disc", "mask_png": None, "vcdr": None},
        rows[1] | {"mask_png": encoded(smaller), "vcdr": 0.1},
        rows[2] | moved,
        *rows[3:],
    ]
    before = put(tmp_path / "before", rows, "b" * 64)
    after = put(tmp_path / "after", later, "a" * 64)
    assert job.main(["--results", after, "--against", before]) == 0
    summary, _, uri = capsys.readouterr().out.strip().partition(": ")
    assert summary == "6 pictures compared"
    page = Path(uri.removeprefix("file://")).read_text()
    figures = re.findall(r"Dice disc ([\d.]+), cup ([\d.]+)", page)
    assert figures[0] == ("0.00", "0.00")
    assert figures[1][0] == "1.00" and float(figures[1][1]) < 0.9
    assert all(float(value) > 0.97 for both in figures[2:] for value in both)
    assert page.count("data:image/jpeg") == 6 and "no_disc" in page
    assert re.search(r"referable before and after", page)


def test_results_that_cannot_be_compared_exit_with_2_and_one_sentence(rows, tmp_path, capsys):
    one, same = (put(tmp_path / name, rows[:2], "b" * 64) for name in ("one", "same"))
    other = put(tmp_path / "other", rows[4:], "a" * 64)
    for words, sentence in (
        (["--against", same], "same networks"),
        (["--against", other], "no picture in common"),
        (["--against", other, "--version", "7"], "no version 7"),
        (["--version", "1"], "give both"),
    ):
        assert job.main(["--results", one, *words]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1


def test_the_copy_of_an_adaptation_report_beside_a_bundle_names_nobody(rows):
    """A failed check stands out in both copies."""
    mask = mask_of(rows[0])
    about = adaptation_of(mask)
    whole, bare = (adaptation.page(about, identified=one).decode() for one in (True, False))
    for page in (whole, bare):
        assert "because of mean vCDR" in page and 'class="alarm"' in page
        assert page.count("data:image/svg+xml") == 4  # two curves, two charts of the ratio
    assert "doe.jpg" in whole and "data:image/jpeg" in whole
    assert "doe.jpg" not in bare and "data:image/jpeg" not in bare


def test_a_missing_run_is_named(results):
    with pytest.raises(ConfigurationError, match="20270101"):
        run.write(results, run.Config(run_id="20270101"))


def exported(tmp_path, rows, verdicts):
    file = tmp_path / "verdicts.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(labels.NEEDED)
        for one, (call, verdict, outline) in zip(rows, verdicts, strict=False):
            writer.writerow([one["uri"], 1, RUN, call, verdict, outline, 'a "note", here'])
    return file


def test_verdicts_become_labels_and_masks_without_changed_pictures(
    results, rows, tmp_path, capsys, monkeypatch
):
    verdicts = [
        ("suspect", "agree", ""),
        ("suspect", "disagree", ""),
        ("not suspect", "agree", "wrong"),
        ("not suspect", "disagree", ""),
        ("suspect", "ungradable", ""),
        ("suspect", "agree", ""),  # its picture has changed since
    ]
    words = ["--results", str(tmp_path / "results"), "--to", str(tmp_path / "labelled")]
    assert job.main([*words, "--verdicts", str(exported(tmp_path, rows, verdicts))]) == 0
    assert "1 gone" in capsys.readouterr().out
    found = open_set(f"manifest:{tmp_path / 'labelled' / 'manifest.csv'}")
    assert [sample.glaucoma for sample in found.samples] == [True, False, False, True]
    assert [bool(sample.masks) for sample in found.samples] == [True, False, False, False]
    mask = found.samples[0].read_mask()
    assert mask.shape == (rows[0]["height"], rows[0]["width"]) and set(np.unique(mask)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "folder"], "go together"),
        (["--verdicts", "missing.csv", "--to", "folder"], "no such file"),
        (["--pictures", "-1"], "give 0 or more"),
        (["--run", "20270101"], "screen first"),
    ],
)
def test_mistakes_exit_with_2_and_one_sentence(results, tmp_path, capsys, words, sentence):
    assert job.main(["--results", str(tmp_path / "results"), *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_another_table_and_an_unknown_verdict_are_refused(results, rows, tmp_path):
    file = tmp_path / "other.csv"
    file.write_text("name,age\n")
    with pytest.raises(ConfigurationError, match="no column"):
        labels.write(results, file, tmp_path / "labelled")
    with pytest.raises(ConfigurationError, match="'maybe'"):
        labels.write(results, exported(tmp_path, rows, [("suspect", "maybe", "")]), tmp_path)
