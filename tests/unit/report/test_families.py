from augbench.report import families


def test_the_papers_families_come_first_in_its_order_and_colours():
    mine = ["mine", "retrieval", "baseline", "yours", "mine"]
    assert families.ordered(mine) == ["baseline", "retrieval", "mine", "yours"]
    colours = families.colours(mine)
    assert list(colours) == families.ordered(mine)
    assert colours["retrieval"] == families.PAPER["retrieval"]
    assert families.colours(mine) == colours


def test_no_two_families_have_one_colour():
    many = [*families.PAPER, *(f"family {k}" for k in range(30))]
    assert len(set(families.colours(many).values())) == len(many)


def test_further_colours_are_told_apart_in_every_kind_of_vision():
    """CIE76 differences as seen normally and with simulated protanopia and deuteranopia (Machado et al. 2009)."""
    import numpy as np

    kinds = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]

    def lab(colour, kind):
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        light = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light = np.clip(np.array(kind) @ light, 0, 1)
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        x, y, z = np.cbrt(np.clip(np.array(to_xyz) @ light / [0.9505, 1, 1.089], 1e-6, None))
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    known = list(families.PAPER.values())
    for place, colour in enumerate(families.FURTHER):
        others = [*known, *families.FURTHER[:place]]
        assert min(np.linalg.norm(lab(colour, kind) - lab(other, kind)) for kind in kinds for other in others) > 15
