"""The bundle: weights and `bundle.json`, which training writes and screening loads.

    bundle.json                 what was trained, how, on what, with which scores, and its digest;
                                the risk model, once the bundle is calibrated
    detector.safetensors        one file of weights per network
    source_only.safetensors
    adapted.safetensors
    student.safetensors         one network that imitates the segmenter, for the profile `fast`

Weights are safetensors: nothing is unpickled. The digest is the SHA-256 of the content of
`bundle.json`, which includes the SHA-256 of every weights file. A bundle with an altered byte in
any file is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus.anatomy.risk import RiskModel
from fundus.archive.mirror import written
from fundus.errors import ConfigurationError
from fundus.images import working_frame
from fundus.models import architectures
from fundus.models.thresholds import Thresholds
from fundus.models.turns import Profile
from fundus.storage.places import FolderPlace, Place, place_at
from fundus.storage.retry import StorageFailed
from fundus.storage.uris import checked_name

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
DETECTOR, SOURCE_ONLY, ADAPTED, STUDENT = ROLES = ("detector", "source_only", "adapted", "student")
SPREAD = "vcdr_spread"
"""Key in the scores of a student, see `Bundle.hidden_spread`."""
LICENCE = "Apache-2.0 code; weights for research use, not a medical device"


class BundleError(ConfigurationError):
    """The bundle is missing, altered, incomplete or of another version; one sentence says which."""


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become network inputs; the same in training and in screening."""

    detector_side: int = 320
    """Side of the detector's input, pixels: the square around the field of view."""
    roi_side: int = 256
    """Side of the segmenter's input and of its maps, ROI pixels."""
    roi_scale: float = 1.7
    """Side of the ROI in diameters of the detected disc."""

    def least_side(self, *, precropped: bool) -> int:
        """Shorter side of a frame, or of a disc crop, that shows the networks all they can see."""
        return working_frame.least_side(
            self.roi_side, self.roi_scale, self.detector_side, precropped=precropped
        )


class Stored(Mapping[str, "Tensor"]):
    """A state dict in the form of its safetensors file, parsed when a tensor is read.

    A process that only passes the weights on does not import PyTorch.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._parsed: dict[str, Tensor] | None = None

    def _tensors(self) -> "dict[str, Tensor]":
        from safetensors.torch import load as parse

        if self._parsed is None:
            self._parsed = parse(self.content)
        return self._parsed

    def __getitem__(self, key: str) -> "Tensor":
        return self._tensors()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors())

    def __len__(self) -> int:
        return len(self._tensors())

    def __reduce__(self) -> tuple:
        return Stored, (self.content,)


@dataclass(frozen=True)
class Network:
    """One network of a bundle: architecture, weights, and how it was trained."""

    config: architectures.NetworkConfig
    """The architecture."""
    weights: "Mapping[str, Tensor]"
    """The state dict; `Stored` in a loaded bundle."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe of its training, as values for JSON."""
    data: tuple[dict[str, Any], ...] = ()
    """The sets that it learned from: name, role, count, digest."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Figures of its training, without target labels."""

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the weights file."""
        return hashlib.sha256(_serialise(self.weights)).hexdigest()

    def build(self) -> "nn.Module":
        """Build the network in evaluation mode; BundleError if the weights do not fit."""
        from safetensors import SafetensorError

        from fundus.models import networks

        network = networks.build(self.config)
        try:
            network.load_state_dict(self.weights)
        except (RuntimeError, SafetensorError) as error:
            raise BundleError(f"the weights do not fit their architecture: {error}") from error
        return network.eval()


@dataclass(frozen=True)
class Bundle:
    """Networks by role, with their preprocessing, thresholds and risk model."""

    networks: dict[str, Network]
    """By role: detector, source_only, adapted, student."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    thresholds: Thresholds = field(default_factory=Thresholds)
    licence: str = LICENCE
    risk: RiskModel | None = None
    """Fitted to measures of the segmenters: it goes when one of them changes."""

    def __post_init__(self) -> None:
        unknown = set(self.networks) - set(ROLES)
        if unknown:
            raise BundleError(
                f"a bundle has no role {sorted(unknown)[0]!r}, only {', '.join(ROLES)}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the whole content of the bundle."""
        return _digest(self._manifest())

    @property
    def measuring(self) -> str:
        """SHA-256 (hexadecimal) of networks, preprocessing and thresholds, which measure an eye.

        Risk, scores, recipes and licence are not included: a calibrated bundle measures alike.
        """
        manifest = self._manifest()
        manifest["networks"] = {
            role: {name: one[name] for name in ("network", "sha256")}
            for role, one in manifest["networks"].items()
        }
        names = ("format", "preprocessing", "thresholds", "networks")
        return _digest({name: manifest[name] for name in names})

    def hidden_spread(self, profile: Profile) -> float | None:
        """Standard deviation of the vCDR that the maps of a profile do not show.

        The passes of a student agree with each other although the networks that it imitates do not.
        It is the median of their `vcdr_sd` on validation pictures, None if that was not measured.
        Without a student nothing is hidden: 0.
        """
        if profile == "exact" or STUDENT not in self.networks:
            return 0.0
        return self.networks[STUDENT].scores.get(SPREAD)

    def with_network(self, role: str, network: Network) -> "Bundle":
        """The bundle with one network added or replaced.

        The risk model was fitted to, and the student imitates, the segmenters that were there: with
        another network than a student both are removed.
        """
        if role == STUDENT:
            return replace(self, networks=self.networks | {role: network})
        kept = {k: v for k, v in self.networks.items() if k != STUDENT or role == DETECTOR}
        return replace(self, networks=kept | {role: network}, risk=None)

    def without(self, role: str) -> "Bundle":
        """The bundle without one network; unchanged without it. More goes as in `with_network`."""
        if role not in self.networks:
            return self
        left = {k: v for k, v in self.networks.items() if k != role}
        if role not in (DETECTOR, STUDENT):
            left.pop(STUDENT, None)
        return replace(self, networks=left, risk=self.risk if role == STUDENT else None)

    def trained_on(self, digest: str) -> dict[str, str]:
        """The networks that learned from the set of this digest, with the set's role for each."""
        return {
            role: data["role"]
            for role, network in self.networks.items()
            for data in network.data
            if data["digest"] == digest
        }

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "licence": self.licence,
            "preprocessing": vars(self.preprocessing),
            "thresholds": self.thresholds.described(),
            "networks": {
                role: {
                    "network": architectures.describe(network.config),
                    "sha256": network.digest,
                    "recipe": network.recipe,
                    "data": list(network.data),
                    "scores": network.scores,
                }
                for role, network in sorted(self.networks.items())
            },
        } | ({"risk": vars(self.risk)} if self.risk else {})


