"""A network made ready to answer: an OpenVINO graph on CPUs, PyTorch on GPUs.

OpenVINO folds batch norm into the convolutions, fuses activations and keeps its own memory layout:
2.6 times as fast as PyTorch on one core (`benchmarks/engines.py`, docs/performance.md). The graph
is built from the bundle's weights when they are loaded: nothing but safetensors is ever read.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fundus.models.networks import to_input

TOGETHER = {"cpu": 8, "cuda": 256}
"""Pictures in one pass. On a CPU eight keep the activations in the cache; more gained nothing."""


class Engine:
    """One network on one device."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._together = TOGETHER.get(device.type, 8)
        answers = nn.Sequential(network, nn.Sigmoid()).eval()
        # OpenVINO's clamps turn NaN into numbers: a broken network's weights stay with PyTorch.
        sound = all(bool(values.isfinite().all()) for values in answers.state_dict().values())
        fits = device.type == "cpu" and sound
        self._run = _graph(answers) if fits else _torch(answers, device)

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 RGB on the device -> (N, maps, S, S) float32 in [0, 1].

        What a broken network answers comes through: NaN and infinity are the caller's to refuse.
        """
        return torch.cat([self._run(to_input(some)) for some in pictures.split(self._together)])


def _torch(answers: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Channels last, in bfloat16 where the card has it. Written with care, not run on a GPU."""
    answers = answers.to(device).to(memory_format=torch.channels_last)
    on_gpu = device.type == "cuda"
    precision = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.float16

    @torch.inference_mode()
    def run(pictures: Tensor) -> Tensor:
        with torch.autocast(device.type, precision, enabled=on_gpu):
            return answers(pictures).float()

    return run


def _graph(answers: nn.Module) -> Callable[[Tensor], Tensor]:
    """An OpenVINO graph for as many threads as PyTorch would take; compiled once for each shape.

    The front end is called itself: `openvino.convert_model` reports to its makers.
    """
    from openvino import Core
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    core, settings = Core(), _settings()
    reader = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the tracer, which OpenVINO still takes
        example = torch.zeros(1, 3, 64, 64)
        with torch.no_grad():
            traced = torch.jit.trace(answers, example, check_trace=False)
        # The graph reads the weights where PyTorch holds them: the decoder has to live on.
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
    model = reader.convert(reader.load(decoder))
    shapes: dict[tuple[int, ...], Any] = {}

    def run(pictures: Tensor, _weights: object = decoder) -> Tensor:
        shape = tuple(pictures.shape)
        if shape not in shapes:
            model.reshape(list(shape))
            shapes[shape] = core.compile_model(model, "CPU", settings).create_infer_request()
        found = shapes[shape].infer([pictures.contiguous().numpy()])
        return torch.from_numpy(found[0].copy())

    return run


def _settings() -> dict:
    """Unpinned: two processes that each pin themselves to the first core would share it."""
    return {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
