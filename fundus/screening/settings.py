"""What a screening is told: checked where it is made, and shown as each row's `settings`."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from fundus.errors import ConfigurationError
from fundus.ledger import pseudonyms
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle
from fundus.storage.uris import lies_in, normal

GRADABILITY = ("refuse", "advise", "off")
EXTRAS = {"dicom": "--dicom-seg to this place", "subjects": f"this key in {pseudonyms.KEY}"}
"""What a run may make beside the rows, as a sentence names it."""


@dataclass(frozen=True)
class Screening:
    """One run over one archive."""

    archive: str
    """Folder, s3://bucket/prefix, or a list of URIs."""
    results: str
    """Folder or s3://bucket/prefix."""
    precropped: bool = False
    """The pictures are disc crops already: detection is left out."""
    limit: int | None = None
    """Only so many objects, the first as they are listed; None for all."""
    suffixes: tuple[str, ...] = ()
    """Only objects whose names end so; empty for all."""
    glob: str | None = None
    """Only objects whose path below the archive matches."""
    modified_since: datetime | None = None
    """Only objects changed since."""
    system_files: bool = False
    """List what NAS and desktop systems leave among pictures, too."""
    gradability: Literal["refuse", "advise", "off"] = "advise"
    """`advise` measures pictures that show little and says `poor_quality` in their flags, but for
    those that are black or no fundus photographs, which are `ungradable`; `refuse` makes them all
    `ungradable`, `off` does not assess."""
    retry_failed: bool = False
    """Screen objects anew whose row is a failure."""
    take_over: bool = False
    """Take the results place from whoever holds it."""
    pseudonymise_uris: bool = False
    """Rows carry an HMAC of the URI instead of it."""
    uri_map: Path | None = None
    """Where to write which pseudonym is which URI; None writes it nowhere."""
    dicom_out: str | None = None
    """Folder or s3:// place for DICOM Segmentation objects and Structured Reports; its own."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"the limit is {self.limit}, not a count of objects")
        if self.gradability not in GRADABILITY:
            raise ConfigurationError(
                f"gradability is {self.gradability!r}; give {', '.join(GRADABILITY)}"
            )
        if normal(self.archive).rstrip("/") == normal(self.results).rstrip("/"):
            raise ConfigurationError(
                "the results would lie among the archive's pictures: give another folder"
            )
        if self.dicom_out and lies_in(self.dicom_out, self.results):
            raise ConfigurationError(
                "DICOM objects in the results would mix with them: give another place"
            )
        if self.dicom_out and lies_in(self.dicom_out, self.archive):
            raise ConfigurationError(
                "DICOM objects in the archive would be screened the next time: give another place"
            )
        if self.pseudonymise_uris and pseudonyms.key() is None:
            raise ConfigurationError(
                f"pseudonyms want a key: set {pseudonyms.KEY} in the environment"
            )
        if self.uri_map and not self.pseudonymise_uris:
            raise ConfigurationError("a map of URIs goes with --pseudonymise-uris")

    @property
    def settings(self) -> str:
        """What decides a row beside the picture and the bundle; part of a row's identity."""
        kind = "precropped" if self.precropped else "frames"
        return f"{kind}, gradability {self.gradability}"

    @property
    def source(self) -> str:
        """SHA-256 of what is screened, the archive and the filters: an unfinished run goes on when
        the same is asked for again."""
        asked = (
            normal(self.archive).rstrip("/"),
            self.limit,
            self.suffixes,
            self.glob,
            str(self.modified_since),
            self.system_files,
            self.retry_failed,
        )
        return hashlib.sha256(repr(asked).encode()).hexdigest()

    @property
    def extras(self) -> tuple[str, ...]:
        """What is made beside the measurements, for the run's own file; no key and no path."""
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
        """The archive as the results may name it; empty where URIs are pseudonyms."""
        return "" if self.pseudonymise_uris else self.archive

    @property
    def uri_key(self) -> bytes | None:
        """What URIs are made pseudonyms with; None where they stay as they are."""
        return pseudonyms.key() if self.pseudonymise_uris else None

    def check(self, bundle: Bundle) -> None:
        """ConfigurationError, in one sentence, when the bundle cannot do this run."""
        if not self.precropped and DETECTOR not in bundle.networks:
            raise ConfigurationError(
                "the bundle has no detector: it can screen disc crops alone (--precropped)"
            )
        if not {SOURCE_ONLY, ADAPTED} & set(bundle.networks):
            raise ConfigurationError("the bundle has no segmenter")
