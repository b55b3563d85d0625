"""Labelled sets by one line: `layout:path?key=value`. The layouts are those of the public sets.

The path may be s3://bucket/prefix: the files that the layout reads are copied to this machine.

Every reader documents the folder tree that it expects, as the set's own archives unpack. A missing
file is an error with its name when the set is opened; a wrong mask, when the mask is read.
"""

import csv
import inspect
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

import openpyxl

from fundus.anatomy.labels import from_binary, from_plain, from_refuge, from_soft
from fundus.archive.mirror import mirrored
from fundus.datasets.manifest import PICTURES, named, read_folder, read_manifest
from fundus.datasets.samples import LabelledSet, Sample, existing, folded, only
from fundus.datasets.synthetic import read_synthetic
from fundus.errors import ConfigurationError, MissingFile
from fundus.storage.uris import decode, scheme_of

DISC_AND_CUP = ("disc", "cup")
READ = (*PICTURES, ".csv", ".mat", ".xlsx")
"""Suffixes of the files that the public layouts read."""


def open_set(spec: str) -> LabelledSet:
    """Open the labelled set of a line such as `drishti-gs:data/drishti?split=test&consensus=4`.

    The keys of each layout are the keyword arguments of its reader; `manifest` takes any column of
    its table. Every layout has `fold`: "learn" or "held" (samples.folded).

    Raises:
        ConfigurationError: the line is wrong, no picture is left, or the folder has another tree;
            then the message names the missing file.
    """
    layout, colon, rest = spec.partition(":")
    if not colon or layout not in LAYOUTS:
        raise ConfigurationError(
            f"{spec!r} is no `layout:path?key=value`; layouts: {', '.join(LAYOUTS)}"
        )
    reader = LAYOUTS[layout]
    path, _, query = rest.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise ConfigurationError(f"{spec!r}: {query!r} is not key=value&key=value") from error
    keys = list(inspect.signature(reader).parameters.values())[1:]
    known = [key.name for key in keys if key.kind is not key.VAR_KEYWORD]
    unknown = [key for key in options if key not in (*known, "fold")]
    if unknown and len(known) == len(keys):
        keys_known = ", ".join([*known, "fold"])
        raise ConfigurationError(f"{spec!r}: no key {unknown[0]!r} in {layout}; keys: {keys_known}")
    if not path and layout != "synthetic":
        raise ConfigurationError(f"{spec!r}: {layout} needs a path: give `{layout}:path`")
    chosen = {k: v for k, v in options.items() if k != "fold"}
    samples = reader(_on_this_machine(layout, path, chosen), **chosen)
    if "fold" in options:
        samples = folded(samples, options["fold"])
    if not samples:
        raise ConfigurationError(f"{spec!r}: no picture there matches it")
    return LabelledSet(name=_name(samples, options), samples=tuple(samples))


def anchored(spec: str) -> str:
    """The same line with an absolute path, for processes that work in another folder."""
    layout, _, rest = spec.partition(":")
    path, mark, query = rest.partition("?")
    if not path or scheme_of(path):
        return spec
    return f"{layout}:{Path(path).absolute()}{mark}{query}"


def _on_this_machine(layout: str, path: str, chosen: dict[str, str]) -> Path:
    """The local path for a layout's reader; for a set on s3://, the path of its copy."""
    if not scheme_of(path):
        return Path(path)
    if layout != "manifest":
        return mirrored(path, suffixes=READ)
    folder, _, last = path.rpartition("/")
    table = decode(last)
    files = named(mirrored(folder, names={table}) / table, **chosen)
    return mirrored(folder, names={table, *files}) / table


def _name(samples: list[Sample], options: dict[str, str]) -> str:
    """The name of the set in tables and bundles, without its path on this machine."""
    sets = dict.fromkeys(sample.set for sample in samples)
    chosen = [f"{key}={value}" for key, value in options.items() if value not in sets]
    return " ".join([", ".join(sets), *chosen])


