"""Seeds: one derivation for every random choice, so that results do not depend on how work is cut into jobs."""

import hashlib

TWISTER = 24  # byte of a saved torch generator at which the Mersenne Twister's state begins, 624 words of 64 bits


def derive(*key: object) -> int:
    """A seed in [0, 2**63) that depends on the whole key and on nothing else.

    The key names the choice, e.g. ``derive(study_seed, "clip_prompts", "three", 17)`` for the
    17th image of a class. Equal keys give equal seeds on every machine and in every process.
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*key: object):
    """A numpy ``Generator`` seeded by :func:`derive`."""
    import numpy as np

    return np.random.default_rng(derive(*key))


def torch_generator(seed: int):
    """A ``torch.Generator`` on the CPU that depends on all bits of ``seed``.

    ``manual_seed`` keeps the lower 32 bits: of 390,000 images some 18 pairs would share their noise. Both torch and
    numpy have the Mersenne Twister; numpy's seeding fills its state, and the state is handed over in the form in which
    torch saves it, which checkpoints hold since torch 1.0. The noise is drawn on the CPU, the same for every device.
    """
    import numpy as np
    import torch

    words = np.random.MT19937(seed).state["state"]["key"]
    random = torch.Generator().manual_seed(0)
    state = random.get_state()
    state.numpy()[TWISTER : TWISTER + 8 * len(words)].view(np.uint64)[:] = words
    return random.set_state(state)