def save(bundle: Bundle, folder: Path | str) -> None:
    """Write the bundle's files into `folder`, a path or s3:// URI. Other files there stay.

    Each file is replaced atomically, and `bundle.json` is written last: a reader finds the old
    bundle or the new one, or refuses a mixture of both.
    """
    manifest = bundle._manifest()
    with written(place_at(str(folder))) as local:
        for role, network in bundle.networks.items():
            _replace(local / f"{role}.safetensors", _serialise(network.weights))
        text = json.dumps(manifest | {"digest": _digest(manifest)}, indent=2, sort_keys=True) + "\n"
        _replace(local / "bundle.json", text.encode())
        for role in set(ROLES) - set(bundle.networks):
            (local / f"{role}.safetensors").unlink(missing_ok=True)


def exists(folder: Path | str) -> bool:
    """Whether the folder, a path or s3:// URI, contains a bundle."""
    return _read(place_at(str(folder)), "bundle.json") is not None


def load(folder: Path | str) -> Bundle:
    """Read and check the bundle in a folder, a path or s3:// URI.

    Raises:
        BundleError: there is no bundle, a byte was altered, or it is of another version.
    """
    place = place_at(str(folder))
    try:
        content = _read(place, "bundle.json")
        manifest = json.loads(content) if content is not None else None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}/bundle.json cannot be read: {error}") from error
    if content is None:
        raise BundleError(
            f"{folder} is no bundle: it has no bundle.json; give the folder of a trained bundle"
        )
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is not a bundle of format {FORMAT}, the only one that is read: train it anew"
        )
    if manifest.pop("digest", None) != _digest(manifest):
        raise BundleError(
            f"{folder}/bundle.json was altered: its digest does not match; copy the bundle again"
        )
    try:
        return Bundle(
            networks={
                role: _read_network(place, role, entry)
                for role, entry in manifest["networks"].items()
            },
            preprocessing=Preprocessing(**manifest["preprocessing"]),
            thresholds=Thresholds(**manifest["thresholds"]),
            licence=manifest["licence"],
            risk=RiskModel(**manifest["risk"]) if "risk" in manifest else None,
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BundleError(f"{folder} is not a bundle of this version: {error}") from error
    except ValueError as error:
        raise BundleError(f"{folder}: {error}") from error


def default_folder() -> Path:
    """The bundle that comes with the package."""
    return Path(__file__).parent.parent / "bundles" / "default"


def copy(source: Path | str, destination: Path) -> None:
    """Copy a bundle, at a path or s3:// URI, with all files beside it."""
    place = place_at(str(source))
    if isinstance(place, FolderPlace):
        shutil.copytree(place.folder, destination, dirs_exist_ok=True)
        return
    for name in place.list():
        file = destination / checked_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_read(place, name) or b"")


def _read(place: Place, name: str) -> bytes | None:
    """The content of a file, or None if there is none; OSError if it cannot be read."""
    try:
        found = place.read(name)
    except StorageFailed as failed:
        raise OSError(failed.reason) from failed
    return found[0] if found else None


def _read_network(place: Place, role: str, entry: Mapping[str, Any]) -> Network:
    if role not in ROLES:
        raise ConfigurationError(f"a bundle has no role {role!r}")
    name = f"{role}.safetensors"
    try:
        content = _read(place, name)
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}") from error
    if content is None:
        raise ConfigurationError(f"{name} is missing: copy the whole bundle again")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ConfigurationError(
            f"{name} was altered: its digest does not match; copy the bundle again"
        )
    return Network(
        config=architectures.parse(entry["network"]),
        weights=Stored(content),
        recipe=entry["recipe"],
        data=tuple(entry["data"]),
        scores=entry["scores"],
    )


def _serialise(weights: "Mapping[str, Tensor]") -> bytes:
    if isinstance(weights, Stored):
        return weights.content
    from safetensors.torch import save as dump

    return dump({key: weights[key].detach().cpu().contiguous() for key in sorted(weights)})


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_suffix(file.suffix + ".partial")
    partial.write_bytes(content)
    partial.replace(file)
