"""Reference images: a folder of images, which the audit compares added images with."""

import os
from collections import Counter
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.core.files import BadInput
from augbench.dataset.verification import Verifier
from augbench.images import folders


def folder_table(folder: str | Path, unreadable: str = "stop") -> pd.DataFrame:
    """All images below a folder as an image table, sorted; the class is that of its sub-folder, or empty.

    With ``unreadable`` ``skip`` those that cannot be read are left out; else who reads them says which.
    """
    left_out: Counter = Counter()
    paths = sorted(folders.images(folder, left_out))
    if unreadable == "skip":
        paths = Verifier().readable(paths, unreadable, messages := [])
        for message in messages:
            print(f"left out: {message}", flush=True)
    elif odd := next((file for file in paths if not folders.is_text(file)), None):
        raise BadInput(f"the name of {files.printable(odd)} is not UTF-8; rename it, or set `unreadable: skip`")
    if left_out:
        print(f"ignored: {folders.left_out_message(left_out)}", flush=True)
    names = [os.path.relpath(str(file), folder) for file in paths]
    return images.table(
        {"image_id": name, "class": name.rpartition(os.sep)[0], "path": str(file)}
        for name, file in zip(names, paths, strict=True)
    )
