"""Conversion of a bundle's networks to OpenVINO graphs: made with PyTorch once, and run without it.

Most of the time for conversion is the import of PyTorch. The graphs are cached in
`$XDG_CACHE_HOME/fundus/graphs` (default `~/.cache`), under the digest of their network, so that the
second run of a bundle starts at once.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fundus.models import architectures
from fundus.models.bundle import Network
from fundus.models.engine import Engine, Graphs, Weights

if TYPE_CHECKING:
    from torch import nn

FORMAT = 3
"""Version of the graphs: raise it when `_converted` changes, so that cached graphs are not used."""
CACHED = 64
"""Most networks in the cache; those unused for longest are deleted first."""


def on_cpu(network: Network, *, exact: bool = True) -> Engine:
    """The network's graphs, from the cache if possible; `exact` as in `Graphs`.

    A network whose weights are not finite runs in PyTorch: OpenVINO's clamps turn NaN into numbers,
    and rows would not show that the network is broken.
    """
    folder = _cache() / _name(network)
    cached = _read(folder)
    if cached and len(cached.graphs) == architectures.count(network.config):
        return replace(cached, exact=exact)
    from fundus.models.networks import members

    built = network.build()
    if not all(bool(values.isfinite().all()) for values in built.state_dict().values()):
        return Weights(network, "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        made = tuple(_converted(member, Path(scratch)) for member in members(built))
    _write(folder, made)
    return Graphs(made, exact)


def _converted(network: "nn.Module", scratch: Path) -> tuple[bytes, bytes]:
    """Topology and weights of (N, 3, S, S) uint8 RGB -> float32 logits, of side S or less.

    The engine scales the logits up, which OpenVINO does slowly for one or two maps. The front end
    is called directly, because `openvino.convert_model` sends usage data.
    """
    import torch
    from openvino import serialize
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from torch import nn

    from fundus.models.networks import Coarse, ToInput

    answers = nn.Sequential(ToInput(), Coarse(network)).eval()
    example = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    reader = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # of the tracer, which OpenVINO still takes
        traced = torch.jit.trace(answers, example, check_trace=False)
        # The graph reads the weights from PyTorch's memory: the decoder must live to the end.
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        model = reader.convert(reader.load(decoder))
    files = scratch / "graph.xml", scratch / "graph.bin"
    serialize(model, *map(str, files))
    topology, weights = (file.read_bytes() for file in files)
    return topology, weights


def _name(network: Network) -> str:
    import openvino

    parts = [FORMAT, openvino.__version__, architectures.describe(network.config), network.digest]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "fundus" / "graphs"


def _read(folder: Path) -> Graphs | None:
    """The graphs in the cache; None if there is no such folder, or a byte was altered.

    Each file is named after its number and the SHA-256 of its content.
    """
    try:
        parts = []
        for number, file in enumerate(sorted(folder.iterdir())):
            content = file.read_bytes()
            if file.name != _file_name(number, content):
                return None
            parts.append(content)
        os.utime(folder)
    except OSError:
        return None
    return Graphs(tuple(zip(parts[::2], parts[1::2], strict=False)))


def _write(folder: Path, graphs: tuple[tuple[bytes, bytes], ...]) -> None:
    """Write all graphs or none; a cache that cannot be written only costs time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        for number, content in enumerate(part for graph in graphs for part in graph):
            (partial / _file_name(number, content)).write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or just written by another process
        partial.rename(folder)
        _drop_oldest(folder.parent)
    except OSError:
        return


def _file_name(number: int, content: bytes) -> str:
    return f"{number:03}-{hashlib.sha256(content).hexdigest()}"


def _drop_oldest(cache: Path) -> None:
    folders = sorted(cache.iterdir(), key=lambda one: one.stat().st_mtime)
    for folder in folders[:-CACHED]:
        shutil.rmtree(folder, ignore_errors=True)
