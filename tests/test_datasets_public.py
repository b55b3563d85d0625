"""Each public layout, drawn on disk in its own convention and read back."""

import csv
import pickle
import tempfile
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets.public import LAYOUTS, anchored, open_set
from fundus.datasets.samples import Sample
from fundus.storage.places import open_place

HEIGHT, WIDTH = 40, 60


def oval(x: float, half_width: float, half_height: float, width: int = WIDTH) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :width] + 0.5
    return ((columns - x) / half_width) ** 2 + ((rows - 20) / half_height) ** 2 <= 1


DISC, CUP = oval(25, 12, 14), oval(26, 6, 7)
TRUTH = DISC.astype(np.uint8) + CUP


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def picture(path: Path, width: int = WIDTH) -> Path:
    return save(np.full((HEIGHT, width, 3), 120), path)


def workbook(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(path)


def refuge(root: Path) -> None:
    mask = np.where(CUP, 0, np.where(DISC, 128, 255))
    for group, name in (("Glaucoma", "g0001"), ("Non-Glaucoma", "n0001")):
        picture(root / f"Training400/{group}/{name}.jpg")
        save(mask, root / f"Annotation-Training400/Disc_Cup_Masks/{group}/{name}.bmp")
    for name in ("V0001", "V0002"):
        picture(root / f"REFUGE-Validation400/{name}.jpg")
        save(mask, root / f"REFUGE-Validation400-GT/Disc_Cup_Masks/{name}.bmp")
    rows = [["ID", "ImgName", "Fovea_X", "Fovea_Y", "Glaucoma Label"]]
    rows += [[1, "V0001.jpg", 1.5, 2.5, 1], [2, "V0002.jpg", 1.5, 2.5, 0]]
    workbook(root / "REFUGE-Validation400-GT/Fovea_locations.xlsx", rows)
    for group, name in (("G", "T0001"), ("N", "T0002")):
        picture(root / f"Test400/{name}.jpg")
        save(mask, root / f"REFUGE-Test-GT/Disc_Cup_Masks/{group}/{name}.bmp")


def soft(structure: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """All four experts agree inside the structure, two of them in the wide one."""
    return np.where(structure, 255, np.where(wide, 128, 0))


def drishti(root: Path) -> None:
    base = root / "Drishti-GS1_files"
    for part, truth, folder, name in (
        ("Training", "GT", "GLAUCOMA/", "drishtiGS_002"),
        ("Training", "GT", "NORMAL/", "drishtiGS_004"),
        ("Test", "Test_GT", "", "drishtiGS_001"),
    ):
        picture(base / part / f"Images/{folder}{name}.png")
        maps = base / part / truth / name / "SoftMap"
        save(soft(DISC, oval(25, 14, 16)), maps / f"{name}_ODsegSoftmap.png")
        save(soft(CUP, oval(26, 8, 9)), maps / f"{name}_cupsegSoftmap.png")
    rows = [["Drishti-GS1"], [], ["", "Drishti-GS File", "Marking", "Total"]]
    workbook(
        base / "Drishti-GS1_diagnosis.xlsx", [*rows, ["", "drishtiGS_001'", 2, "Glaucomatous"]]
    )


def rim_one_r3(root: Path) -> None:
    base = root / "RIM-ONE r3"
    for group, name in (("Healthy", "N-1-L"), ("Glaucoma and suspects", "G-3-R")):
        image = base / group / "Stereo Images" / f"{name}.jpg"
        pair = np.full((HEIGHT, 2 * WIDTH, 3), 60)
        pair[:, :WIDTH] = 180
        save(pair, image)
        for structure, inside in (("Disc", DISC), ("Cup", CUP)):
            wide = np.pad(inside, ((0, 0), (0, WIDTH))) * 255
            save(wide, base / group / "Average_masks" / f"{name}-{structure}-Avg.png")
            save(inside * 255, base / group / "Expert1_masks" / f"{name}-1-{structure}-exp1.png")


def rim_one_dl(root: Path) -> None:
    for part, group, name in (
        ("training_set", "normal", "r2_Im001"),
        ("test_set", "glaucoma", "r3_Im002"),
    ):
        for other in ("glaucoma", "normal"):
            (root / "RIM-ONE_DL_images/partitioned_by_hospital" / part / other).mkdir(parents=True)
        picture(root / "RIM-ONE_DL_images/partitioned_by_hospital" / part / group / f"{name}.png")
        for structure, inside in (("Disc", DISC), ("Cup", CUP)):
            truth = root / "RIM-ONE_DL_reference_segmentations" / group
            save(inside * 255, truth / f"{name}-1-{structure}-T.png")


def origa_list(root: Path) -> None:
    picture(root / "Images/001.jpg")
    picture(root / "Images/002.jpg")
    text = "Eye,Filename,ExpCDR,Set,Glaucoma\nOD,'001.jpg',0.71,A,0\nOS,'002.jpg',0.64,B,1\n"
    (root / "OrigaList.csv").write_text(text)


def origa(root: Path) -> None:
    origa_list(root)
    for name in ("001", "002"):
        save(TRUTH, root / f"Masks/{name}.png")


def origa_matlab(root: Path) -> None:
    origa_list(root)
    (root / "Semi-automatic-annotations").mkdir()
    for name in ("001", "002"):
        savemat(root / f"Semi-automatic-annotations/{name}.mat", {"mask": TRUTH.astype(float)})


def manifest(root: Path) -> None:
    rows = [["image", "mask", "glaucoma", "split", "annotation"]]
    for name, glaucoma, split in (("a", "1", "train"), ("b", "0", "test")):
        picture(root / f"{name}.png")
        save(TRUTH, root / f"masks/{name}.png")
        rows.append([f"{name}.png", f"masks/{name}.png", glaucoma, split, "disc+cup"])
    with (root / "m.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)


EXPECTED = {
    "refuge:{}": (refuge, {"g0001": True, "n0001": False, "V0001": True, "V0002": False,
                           "T0001": True, "T0002": False}),
    "refuge:{}?split=validation": (refuge, {"V0001": True, "V0002": False}),
    "drishti-gs:{}": (drishti, {"drishtiGS_001": True, "drishtiGS_002": True,
                                "drishtiGS_004": False}),
    "drishti-gs:{}?split=test&consensus=4": (drishti, {"drishtiGS_001": True}),
    "rim-one-r3:{}": (rim_one_r3, {"N-1-L": False, "G-3-R": True}),
    "rim-one-r3:{}?expert=1": (rim_one_r3, {"N-1-L": False, "G-3-R": True}),
    "rim-one-dl:{}": (rim_one_dl, {"r2_Im001": False, "r3_Im002": True}),
    "rim-one-dl:{}?split=test": (rim_one_dl, {"r3_Im002": True}),
    "origa:{}": (origa, {"001": False, "002": True}),
    "origa:{}?split=B": (origa_matlab, {"002": True}),
    "manifest:{}/m.csv": (manifest, {"a.png": True, "b.png": False}),
    "manifest:{}/m.csv?split=test&glaucoma=0": (manifest, {"b.png": False}),
}  # fmt: skip


@pytest.mark.parametrize("spec", EXPECTED)
def test_a_layout_is_read_back(spec: str, tmp_path: Path) -> None:
    build, glaucoma = EXPECTED[spec]
    build(tmp_path)
    samples = open_set(spec.format(tmp_path)).samples
    assert {sample.id: sample.glaucoma for sample in samples} == glaucoma
    for sample in samples:
        assert sample.structures == ("disc", "cup")
        again = pickle.loads(pickle.dumps(sample))
        assert np.array_equal(again.read_mask(), TRUTH)
        assert again.read_image().shape == (HEIGHT, WIDTH, 3)


def test_the_caller_chooses_the_consensus(tmp_path: Path) -> None:
    drishti(tmp_path)
    wide = open_set(f"drishti-gs:{tmp_path}?consensus=2").samples[0].read_mask()
    assert wide is not None
    assert np.array_equal(disc_of(wide), oval(25, 14, 16))
    assert np.array_equal(cup_of(wide), oval(26, 8, 9))


def test_the_left_view_of_a_stereo_pair_is_read(tmp_path: Path) -> None:
    rim_one_r3(tmp_path)
    samples = open_set(f"rim-one-r3:{tmp_path}").samples
    assert [s.laterality for s in samples] == ["OS", "OD"]
    assert samples[0].read_image()[:, : WIDTH - 8].min() > 170
    right = np.pad(DISC, ((0, 0), (WIDTH, 0))) * 255
    mask = save(right, samples[0].masks[0])
    with pytest.raises(ValueError, match=mask.name):
        samples[0].read_mask()


def test_splits_are_those_of_the_set(tmp_path: Path) -> None:
    refuge(tmp_path / "r")
    origa(tmp_path / "o")
    splits = {s.id: s.split for s in open_set(f"refuge:{tmp_path / 'r'}").samples}
    assert (splits["g0001"], splits["V0001"], splits["T0002"]) == ("train", "validation", "test")
    first, second = open_set(f"origa:{tmp_path / 'o'}").samples
    assert (first.split, first.laterality) == ("A", "OD")
    assert (second.split, second.laterality) == ("B", "OS")


@pytest.mark.parametrize(
    ("spec", "build", "gone"),
    [
        ("refuge", refuge, "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp"),
        ("refuge", refuge, "REFUGE-Validation400-GT/Fovea_locations.xlsx"),
        ("drishti-gs", drishti,
         "Drishti-GS1_files/Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_cupsegSoftmap.png"),
        ("rim-one-r3", rim_one_r3, "RIM-ONE r3/Healthy/Average_masks/N-1-L-Cup-Avg.png"),
        ("rim-one-dl", rim_one_dl,
         "RIM-ONE_DL_reference_segmentations/normal/r2_Im001-1-Cup-T.png"),
        ("origa", origa, "Masks/002.png"),
        ("origa", origa, "Images/001.jpg"),
    ],
)  # fmt: skip
def test_a_missing_file_is_named(spec: str, build, gone: str, tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=Path(gone).stem):
        open_set(f"{spec}:{tmp_path}")


def spoilt(tmp_path: Path, mask: np.ndarray, name: str = "m.png") -> Sample:
    picture(tmp_path / "p.png")
    save(mask, tmp_path / name)
    (tmp_path / "t.csv").write_text(f"image,mask\np.png,{name}\n")
    return open_set(f"manifest:{tmp_path / 't.csv'}").samples[0]


@pytest.mark.parametrize(
    ("mask", "name", "reason"),
    [
        (TRUTH[:-1], "m.png", "39"),
        (np.where(CUP, 3, TRUTH), "m.png", "3"),
        (TRUTH, "m.jpg", "JPEG"),
        (np.stack([TRUTH, TRUTH * 0, TRUTH * 0], axis=-1), "m.png", "coloured"),
    ],
)
def test_a_wrong_mask_is_named(mask: np.ndarray, name: str, reason: str, tmp_path: Path) -> None:
    sample = spoilt(tmp_path, mask, name)
    with pytest.raises(ValueError, match=rf"{name}.*{reason}"):
        sample.read_mask()


def test_a_refuge_mask_with_smeared_values_is_refused(tmp_path: Path) -> None:
    refuge(tmp_path)
    sample = open_set(f"refuge:{tmp_path}?split=train").samples[0]
    save(np.where(CUP, 3, np.where(DISC, 128, 255)), sample.masks[0])
    with pytest.raises(ValueError, match=r"g0001\.bmp.*3"):
        sample.read_mask()


def test_the_mask_has_the_upright_pictures_size(tmp_path: Path) -> None:
    turned = Image.fromarray(np.full((WIDTH, HEIGHT, 3), 120, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    sample = spoilt(tmp_path, TRUTH)
    turned.save(tmp_path / "p.png", exif=exif)
    mask = sample.read_mask()
    assert mask is not None and mask.shape == sample.read_image().shape[:2] == (HEIGHT, WIDTH)


def test_discs_alone_and_unlabelled_pictures_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "set" / f"{name}.png")
    save(DISC, tmp_path / "set" / "disc.png")
    table = {"image": ["a.png", "b.png"], "mask": ["disc.png", None], "glaucoma": [None, 1.0],
             "annotation": ["disc", "none"], "laterality": ["OD", None]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "set" / "t.parquet")
    disc, bare = open_set(f"manifest:{tmp_path}/set/t.parquet").samples
    assert (disc.structures, disc.glaucoma, disc.laterality) == (("disc",), None, "OD")
    assert np.array_equal(disc.read_mask(), DISC)
    assert (bare.structures, bare.glaucoma, bare.read_mask()) == ((), True, None)
    assert [s.id for s in open_set(f"folder:{tmp_path}/set").samples] == [
        "a.png",
        "b.png",
        "disc.png",
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("image,mask\np.png,gone.png\n", r"gone\.png"),
        ("image,glaucoma\np.png,-1\n", "row 1.*'-1'"),
        ("image,mask,annotation\np.png,,disc\n", "row 1"),
        ("image,annotation\np.png,vessels\n", "row 1.*vessels"),
        ("picture\np.png\n", "row 1 names no image"),
    ],
)
def test_a_wrong_row_is_named(table: str, reason: str, tmp_path: Path) -> None:
    picture(tmp_path / "p.png")
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        open_set(f"manifest:{tmp_path / 't.csv'}")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("refuge", "layouts: " + ", ".join(LAYOUTS)),
        ("papila:x", "layouts: "),
        ("refuge:x?side=left", "keys: split"),
        ("drishti-gs:.?consensus=5", "consensus=5: give one of 1, 2, 3, 4"),
        ("drishti-gs:?split=test", "needs a path"),
        ("origa:x?split", "key=value"),
        ("synthetic:?camera=phone", "clinic, hospital, handheld"),
        ("synthetic:?count=none", "count=none"),
        ("manifest:.?set=refuge", "is a folder: give the table in it"),
    ],
)
def test_a_wrong_line_is_refused_with_the_valid_choices(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_set(spec)


def test_the_name_of_a_set_does_not_contain_its_folder(tmp_path: Path) -> None:
    drishti(tmp_path)
    assert open_set(f"drishti-gs:{tmp_path}").name == "Drishti-GS"
    assert open_set(f"drishti-gs:{tmp_path}?split=test").name == "Drishti-GS split=test"
    manifest(tmp_path)
    assert open_set(f"manifest:{tmp_path}/m.csv?split=train").name == "m split=train"


def test_a_relative_path_is_anchored_at_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert anchored("refuge:data/R?split=train") == f"refuge:{tmp_path}/data/R?split=train"
    for line in ("synthetic:?camera=clinic", "folder:s3://b/p", "manifest:/m.csv", "nothing"):
        assert anchored(line) == line


@pytest.fixture
def site(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI to which a test sends `tmp_path / "site"`; local copies stay below tmp_path."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return f"s3://{bucket}/deep/site"


def send(folder: Path, uri: str) -> None:
    shared = open_place(uri)
    for file in folder.rglob("*"):
        if file.is_file():
            shared.put(file.relative_to(folder).as_posix(), file.read_bytes())


# RIM-ONE DL is drawn above with empty folders, which object storage does not have.
@pytest.mark.s3
@pytest.mark.parametrize("spec", [s for s in EXPECTED if "dl:" not in s] + ["folder:{}"])
def test_a_set_on_s3_is_the_same_set(spec: str, tmp_path: Path, site: str) -> None:
    build, _ = EXPECTED.get(spec, (manifest, {}))
    build(tmp_path / "site")
    send(tmp_path / "site", site)
    here, there = (open_set(spec.format(root)) for root in (tmp_path / "site", site))
    assert (there.name, there.digest()) == (here.name, here.digest())
    assert there.samples[0].image != here.samples[0].image


@pytest.mark.s3
def test_only_the_wanted_rows_of_a_manifest_on_s3_are_fetched(tmp_path: Path, site: str) -> None:
    manifest(tmp_path / "site")
    send(tmp_path / "site", site)
    (sample,) = open_set(f"manifest:{site}/m.csv?split=test").samples
    files = [file.name for file in sample.image.parent.rglob("*.*")]
    assert sorted(files) == ["b.png", "b.png", "m.csv"]  # picture and mask


@pytest.mark.s3
def test_a_manifest_on_s3_reads_no_file_of_this_machine(tmp_path: Path, site: str) -> None:
    secret = picture(tmp_path / "secret.png")
    for path in (str(secret), "../" * 6 + str(secret)):
        open_place(site).put("m.csv", f"image\n{path}\n".encode())
        with pytest.raises(ValueError, match="not a path below"):
            open_set(f"manifest:{site}/m.csv")


def test_the_digest_depends_on_the_bytes(tmp_path: Path) -> None:
    manifest(tmp_path)
    spec = f"manifest:{tmp_path}/m.csv"
    before = open_set(spec).digest()
    assert open_set(spec).digest() == before
    changed = TRUTH.copy()
    changed[20, 25] = 1
    save(changed, tmp_path / "masks/a.png")
    assert open_set(spec).digest() != before


def test_real_pictures_are_read_through_the_manifest(fundus_data: Path) -> None:
    with (fundus_data / "manifest.csv").open(newline="") as lines:
        rows = {r["image"]: r for r in csv.DictReader(lines) if r["set"] == "drishti_gs1_crop512"}
    labelled = open_set(f"manifest:{fundus_data}/manifest.csv?set=drishti_gs1_crop512")
    assert len(labelled.samples) == len(rows) == 50
    for sample in labelled.samples[:10]:
        mask = sample.read_mask()
        assert mask is not None and mask.shape == sample.read_image().shape[:2]
        heights = [int(inside.any(axis=1).sum()) for inside in (cup_of(mask), disc_of(mask))]
        stated = float(rows[sample.image.relative_to(fundus_data).as_posix()]["vcdr"])
        assert heights[0] / heights[1] == pytest.approx(stated, abs=0.001)


def test_folds_divide_every_layout_by_the_pictures_themselves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,set"]
    for number in range(60):
        save(rng.integers(0, 255, (4, 4, 3)), tmp_path / f"{number}.png")
        (tmp_path / f"copy_{number}.png").write_bytes((tmp_path / f"{number}.png").read_bytes())
        lines += [f"{number}.png,drawn", f"copy_{number}.png,drawn"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))

    def ids(spec: str, fold: str) -> set[str]:
        return {s.id for s in open_set(f"{spec}{'&' if '?' in spec else '?'}fold={fold}").samples}

    table, folder = f"manifest:{tmp_path}/manifest.csv?set=drawn", f"folder:{tmp_path}"
    learn, held = ids(table, "learn"), ids(table, "held")
    assert learn | held == {s.id for s in open_set(table).samples} and not learn & held
    assert 0.2 < len(held) / 120 < 0.47
    assert {f"copy_{name}" for name in held if name[0] != "c"} == {n for n in held if n[0] == "c"}
    assert (ids(folder, "learn"), ids(folder, "held")) == (learn, held)
    with pytest.raises(ValueError, match=r"fold=test: give one of learn, held"):
        open_set(f"{folder}?fold=test")
