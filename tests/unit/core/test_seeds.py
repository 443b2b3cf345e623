"""Seeds: no two images share noise, whatever the device."""

import numpy as np
import pytest
import torch

from augbench.core.seeds import derive, torch_generator


def test_seeds_that_share_their_lower_32_bits_give_other_noise():
    """torch's own seeding, for comparison, gives the same."""
    seeds = [5 + (i << 32) for i in range(64)]
    own = {tuple(torch.randn(8, generator=torch.Generator().manual_seed(seed)).tolist()) for seed in seeds}
    ours = {tuple(torch.randn(8, generator=torch_generator(seed)).tolist()) for seed in seeds}
    assert (len(own), len(ours)) == (1, 64)


@pytest.mark.middle  # takes seconds
def test_no_two_of_390_000_images_share_noise():
    """The images of Table 1, 390 of each of 1,000 classes: what seeds torch's generator, of each that torch would mix
    up, and what noise comes of it."""
    seeds = np.array([derive(1, "clip_prompts", key, index, 0) for key in range(1000) for index in range(390)])
    assert len(np.unique(seeds)) == 390_000
    _, first, counts = np.unique(seeds & 0xFFFFFFFF, return_index=True, return_counts=True)
    shared = seeds[np.isin(seeds & 0xFFFFFFFF, seeds[first[counts > 1]] & 0xFFFFFFFF)]
    assert len(shared) > 10
    assert len({torch.randn(16, generator=torch_generator(int(seed))).numpy().tobytes() for seed in shared}) == len(
        shared
    )


def test_the_numbers_are_numpys_mersenne_twister():
    """Whose seeding begins at the last word of its first state."""
    for seed in (0, 7, derive("a key")):
        bits = np.random.MT19937(seed)
        bits.random_raw()
        drawn = torch.randint(0, 1 << 20, (1500,), generator=torch_generator(seed)).numpy()
        assert (drawn == bits.random_raw(1500) % (1 << 20)).all()


def test_noise_is_standard_normal():
    noise = torch.randn(200_000, generator=torch_generator(3))
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert torch.equal(noise, torch.randn(200_000, generator=torch_generator(3)))
