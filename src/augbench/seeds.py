"""Seeds: one derivation for every random choice, so that results do not depend on how work is cut into jobs."""

import hashlib


def derive(*key: object) -> int:
    """A seed in [0, 2**63) that depends on the whole key and on nothing else.

    The key names the choice, e.g. ``derive(study_seed, "clip_prompts", "base", "three", 17)`` for the
    17th image of a class. Equal keys give equal seeds on every machine and in every process.
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*key: object):
    """A numpy ``Generator`` seeded by :func:`derive`."""
    import numpy as np

    return np.random.default_rng(derive(*key))
