"""Augmentation moves picture and mask together, and recolours only the picture."""

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from fundus.anatomy import scores
from fundus.augmentation import augment


def disc_picture(side: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture whose red channel draws its own mask."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    disc = torch.from_numpy((x**2 + 1.5 * y**2 < (side / 4) ** 2).astype(np.uint8))
    cup = torch.from_numpy((x**2 + 1.5 * y**2 < (side / 8) ** 2).astype(np.uint8))
    mask = disc + cup
    mask[:, : side // 3] = 0  # no symmetry: every flip shows
    return (mask * 100)[None].repeat(3, 1, 1), mask


@pytest.mark.parametrize("seed", range(8))
def test_geometry_moves_picture_and_mask_together(seed: int) -> None:
    torch.manual_seed(seed)
    picture, mask = disc_picture()
    moved, label = augment._geometry(scale=(0.5, 1.5))(Image(picture), Mask(mask))
    drawn = moved[0].numpy() > 50
    assert (scores.dice(drawn, label.numpy() > 0) or 0) > 0.95


@pytest.mark.parametrize("name", augment.NAMED)
def test_labels_stay_valid_and_dtypes_stay(name: str) -> None:
    torch.manual_seed(1)
    picture, mask = disc_picture()
    images, masks = augment.apply(
        augment.NAMED[name](), picture[None].repeat(8, 1, 1, 1), mask[None].repeat(8, 1, 1)
    )
    assert images.shape == (8, 3, 128, 128) and images.dtype == torch.uint8
    assert masks.dtype == torch.uint8 and set(masks.unique().tolist()) <= {0, 1, 2}
    assert len({m.numpy().tobytes() for m in images}) > 1, "each picture is augmented on its own"


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_the_same_seed_gives_the_same_augmentation(name: str) -> None:
    picture, mask = disc_picture()
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(augment.apply(augment.NAMED[name](), picture[None], mask[None]))
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])


@pytest.mark.parametrize(
    "kind", [augment.Light(), augment.SaltAndPepper(0.1), augment.Erase(1.0)], ids=repr
)
def test_light_noise_and_erasing_change_only_the_picture(kind: augment.OnPicture) -> None:
    torch.manual_seed(0)
    picture, mask = disc_picture()
    changed, label = kind(Image(picture), Mask(mask))
    assert not torch.equal(changed, picture)
    assert torch.equal(label, mask)


def test_salt_and_pepper_sets_its_share_of_pixels() -> None:
    torch.manual_seed(0)
    grey = torch.full((3, 256, 256), 128, dtype=torch.uint8)
    noisy = augment.SaltAndPepper(0.02)(Image(grey))
    share = (noisy[0] != 128).float().mean().item()
    assert share == pytest.approx(0.02, rel=0.2)
    assert {0, 255} <= set(noisy.unique().tolist())


def test_a_border_may_be_recoloured_and_the_field_stays() -> None:
    torch.manual_seed(0)
    picture, mask = disc_picture()
    field = picture.amax(0) > 0
    drawn = [augment.Border(0.5)(Image(picture), Mask(mask)) for _ in range(40)]
    borders = [changed[:, ~field] for changed, _ in drawn]
    assert all(torch.equal(changed[:, field], picture[:, field]) for changed, _ in drawn)
    assert all((border == border[:, :1]).all() for border in borders)
    assert 10 <= sum(bool(border.any()) for border in borders) <= 30
    assert any((border == 255).all() for border in borders)
