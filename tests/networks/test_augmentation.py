"""Flips and shifts of the encoder's input."""

import numpy as np
import pytest
import torch

from skfp._networks.augmentation import flip_and_shift


def draw(images, seed=0):
    return flip_and_shift(images, torch.Generator().manual_seed(seed))


def flipped_and_shifted(image, down, right, flipped):
    """The expected image: padded by reflection, cut out and flipped, with numpy."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (16, 16), (16, 16)], mode="reflect")
    cut = padded[:, 16 + down : 16 + down + height, 16 + right : 16 + right + width]
    return cut[..., ::-1] if flipped else cut


@pytest.mark.parametrize("shape", [(3, 16, 24), (5, 17, 9)])
def test_images_are_flipped_and_shifted_by_up_to_an_eighth(shape):
    _, height, width = shape
    images = torch.rand(200, *shape)
    augmented = draw(images)
    choices = [
        (down, right, flipped)
        for down in range(-(height // 8), height // 8 + 1)
        for right in range(-(width // 8), width // 8 + 1)
        for flipped in (False, True)
    ]

    drawn = []
    for image, result in zip(images.numpy(), augmented.numpy(), strict=True):
        expected = {one: flipped_and_shifted(image, *one) for one in choices}
        (choice,) = (one for one, array in expected.items() if np.array_equal(array, result))
        drawn.append(choice)
    downs, rights, flips = zip(*drawn, strict=True)
    assert (min(downs), max(downs)) == (-(height // 8), height // 8)
    assert (min(rights), max(rights)) == (-(width // 8), width // 8)
    assert 70 < sum(flips) < 130


def test_only_the_generator_decides():
    images = torch.rand(20, 3, 32, 32)
    state = torch.get_rng_state()

    assert torch.equal(draw(images), draw(images))
    assert not torch.equal(draw(images), draw(images, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_layout_stays_channels_last():
    images = torch.rand(4, 3, 64, 64).to(memory_format=torch.channels_last)
    assert draw(images).is_contiguous(memory_format=torch.channels_last)


def test_no_images():
    assert draw(torch.empty(0, 3, 64, 64)).shape == (0, 3, 64, 64)
