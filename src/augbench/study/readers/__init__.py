"""How a target's images lie: a class for each value of ``reader``, and the table of them.

Nothing else in the program compares a reader with a string: it asks the object. A new reader is a module with a class
and a row of ``READERS``.
"""

from pathlib import Path

from augbench.study.readers.caltech256 import Caltech256
from augbench.study.readers.digits import Digits
from augbench.study.readers.folder import Folder
from augbench.study.readers.huggingface import HuggingFace
from augbench.study.readers.imagenet import ImageNet
from augbench.study.readers.layout import Layout, Reader
from augbench.study.readers.list_file import ListFile

__all__ = ["READERS", "Layout", "Reader", "reader_of"]

# A row's images may also look like those of the rows above it.
READERS: dict[str, Reader] = {
    reader.name: reader for reader in (Digits(), Folder(), ImageNet(), Caltech256(), ListFile(), HuggingFace())
}


def reader_of(path: Path) -> Reader:
    """The reader that what lies at ``path`` looks like."""
    return [reader for reader in READERS.values() if reader.fits(path)][-1]
