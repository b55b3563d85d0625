"""Negatives show no disc, and their masks are empty."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from fundus.augmentation import negatives

SIDE = 64
RED, BLUE = (200, 40, 30), (0, 0, 255)


def frame_with_disc(x: int, y: int, radius: int = 6) -> tuple[Image, Mask]:
    """A red frame whose disc, and nothing else, is blue."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    picture = torch.where(disc, torch.tensor(BLUE)[:, None, None], torch.tensor(RED)[:, None, None])
    return Image(picture.to(torch.uint8)), Mask(disc.to(torch.uint8))


def shows_disc(picture: Tensor) -> bool:
    return bool((picture[2] > picture[0]).any())


@given(x=st.integers(8, 56), y=st.integers(8, 56), seed=st.integers(0, 99))
@pytest.mark.parametrize("kind", [negatives.mirrored, negatives.away])
def test_negatives_keep_the_retina_and_lose_the_disc(
    kind: negatives.Kind, x: int, y: int, seed: int
) -> None:
    torch.manual_seed(seed)
    made = negatives.make(kind, *frame_with_disc(x, y))
    if made is None:
        on_both_axes = all(abs(at - SIDE / 2) < 7 for at in (x, y))
        assert kind is negatives.away or on_both_axes, "any other disc can be mirrored away"
        return
    assert not shows_disc(made[0]) and not made[1].any()
    assert (made[0][0] > 150).float().mean() > 0.5


@pytest.mark.parametrize("kind", dict.fromkeys(negatives.KINDS), ids=lambda kind: kind.__name__)
def test_every_kind_makes_a_picture_with_an_empty_mask(kind: negatives.Kind) -> None:
    torch.manual_seed(0)
    picture, mask = frame_with_disc(14, 30)
    made = negatives.make(kind, picture, mask)
    assert made is not None
    assert made[0].shape == picture.shape and made[0].dtype == torch.uint8
    assert made[1].shape == mask.shape and not made[1].any()
    assert mask.any(), "the mask of the labelled picture is not emptied"


def test_angiograms_are_grey_with_bright_vessels() -> None:
    picture, mask = frame_with_disc(14, 30)
    picture[1] += torch.randint(30, (SIDE, SIDE), dtype=torch.uint8)
    picture[:, 32, 20:] = torch.tensor([100, 10, 10], dtype=torch.uint8)[:, None]  # a vessel
    for seed in range(6):
        torch.manual_seed(seed)
        made = negatives.make(negatives.angiogram, picture, mask)
        assert made is not None
        grey = made[0].float()
        assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])
        assert grey[0, 32, 30:60].mean() > grey[0, 40:50, 30:60].mean()


def test_the_stated_share_of_pictures_becomes_negative() -> None:
    torch.manual_seed(0)
    picture, mask = frame_with_disc(14, 30)
    transform = negatives.WithoutDisc(0.3)
    empty = sum(not transform(picture, mask)[1].any() for _ in range(1000))
    assert empty == pytest.approx(300, abs=45)
    assert transform(picture, mask)[1].dtype == torch.uint8