def read_refuge(root: Path, *, split: str = "") -> list[Sample]:
    """REFUGE (2018). Masks: 0 cup, 128 rim, 255 background, BMP. Splits train, validation, test.

        Training400/{Glaucoma,Non-Glaucoma}/g0001.jpg
        Annotation-Training400/Disc_Cup_Masks/{Glaucoma,Non-Glaucoma}/g0001.bmp
        REFUGE-Validation400/V0001.jpg
        REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp
        REFUGE-Validation400-GT/Fovea_locations.xlsx      (columns ImgName, Glaucoma Label)
        Test400/T0001.jpg                                 (or REFUGE-Test400)
        REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/T0001.bmp

    A folder may be inside another one of the same name, as some archives unpack. split "" reads all
    splits that have pictures. A split without masks is an error: read such pictures as `folder`.
    """
    found = {
        "train": _folder(root, "Training400", "REFUGE-Training400"),
        "validation": _folder(root, "REFUGE-Validation400"),
        "test": _folder(root, "Test400", "REFUGE-Test400"),
    }
    _known("split", split, found)
    if split and not found[split]:
        raise MissingFile(f"{root}: no pictures of REFUGE's {split} split")
    if not any(found.values()):
        raise MissingFile(f"{root}: neither Training400, REFUGE-Validation400 nor Test400")
    samples = []
    for name, images in found.items():
        if images and split in ("", name):
            masks, glaucoma = _refuge_truth(root, name)
            for image in sorted(images.rglob("*.jpg")):
                mask = masks.get(image.stem)
                if mask is None:
                    raise MissingFile(f"{image}: no {image.stem}.bmp in Disc_Cup_Masks")
                label = glaucoma[image.stem] if glaucoma else mask.parent.name in ("Glaucoma", "G")
                samples.append(
                    Sample(
                        id=image.stem,
                        set="REFUGE",
                        image=image,
                        masks=(mask,),
                        structures=DISC_AND_CUP,
                        glaucoma=label,
                        split=name,
                        convert=from_refuge,
                    )
                )
    return samples


def _refuge_truth(root: Path, split: str) -> tuple[dict[str, Path], dict[str, bool]]:
    """Masks by the name of the picture; and glaucoma, unless the folders show it."""
    name = {"train": "Annotation-Training400", "validation": "REFUGE-Validation400-GT"}
    truth = _folder(root, name.get(split, "REFUGE-Test-GT"))
    if truth is None:
        raise MissingFile(f"{root / name.get(split, 'REFUGE-Test-GT')} is not there")
    masks = {mask.stem: mask for mask in existing(truth / "Disc_Cup_Masks").rglob("*.bmp")}
    if split != "validation":
        return masks, {}
    table = _sheet(existing(truth / "Fovea_locations.xlsx"), "ImgName", "Glaucoma Label")
    return masks, {Path(name).stem: float(label) == 1 for name, label in table.items()}


