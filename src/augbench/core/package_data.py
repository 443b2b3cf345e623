"""Files that come with the package (``src/augbench/resources``), and the user's own in the working directory.

Prompt templates and published figures are found from any working directory. A user's templates or backgrounds of the
same name, below ``resources/`` in the working directory, take the place of the package's.
"""

from importlib.util import find_spec
from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "resources"
OWN = Path("resources")  # in the working directory


def bundled(name: str) -> Path:
    """The package's file of this name, e.g. ``imagenet_synsets.csv``; see also :mod:`augbench.core.code_digest`."""
    return BUNDLED / name


def as_input(name: str) -> str:
    """:func:`bundled` for a rule: relative where it lies below the working directory, since Snakemake notes inputs by
    their paths: so nothing is done again when the directory is moved."""
    file, here = bundled(name), Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def own_or_bundled(name: str) -> Path:
    """The user's file ``resources/NAME`` where there is one, else the package's, whether or not it exists."""
    return OWN / name if (OWN / name).is_file() else BUNDLED / name


def package_folder(name: str) -> Path:
    """The folder of an installed package, without importing it. Raises ModuleNotFoundError."""
    spec = find_spec(name)
    if not spec or not spec.origin:
        raise ModuleNotFoundError(f"there is no package {name}", name=name)
    return Path(spec.origin).parent


def stems(folder: str) -> list[str]:
    """Sorted names, without ``.txt``, of the text files of a folder, the user's and the package's."""
    return sorted({file.stem for root in (OWN, BUNDLED) for file in (root / folder).glob("*.txt")})
