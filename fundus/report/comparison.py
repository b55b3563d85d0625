"""Comparison of two bundles on one archive, by two results or two versions of one."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fundus.anatomy.pairs import Pair, differing_most
from fundus.errors import ConfigurationError
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.ledger import table
from fundus.notebook.results import mask_of
from fundus.report import changes, pictures
from fundus.report.page import render
from fundus.storage.places import Place

KEY = ("uri", "etag", "frame")
LIGHT = (*KEY, "status", "vcdr", "referable", "bundle", "measuring")
MOST = 24
"""Eyes that the page shows."""
CANDIDATES = 200
"""Eyes whose masks are compared: those whose vCDR differs most."""
ONE_SIDED = 8
"""Most shown eyes that only one of the bundles measured."""


@dataclass(frozen=True)
class Written:
    """The page and its counts."""

    uri: str
    both: int
    """Pictures with a row on both sides."""
    shown: int
    """Eyes that the page shows."""


def write(
    place: Place,
    against: Place,
    version: int | None = None,
    *,
    site: str = "",
    sources: Mapping[str, str] | None = None,
) -> Written:
    """Write `reports/comparison-<before>-<after>.html` into the results.

    Args:
        place: results of the later bundle, which get the page.
        against: results of the earlier bundle on the same archive; may be the same location.
        version: the version of `against`; None for the newest.
        site: the name of the hospital or programme; "" for none.
        sources: the URI of the bytes for each pseudonym, if the rows have pseudonyms.

    Returns:
        The URI of the page, and counts.

    Raises:
        ConfigurationError: there are no results or no such version, the two have no picture in
            common, or all pictures were measured by the same networks and settings.
    """
    before = table.read(against.uri, list(LIGHT), version)
    after = table.read(place.uri, list(LIGHT))
    joined = before.join(after, list(KEY), join_type="inner", right_suffix="_after")
    if not joined.num_rows:
        raise ConfigurationError(
            f"{against.uri} and {place.uri} have no picture in common: compare results of the same"
            " archive"
        )
    if joined["measuring"].equals(joined["measuring_after"]):
        raise ConfigurationError(
            "both results are of the same networks, preprocessing and thresholds: screen with the"
            " other bundle first, or give an earlier --version"
        )
    names = tuple(_bundle(joined[name]) for name in ("bundle", "bundle_after"))
    vcdr = [joined[name].to_numpy() for name in ("vcdr", "vcdr_after")]
    pairs = list(_pairs(joined, vcdr, place, against, version, sources))
    page = render(
        "comparison.html.j2",
        title=f"{site}: two bundles compared" if site else "Two bundles compared",
        sentence=_sentence(joined, before.num_rows, after.num_rows, names),
        statuses=_statuses(joined),
        referable=_referable(joined),
        figures=changes.figures(vcdr[0], vcdr[1], ("before", "after")),
        names=("before", "after"),
        pairs=changes.shown(pairs),
    )
    name = f"reports/comparison-{names[0]}-{names[1]}.html"
    place.put(name, page)
    return Written(f"{place.uri}/{name}", joined.num_rows, len(pairs))


def _bundle(column: pa.ChunkedArray) -> str:
    """The first twelve digits of the digest that most rows name."""
    [(digest, _)] = Counter(column.to_pylist()).most_common(1)
    return digest[:12]


def _sentence(joined: pa.Table, before: int, after: int, names: tuple[str, ...]) -> str:
    alone = before + after - 2 * joined.num_rows
    text = (
        f"{joined.num_rows:,} pictures were screened with bundle {names[0]} (before) and with"
        f" bundle {names[1]} (after)."
    )
    return text + (f" {alone:,} rows of one side alone are left out." if alone else "")


def _statuses(joined: pa.Table) -> list[tuple[str, str, int]]:
    """Status before, status after and the number of pictures, where the two differ."""
    pairs = zip(joined["status"].to_pylist(), joined["status_after"].to_pylist(), strict=True)
    counted = Counter(pair for pair in pairs if pair[0] != pair[1])
    return [(old, new, count) for (old, new), count in counted.most_common()]


def _referable(joined: pa.Table) -> list[tuple[str, int]]:
    """How many eyes each bundle refers; empty unless both are calibrated."""
    old, new = (joined[name].to_pylist() for name in ("referable", "referable_after"))
    known = [(a, b) for a, b in zip(old, new, strict=True) if a is not None and b is not None]
    if not known:
        return []
    counted = Counter(known)
    return [
        ("referable before and after", counted[True, True]),
        ("referable before alone", counted[True, False]),
        ("referable after alone", counted[False, True]),
        ("referable in neither", counted[False, False]),
    ]


def _pairs(
    joined: pa.Table,
    vcdr: list[np.ndarray],
    place: Place,
    against: Place,
    version: int | None,
    sources: Mapping[str, str] | None,
) -> Iterator[Pair]:
    """The eyes whose outlines differ most, with their pictures."""
    gap = np.abs(vcdr[1] - vcdr[0])
    measured = [np.isfinite(values) for values in vcdr]
    one_sided = np.flatnonzero(measured[0] != measured[1])[:ONE_SIDED]
    both = np.flatnonzero(measured[0] & measured[1])
    widest = both[np.argsort(-gap[both], kind="stable")][:CANDIDATES]
    chosen = joined.take(pa.array(np.concatenate([one_sided, widest]))).select(list(KEY))
    old = _rows(against, chosen, version)
    new = _rows(place, chosen)
    masked = [
        key for key in new if old[key]["mask_png"] is not None or new[key]["mask_png"] is not None
    ]
    by_name = {f"{uri}#{frame}": (uri, etag, frame) for uri, etag, frame in masked}
    drawn = (_pair(name, old[key], new[key]) for name, key in by_name.items())
    found = differing_most(drawn, MOST)
    rows = [_framed(old[by_name[one.name]], new[by_name[one.name]]) for one in found]
    for pair, one, picture in zip(found, rows, pictures.originals(rows, sources), strict=True):
        where = Roi(one["roi_x"], one["roi_y"], one["roi_size"])
        crop = None if picture is None else roi.crop(picture, where, changes.SIDE)
        name = pair.name.rpartition("#")[0] if one["frames"] == 1 else pair.name
        yield Pair(name, pair.before, pair.after, pair.vcdr, crop)


def _rows(
    place: Place, chosen: pa.Table, version: int | None = None
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Whole rows of the chosen pictures, masks included, by key."""
    columns = [*KEY, "frames", "vcdr", "roi_x", "roi_y", "roi_size", "mask_png"]
    where = pc.field("uri").isin(chosen["uri"].combine_chunks())
    keys = {tuple(one.values()) for one in chosen.to_pylist()}
    found = table.read(place.uri, columns, version, where).to_pylist()
    by_key = {tuple(one[name] for name in KEY): one for one in found}
    return {key: one for key, one in by_key.items() if key in keys}


def _framed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row in whose ROI both outlines are shown: the later one, if it has a mask."""
    return old if new["mask_png"] is None else new


def _pair(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Pair:
    framed = _framed(old, new)
    side = mask_of(framed).shape[0]
    where = Roi(framed["roi_x"], framed["roi_y"], framed["roi_size"])
    before, after = (_seen(one, where, side) for one in (old, new))
    return Pair(name, before, after, (old["vcdr"], new["vcdr"]))


def _seen(one: Mapping[str, Any], where: Roi, side: int) -> np.ndarray:
    """A row's mask as (side, side) labels of the ROI `where`; all 0 without a mask."""
    if one["mask_png"] is None:
        return np.zeros((side, side), np.uint8)
    mask = mask_of(one)
    scale = mask.shape[0] / one["roi_size"]
    own = Roi(
        (where.x - one["roi_x"]) * scale, (where.y - one["roi_y"]) * scale, where.size * scale
    )
    return roi.crop_mask(mask, own, side)
