"""The configuration of a screening, checked when it is made, and the `settings` of its rows."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from fundus.errors import ConfigurationError
from fundus.ledger import pseudonyms
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle
from fundus.models.turns import PROFILES, Profile
from fundus.storage.uris import lies_in, normal

GRADABILITY = ("refuse", "advise", "off")
EXTRAS = {"dicom": "--dicom-seg to this location", "subjects": f"this key in {pseudonyms.KEY}"}
"""Outputs of a run beside the rows, as messages name them."""


@dataclass(frozen=True)
class Screening:
    """The configuration of one run over one archive."""

    archive: str
    """Folder, s3://bucket/prefix, or a list of URIs."""
    results: str
    """Folder or s3://bucket/prefix."""
    precropped: bool = False
    """The pictures are disc crops already; there is no detection."""
    limit: int | None = None
    """Screen only the first objects of the listing; None for all."""
    suffixes: tuple[str, ...] = ()
    """Only objects whose names end with one of these; empty for all."""
    glob: str | None = None
    """Only objects whose path below the archive matches; None for all."""
    modified_since: datetime | None = None
    """Only objects that changed at this time or later; None for all."""
    system_files: bool = False
    """Also list the files that NAS and desktop systems create among pictures."""
    gradability: Literal["refuse", "advise", "off"] = "advise"
    """`advise` measures pictures of poor quality and flags them `poor_quality`, except for those
    that are black or not fundus photographs, which are `ungradable`. `refuse` makes all of them
    `ungradable`. `off` does not assess quality."""
    profile: Profile = "exact"
    """`fast` makes fewer passes per picture: see `fundus.models.turns.seen_by`."""
    retry_failed: bool = False
    """Screen objects again whose row is a failure."""
    take_over: bool = False
    """Take the claim on the results from any run that holds it."""
    pseudonymise_uris: bool = False
    """Rows carry an HMAC of the URI instead of the URI."""
    uri_map: Path | None = None
    """File for the URI of each pseudonym; None for no such file."""
    dicom_out: str | None = None
    """Folder or s3:// URI for DICOM Segmentations and Structured Reports, outside the results."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"the limit is {self.limit}: give 1 or more objects")
        if self.gradability not in GRADABILITY:
            raise ConfigurationError(
                f"gradability is {self.gradability!r}; give one of {', '.join(GRADABILITY)}"
            )
        if self.profile not in PROFILES:
            raise ConfigurationError(
                f"profile is {self.profile!r}; give one of {', '.join(PROFILES)}"
            )
        if normal(self.archive).rstrip("/") == normal(self.results).rstrip("/"):
            raise ConfigurationError(
                "the results would be among the archive's pictures: give another --results"
            )
        if self.dicom_out and lies_in(self.dicom_out, self.results):
            raise ConfigurationError(
                "DICOM objects cannot be written into the results: give another location as"
                " --dicom-seg"
            )
        if self.dicom_out and lies_in(self.dicom_out, self.archive):
            raise ConfigurationError(
                "DICOM objects in the archive would be screened the next time: give another"
                " location as --dicom-seg"
            )
        if self.pseudonymise_uris and pseudonyms.key() is None:
            raise ConfigurationError(
                f"pseudonyms need a key: set {pseudonyms.KEY} in the environment"
            )
        if self.uri_map and not self.pseudonymise_uris:
            raise ConfigurationError("a map of URIs needs --pseudonymise-uris: add it")

    @property
    def settings(self) -> str:
        """The settings that influence a row, besides picture and bundle; part of its identity."""
        kind = "precropped" if self.precropped else "frames"
        settings = f"{kind}, gradability {self.gradability}"
        return settings if self.profile == "exact" else f"{settings}, profile {self.profile}"

    @property
    def source(self) -> str:
        """SHA-256 of the archive and the filters, by which an unfinished run is continued."""
        chosen = (
            normal(self.archive).rstrip("/"),
            self.limit,
            self.suffixes,
            self.glob,
            str(self.modified_since),
            self.system_files,
            self.retry_failed,
        )
        return hashlib.sha256(repr(chosen).encode()).hexdigest()

    @property
    def extras(self) -> tuple[str, ...]:
        """The outputs beside the measurements, for the run's own file, without any key or path."""
        found = []
        if self.dicom_out:
            place = normal(self.dicom_out).rstrip("/")
            found.append(f"dicom {hashlib.sha256(place.encode()).hexdigest()[:16]}")
        key = pseudonyms.key()
        if key:
            found.append(f"subjects {pseudonyms.pseudonym('the key of this place', key)[:16]}")
        return tuple(found)

    @property
    def archive_shown(self) -> str:
        """The archive as the results may name it; empty if URIs are pseudonyms."""
        return "" if self.pseudonymise_uris else self.archive

    @property
    def uri_key(self) -> bytes | None:
        """The key for pseudonyms of URIs; None if URIs stay as they are."""
        return pseudonyms.key() if self.pseudonymise_uris else None

    def check(self, bundle: Bundle) -> None:
        """Raise ConfigurationError if the bundle lacks a network for this run."""
        if not self.precropped and DETECTOR not in bundle.networks:
            raise ConfigurationError(
                "the bundle has no detector: give one that has, or screen disc crops with"
                " --precropped"
            )
        if not {SOURCE_ONLY, ADAPTED} & set(bundle.networks):
            raise ConfigurationError(
                "the bundle has no segmenter: train one with jobs/train.py segmenter"
            )