def read_drishti_gs(root: Path, *, split: str = "", consensus: str = "3") -> list[Sample]:
    """Drishti-GS1. A pixel is inside if `consensus` of the 4 experts agree. Splits train, test.

        Drishti-GS1_files/{Training,Test}/Images[/{GLAUCOMA,NORMAL}]/drishtiGS_002.png
        Drishti-GS1_files/{Training,Test}/{GT,Test_GT}/drishtiGS_002/SoftMap/
            drishtiGS_002_ODsegSoftmap.png  drishtiGS_002_cupsegSoftmap.png
        Drishti-GS1_diagnosis.xlsx     (when the pictures are not sorted; columns "Drishti-GS File",
                                       "Total": Glaucomatous or Normal; without it glaucoma is None)

    Soft maps are 8-bit, 255 times the share of experts who put the pixel inside.
    """
    parts = {"train": "Training", "test": "Test"}
    _known("split", split, parts)
    _known("consensus", consensus, ("1", "2", "3", "4"))
    base = existing(_folder(root, "Drishti-GS1_files") or root)
    tables = [file for file in (root, base) if (file / "Drishti-GS1_diagnosis.xlsx").exists()]
    diagnosis = (
        _sheet(tables[0] / "Drishti-GS1_diagnosis.xlsx", "Drishti-GS File", "Total")
        if tables
        else {}
    )
    samples = []
    for name, part in parts.items():
        if split == name:
            existing(base / part)
        if split not in ("", name) or not (base / part).is_dir():
            continue
        truth = base / part / "GT"
        truth = truth if truth.is_dir() else existing(base / part / "Test_GT")
        for image in sorted(existing(base / part / "Images").rglob("*.png")):
            maps = truth / image.stem / "SoftMap"
            folder = image.parent.name.lower()
            label = folder if folder in ("glaucoma", "normal") else diagnosis.get(image.stem, "")
            samples.append(
                Sample(
                    id=image.stem,
                    set="Drishti-GS",
                    image=image,
                    masks=(
                        existing(maps / f"{image.stem}_ODsegSoftmap.png"),
                        existing(maps / f"{image.stem}_cupsegSoftmap.png"),
                    ),
                    structures=DISC_AND_CUP,
                    glaucoma=label.lower().startswith("glaucoma") if label else None,
                    split=name,
                    convert=partial(from_soft, consensus=int(consensus)),
                )
            )
    return samples


def read_rim_one_r3(root: Path, *, expert: str = "average") -> list[Sample]:
    """RIM-ONE r3: stereo pairs, of which the left view is annotated. Experts 1, 2, average.

        {Healthy,Glaucoma and suspects}/Stereo Images/N-1-L.jpg            (2144 x 1424, L or R eye)
        {Healthy,Glaucoma and suspects}/Expert1_masks/N-1-L[-1]-{Disc,Cup}-exp1.png
        {Healthy,Glaucoma and suspects}/Expert2_masks/N-1-L[-1]-{Disc,Cup}-exp2.png
        {Healthy,Glaucoma and suspects}/Average_masks/N-1-L-{Disc,Cup}-Avg.png

    Masks are 0 and 255, as wide as the pair or as one view. Suspects count as glaucoma, because
    they share its folder. The set has no split.
    """
    sources = {
        "1": ("Expert1_masks", "exp1"),
        "2": ("Expert2_masks", "exp2"),
        "average": ("Average_masks", "Avg"),
    }
    _known("expert", expert, sources)
    folder, ending = sources[expert]
    base = _folder(root, "RIM-ONE r3") or root
    samples = []
    for group in ("Healthy", "Glaucoma and suspects"):
        truth = existing(base / group / folder)
        for image in sorted(existing(base / group / "Stereo Images").rglob("*.jpg")):
            masks = []
            for structure in ("Disc", "Cup"):
                numbered = truth / f"{image.stem}-1-{structure}-{ending}.png"
                plain = truth / f"{image.stem}-{structure}-{ending}.png"
                masks.append(numbered if numbered.exists() else existing(plain))
            samples.append(
                Sample(
                    id=image.stem,
                    set="RIM-ONE r3",
                    image=image,
                    masks=tuple(masks),
                    structures=DISC_AND_CUP,
                    glaucoma=group != "Healthy",
                    laterality={"R": "OD", "L": "OS"}.get(image.stem.rpartition("-")[2]),
                    convert=from_binary,
                    stereo_pair=True,
                )
            )
    return samples


