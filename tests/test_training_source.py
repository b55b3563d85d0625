"""One network learns from several labelled sets, some of discs alone, and finds a consensus."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fundus.datasets.batches import CUP_UNKNOWN, Crops
from fundus.training.source import Conventions, source_step, source_weights


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


def test_an_unknown_cup_gives_no_gradient_and_its_disc_the_usual_one() -> None:
    disc, cup = gradients(CUP_UNKNOWN)
    rim_disc, rim_cup = gradients(1)
    assert abs(cup) < 1e-7 < abs(rim_cup)
    assert disc == rim_disc


def of_sets(**vcdr: float) -> Crops:
    """One picture of each set, with its vCDR; NaN where the set outlines no cup."""
    blank = torch.zeros(len(vcdr))
    return Crops(tuple(vcdr), blank, blank, np.array(list(vcdr.values())), tuple(vcdr))


def test_each_set_has_its_offset_and_an_unknown_set_the_consensus() -> None:
    """A set that outlines the disc alone has no part in the consensus on cups."""
    conventions = Conventions(of_sets(a=0.5, b=0.5, discs=np.nan))
    with torch.no_grad():
        conventions.offsets.copy_(torch.tensor([[1.0, 3.0], [2.0, -1.0], [6.0, 50.0]]))
    offsets = conventions(["a", "b", "discs", "elsewhere"])
    expected = torch.tensor([[-2.0, 2.0], [-1.0, -2.0], [3.0, 0.0], [0.0, 0.0]])
    assert torch.allclose(offsets, expected)


def test_experts_who_disagree_leave_the_network_their_mean() -> None:
    """One draws every pixel as cup, the other none; the network alone must side with neither."""
    torch.manual_seed(0)
    network, conventions = Level(), Conventions(of_sets(large=0.9, small=0.1))
    optimiser = torch.optim.Adam([*network.parameters(), *conventions.parameters()], lr=0.1)
    labels = torch.ones(2, 16, 16, dtype=torch.uint8)
    labels[0] = 2
    batch = (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), labels)
    for _ in range(40):
        optimiser.zero_grad()
        offsets = conventions(["large", "small"])
        source_step(network, batch, "float32", 1.0, offsets)[0].backward()
        optimiser.step()
    level, (large, small) = network.levels[1], conventions(["large", "small"])[:, 1]
    assert level + large > 0 > level + small


def test_sets_weigh_the_root_of_their_count_and_are_balanced_by_vcdr() -> None:
    sets = ("many",) * 16 + ("few",) * 4
    vcdr = np.array([0.45] * 12 + [0.85] * 4 + [0.45, 0.45, 0.45, 0.85])
    crops = Crops(tuple(map(str, range(20))), torch.zeros(20), torch.zeros(20), vcdr, sets)
    weights = source_weights(crops, balance_vcdr=True, balance_sets=True)
    assert weights[:16].sum() == pytest.approx(2 * weights[16:].sum())
    assert weights[:12].sum() == pytest.approx(weights[12:16].sum())
