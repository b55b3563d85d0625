"""Inference engines: an OpenVINO graph on CPUs, PyTorch on GPUs.

OpenVINO folds batch norm into the convolutions, fuses activations and uses its own memory layout.
It is 2.6 times as fast as PyTorch on one core (`benchmarks/engines.py`, docs/performance.md). A
graph needs no PyTorch, whose import costs each process seconds. It is built from the bundle's
weights (fundus.models.convert): only safetensors are ever read from a bundle.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fundus.models.bundle import Network

TOGETHER = {"cpu": 8, "cuda": 256}
"""Pictures per pass. On a CPU the activations of eight fit into the cache; more gained nothing."""

Answer = Callable[[np.ndarray], np.ndarray]
"""(N, 3, S, S) uint8 RGB -> (N, maps, S, S) float32 in [0, 1]. The output of a broken network may
contain NaN or infinity, which the caller must check."""


class Engine(Protocol):
    """The networks of one role, which may be sent to another process before they are loaded."""

    def load(self) -> list[Answer]:
        """Load one function per network: the members of an ensemble, or the single network."""


@dataclass(frozen=True)
class Graphs:
    """OpenVINO graphs for CPUs, one per network."""

    graphs: tuple[tuple[bytes, bytes], ...]
    """Topology (XML) and weights of each network."""
    exact: bool = True
    """Compute in float32, so that every CPU gives the same answer. Otherwise OpenVINO uses bfloat16
    where the CPU has it: 1.5 times as fast there, and single probabilities differ by up to .02."""

    def load(self) -> list[Answer]:
        """Load the graphs for OMP_NUM_THREADS threads; each is compiled for few shapes."""
        together = TOGETHER["cpu"]
        runs = [_on_openvino(*graph, exact=self.exact) for graph in self.graphs]
        return [_in_passes(_filled(run), together) for run in runs]


@dataclass(frozen=True)
class Weights:
    """A network for PyTorch: on a GPU if there is one, else on the CPU."""

    network: "Network"
    device: str = ""
    """Device of PyTorch; "" for a GPU if there is one."""

    def load(self) -> list[Answer]:
        """Load it channels last, in bfloat16 if the card has it. Not run on a GPU yet."""
        import torch

        from fundus.models.networks import members

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        together = TOGETHER.get(device.type, TOGETHER["cpu"])
        networks = members(self.network.build())
        return [_in_passes(_on_torch(network, device), together) for network in networks]


def _in_passes(run: Answer, together: int) -> Answer:
    def answer(pictures: np.ndarray) -> np.ndarray:
        parts = range(0, len(pictures), together)
        return np.concatenate([run(pictures[start : start + together]) for start in parts])

    return answer


def _filled(run: Answer) -> Answer:
    """`run` on 1, 2, 4 or 8 pictures: to compile a graph costs as much as several passes."""

    def answer(pictures: np.ndarray) -> np.ndarray:
        count = len(pictures)
        blank = np.zeros(((1 << (count - 1).bit_length()) - count, *pictures.shape[1:]), np.uint8)
        return run(np.concatenate([pictures, blank]))[:count]

    return answer


def _on_torch(network: "nn.Module", device: Any) -> Answer:
    import torch

    from fundus.models.networks import to_input

    network = network.to(device).to(memory_format=torch.channels_last)
    on_gpu = device.type == "cuda"
    precision = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.float16

    @torch.inference_mode()
    def run(pictures: np.ndarray) -> np.ndarray:
        inputs: Tensor = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
        with torch.autocast(device.type, precision, enabled=on_gpu):
            return network(to_input(inputs)).float().sigmoid().cpu().numpy()

    return run


def _on_openvino(topology: bytes, weights: bytes, *, exact: bool) -> Answer:
    from openvino import Core

    core = Core()
    # Without pinning: two processes that pin themselves to the first core would share it.
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    if exact:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    model = core.read_model(topology, weights)
    shapes: dict[tuple[int, ...], Any] = {}

    def run(pictures: np.ndarray) -> np.ndarray:
        shape = pictures.shape
        if shape not in shapes:
            model.reshape(list(shape))
            shapes[shape] = core.compile_model(model, "CPU", settings).create_infer_request()
        return _probabilities(shapes[shape].infer([np.ascontiguousarray(pictures)])[0], shape[2:])

    return run


def _probabilities(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(N, maps, h, w) logits -> (N, maps, H, W) float32 in [0, 1], scaled as the networks do it.

    OpenCV's linear interpolation is PyTorch's bilinear one without aligned corners.
    """
    scaled = np.empty((*logits.shape[:2], *size), np.float32)
    for index in np.ndindex(*logits.shape[:2]):
        cv2.resize(-logits[index], size[::-1], dst=scaled[index], interpolation=cv2.INTER_LINEAR)
    with np.errstate(over="ignore"):  # exp of large values is infinite, and its share is 0
        np.exp(scaled, out=scaled)
    scaled += 1
    return np.reciprocal(scaled, out=scaled)


def threads() -> int:
    """Threads that Ray or the user allows this process; else one per core that it may use."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return int(allowed) if allowed.isdigit() and int(allowed) else len(os.sched_getaffinity(0))