def read_rim_one_dl(root: Path, *, partition: str = "hospital", split: str = "") -> list[Sample]:
    """RIM-ONE DL: pictures that are crops around the disc already. Splits train, test.

        RIM-ONE_DL_images/{partitioned_by_hospital,partitioned_randomly}/
            {training_set,test_set}/{glaucoma,normal}/r1_Im001.png
        RIM-ONE_DL_reference_segmentations/{glaucoma,normal}/r1_Im001-1-{Disc,Cup}-T.png

    Masks are 0 and 255. Both partitions have the same 485 pictures. In the partition by hospital,
    the test set is from other hospitals than the training set.
    """
    folders = {"hospital": "partitioned_by_hospital", "random": "partitioned_randomly"}
    _known("partition", partition, folders)
    _known("split", split, ("train", "test"))
    base = existing(root / "RIM-ONE_DL_images" / folders[partition])
    truth = existing(root / "RIM-ONE_DL_reference_segmentations")
    samples = [
        Sample(
            id=image.stem,
            set="RIM-ONE DL",
            image=image,
            masks=(
                existing(truth / group / f"{image.stem}-1-Disc-T.png"),
                existing(truth / group / f"{image.stem}-1-Cup-T.png"),
            ),
            structures=DISC_AND_CUP,
            glaucoma=group == "glaucoma",
            split=name,
            convert=from_binary,
        )
        for name, part in (("train", "training_set"), ("test", "test_set"))
        for group in ("glaucoma", "normal")
        for image in sorted(existing(base / part / group).glob("*.png"))
    ]
    return only(samples, split=split)


def read_origa(root: Path, *, split: str = "") -> list[Sample]:
    """ORIGA-light: 650 frames. Splits A and B are the halves of the set's authors.

    Images/001.jpg
    Masks/001.png                          (0 background, 1 rim, 2 cup), or, if not there,
    Semi-automatic-annotations/001.mat     (a variable `mask` of the same values)
    OrigaList.csv                          (columns Eye, Filename, Set, Glaucoma)
    """
    _known("split", split, ("A", "B"))
    in_png = (root / "Masks").is_dir()
    truth = root / "Masks" if in_png else existing(root / "Semi-automatic-annotations")
    samples = []
    with existing(root / "OrigaList.csv").open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            name = Path(row["Filename"].strip(" '\""))
            samples.append(
                Sample(
                    id=name.stem,
                    set="ORIGA",
                    image=existing(root / "Images" / name),
                    masks=(existing(truth / f"{name.stem}{'.png' if in_png else '.mat'}"),),
                    structures=DISC_AND_CUP,
                    glaucoma=row["Glaucoma"].strip() == "1",
                    split=row["Set"].strip(" '\""),
                    laterality={"OD": "OD", "OS": "OS"}.get(row["Eye"].strip(" '\"")),
                    convert=from_plain,
                )
            )
    return only(samples, split=split)


LAYOUTS: dict[str, Callable[..., list[Sample]]] = {
    "refuge": read_refuge,
    "drishti-gs": read_drishti_gs,
    "rim-one-r3": read_rim_one_r3,
    "rim-one-dl": read_rim_one_dl,
    "origa": read_origa,
    "manifest": read_manifest,
    "folder": read_folder,
    "synthetic": read_synthetic,
}
"""The reader of each layout."""


def _folder(root: Path, *names: str) -> Path | None:
    """The first of these folders that exists, also inside a folder of the same name."""
    for name in names:
        for folder in (root / name / name, root / name):
            if folder.is_dir():
                return folder
    return None


def _known(key: str, value: str, allowed: Collection[str]) -> None:
    if value and value not in allowed:
        raise ConfigurationError(f"{key}={value}: give one of {', '.join(allowed)}")


def _sheet(path: Path, key: str, value: str) -> dict[str, str]:
    """Two columns of a workbook's first sheet, below the row that contains both titles."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    rows = [
        ["" if cell is None else str(cell) for cell in row] for row in book.worksheets[0].values
    ]
    book.close()
    for number, row in enumerate(rows):
        if key in row and value in row:
            k, v = row.index(key), row.index(value)
            return {line[k].strip(" '"): line[v].strip() for line in rows[number + 1 :] if line[k]}
    raise ConfigurationError(f"{path}: no row of titles with {key!r} and {value!r}")
