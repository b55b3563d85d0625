"""`fundus.measure` and `fundus.read_results`, as a notebook calls them."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from dicom_files import dicom_file
from test_images_decode import SMOOTH
from test_screening_pipeline import tiny_bundle

import fundus
from fundus.anatomy.biomarkers import measure as biomarkers_of
from fundus.anatomy.biomarkers import rim_profile
from fundus.datasets.synthetic import clinic, write_archive
from fundus.errors import ConfigurationError
from fundus.models import bundle as bundles

matplotlib.use("agg")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    bundles.save(tiny_bundle(), folder)
    return folder


def test_importing_loads_no_large_library_and_measuring_needs_no_ray(tmp_path):
    """In a process of its own, with the bundle in the package."""
    drawn = write_archive(tmp_path, (clinic(),), count=1, seed=1)[0]
    check = (
        "import sys, fundus\n"
        "assert not {'numpy', 'torch', 'ray', 'pyarrow'} & set(sys.modules)\n"
        "eye = fundus.measure(sys.argv[1])\n"
        "assert eye.status == 'ok', repr(eye)\n"
        "assert 'ray' not in sys.modules\n"
        "print(eye.vcdr)\n"
    )
    command = [sys.executable, "-c", check, str(drawn.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert abs(float(done.stdout) - drawn.vcdr) < 0.2


def test_a_picture_may_be_a_file_bytes_pixels_or_a_dicom_frame(tiny, tmp_path):
    data = dicom_file(SMOOTH, ImageLaterality="L")
    (tmp_path / "eye.dcm").write_bytes(data)
    known = {"bundle": tiny, "gradability": "off"}
    eyes = [fundus.measure(one, **known) for one in (tmp_path / "eye.dcm", data, SMOOTH)]
    assert len({eye.vcdr for eye in eyes}) == 1
    assert [eye.laterality for eye in eyes[:2]] == ["OS", "OS"]
    assert eyes[0].mask_in_frame().shape == SMOOTH.shape[:2]
    assert eyes[0].rim_profile.shape == (72,)
    with pytest.raises(ConfigurationError, match="no frame 2"):
        fundus.measure(data, frame=2, **known)


def test_an_eye_that_cannot_be_measured_has_a_reason_and_no_numbers(tiny):
    for picture, status in (
        (b"text", "unsupported"),
        (np.zeros((64, 64, 3), np.uint8), "ungradable"),
    ):
        eye = fundus.measure(picture, bundle=tiny)
        assert eye.status == status and eye.reason
        assert (eye.vcdr, eye.risk, eye.mask) == (None, None, None)
        eye.plot()


def test_mistakes_are_named(tiny, tmp_path):
    with pytest.raises(FileNotFoundError):
        fundus.measure("missing.jpg", bundle=tiny)
    with pytest.raises(ConfigurationError, match="gradability"):
        fundus.measure(SMOOTH, bundle=tiny, gradability="strict")
    with pytest.raises(ConfigurationError, match="uint8"):
        fundus.measure(SMOOTH.astype(float), bundle=tiny)
    with pytest.raises(ConfigurationError, match="no results"):
        fundus.read_results(str(tmp_path / "empty"))
    with pytest.raises(ConfigurationError, match="no column 'vdcr'"):
        fundus.read_results(str(tmp_path), columns=["vdcr"])


def test_a_plot_shows_both_outlines(tiny):
    axes = fundus.measure(SMOOTH, bundle=tiny, gradability="off").plot()
    assert len(axes.images) == 1 and len(axes.collections) == 2
    assert "vCDR" in axes.get_title()


def disc_and_cup(height: int, width: int, cup: float) -> np.ndarray:
    """A mask of an elliptic disc; its cup has this share of its axes and lies above the centre."""
    y, x = np.mgrid[:400, :400] + 0.5
    disc = ((x - 200) / width) ** 2 + ((y - 200) / height) ** 2 < 1
    inner = ((x - 200) / (cup * width)) ** 2 + ((y - 190) / (cup * height)) ** 2 < 1
    return disc.astype(np.uint8) + inner


def test_the_rim_profile_agrees_with_the_sectors_of_the_measures():
    mask = disc_and_cup(120, 100, 0.5)
    profile, sectors = rim_profile(mask, 720), biomarkers_of(mask, "OD")
    degrees = (np.arange(720) + 0.5) / 2
    for middle, width in ((90, sectors.rim_inferior), (270, sectors.rim_superior)):
        near = np.abs(degrees - middle) < 22.5
        assert profile[near].mean() == pytest.approx(width, abs=0.003)
    assert profile[180] > profile[540]  # the cup lies above: the rim is broader below
    assert np.isnan(rim_profile(np.zeros((9, 9), np.uint8))).all()
