"""The bundle: a place with weights and `bundle.json` that training yields and screening loads.

    bundle.json                 what was trained, how, on what, with which scores, and its digest;
                                the risk model, once the bundle is calibrated
    detector.safetensors        one file of weights for each network that the bundle holds
    source_only.safetensors
    adapted.safetensors

Weights are safetensors: nothing is unpickled. The digest is the SHA-256 of `bundle.json`'s content,
which holds the SHA-256 of every weights file: one altered byte anywhere and the bundle is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor, nn

from fundus.anatomy.risk import RiskModel
from fundus.errors import ConfigurationError
from fundus.models import networks
from fundus.models.thresholds import Thresholds
from fundus.storage.mirror import written
from fundus.storage.places import FolderPlace, Place, place_at
from fundus.storage.retry import StorageFailed
from fundus.storage.uris import checked_name

FORMAT = 1
DETECTOR, SOURCE_ONLY, ADAPTED = ROLES = ("detector", "source_only", "adapted")
LICENCE = "Apache-2.0 code; weights for research use, not a medical device"


class BundleError(ConfigurationError):
    """The folder is not a bundle that this version can trust; the message is one sentence."""


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become network inputs; the same in training and in screening."""

    detector_side: int = 320
    """Side of the detector's input, pixels: the square around the field of view."""
    roi_side: int = 256
    """Side of the segmenter's input and of its maps, ROI pixels."""
    roi_scale: float = 1.7
    """Side of the ROI in diameters of the detected disc."""


@dataclass(frozen=True)
class Network:
    """One network of a bundle: what it is, its weights, and how it came to be."""

    config: networks.NetworkConfig
    """Its architecture."""
    weights: dict[str, Tensor]
    """Its state dict."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe that trained it, as JSON-ready values."""
    data: tuple[dict[str, Any], ...] = ()
    """The sets that it learned from: name, role, count, digest."""
    scores: dict[str, Any] = field(default_factory=dict)
    """What its training measured without target labels."""

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of its weights file."""
        return hashlib.sha256(_serialise(self.weights)).hexdigest()

    def build(self) -> nn.Module:
        """The network with its weights, in evaluation mode."""
        network = networks.build(self.config)
        network.load_state_dict(self.weights)
        return network.eval()


@dataclass(frozen=True)
class Bundle:
    """Networks by role, and how to feed and read them."""

    networks: dict[str, Network]
    """By role: detector, source_only, adapted."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    thresholds: Thresholds = field(default_factory=Thresholds)
    licence: str = LICENCE
    risk: RiskModel | None = None
    """Calibrated on what these very networks measure: `with_network` and `without` drop it."""

    def __post_init__(self) -> None:
        unknown = set(self.networks) - set(ROLES)
        if unknown:
            raise BundleError(
                f"a bundle has no role {sorted(unknown)[0]!r}, only {', '.join(ROLES)}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that the bundle says and holds."""
        return _digest(self._manifest())

    @property
    def measuring(self) -> str:
        """SHA-256 (hexadecimal) of what decides a measurement: networks, preprocessing, thresholds.

        Risk, scores, recipes and licence do not: a bundle that was calibrated anew measures alike.
        """
        manifest = self._manifest()
        manifest["networks"] = {
            role: {name: one[name] for name in ("network", "sha256")}
            for role, one in manifest["networks"].items()
        }
        names = ("format", "preprocessing", "thresholds", "networks")
        return _digest({name: manifest[name] for name in names})

    def with_network(self, role: str, network: Network) -> "Bundle":
        """The same bundle with one network put in or replaced, not calibrated any more."""
        return replace(self, networks=self.networks | {role: network}, risk=None)

    def without(self, role: str) -> "Bundle":
        """The same bundle less one network; one that was not there changes nothing."""
        if role not in self.networks:
            return self
        left = {k: v for k, v in self.networks.items() if k != role}
        return replace(self, networks=left, risk=None)

    def met(self, digest: str) -> dict[str, str]:
        """The networks that learned from the set of this digest, and as what: role by network."""
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
                    "network": networks.describe(network.config),
                    "sha256": network.digest,
                    "recipe": network.recipe,
                    "data": list(network.data),
                    "scores": network.scores,
                }
                for role, network in sorted(self.networks.items())
            },
        } | ({"risk": vars(self.risk)} if self.risk else {})


def save(bundle: Bundle, folder: Path | str) -> None:
    """Write the bundle's files into `folder`, a path or s3:// URI; what else lies there (curves, a
    card) stays.

    Each file is replaced atomically and `bundle.json` comes last: a reader finds the old bundle,
    the new one, or refuses a mixture of both.
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
    """Whether a bundle lies in the folder, a path or s3:// URI."""
    return _read(place_at(str(folder)), "bundle.json") is not None


def load(folder: Path | str) -> Bundle:
    """Read and check the bundle in a folder, a path or s3:// URI; BundleError, in one sentence,
    unless every byte is as published.
    """
    place = place_at(str(folder))
    try:
        content = _read(place, "bundle.json")
        manifest = json.loads(content) if content is not None else None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}/bundle.json cannot be read: {error}") from error
    if content is None:
        raise BundleError(f"{folder} is no bundle: it has no bundle.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{folder} is not a bundle of format {FORMAT}, the one known here")
    if manifest.pop("digest", None) != _digest(manifest):
        raise BundleError(f"{folder}/bundle.json was altered: its digest does not match")
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
    """Copy the files of a bundle, at a path or s3:// URI, all that lie beside it included."""
    place = place_at(str(source))
    if isinstance(place, FolderPlace):
        shutil.copytree(place.folder, destination, dirs_exist_ok=True)
        return
    for name in place.list():
        file = destination / checked_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_read(place, name) or b"")


def _read(place: Place, name: str) -> bytes | None:
    """A file's content, or None where there is none; OSError where it cannot be had."""
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
        raise ConfigurationError(f"{name} is missing")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ConfigurationError(f"{name} was altered: its digest does not match")
    network = Network(
        config=networks.parse(entry["network"]),
        weights=parse_safetensors(content),
        recipe=entry["recipe"],
        data=tuple(entry["data"]),
        scores=entry["scores"],
    )
    network.build()  # the weights fit the architecture, or the bundle is refused now
    return network


def _serialise(weights: Mapping[str, Tensor]) -> bytes:
    return dump_safetensors(
        {key: weights[key].detach().cpu().contiguous() for key in sorted(weights)}
    )


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_suffix(file.suffix + ".partial")
    partial.write_bytes(content)
    partial.replace(file)
