"""Pictures whose disc alone is outlined teach the disc and leave the cup alone."""

import torch
from torch import Tensor, nn

from fundus.datasets.batches import CUP_UNKNOWN
from fundus.training.source import source_step


class Level(nn.Module):
    """A logit for each map, the same at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.levels[None, :, None, None] + 0 * pictures[:, :2]


def gradients(label: int) -> list[float]:
    network = Level()
    mask = torch.zeros(2, 16, 16, dtype=torch.uint8)
    mask[:, 4:12, 4:12] = label
    batch = (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), mask)
    source_step(network, batch, "float32", cross_entropy=0.5)[0].backward()
    assert network.levels.grad is not None
    return network.levels.grad.tolist()


def test_an_unknown_cup_pulls_nowhere_and_its_disc_as_ever() -> None:
    disc, cup = gradients(CUP_UNKNOWN)
    rim_disc, rim_cup = gradients(1)
    assert abs(cup) < 1e-7 < abs(rim_cup)
    assert disc == rim_disc
