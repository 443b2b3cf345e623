"""Where a pool's images come from: a class for each value of ``source``, and the table of them.

Nothing else in the program compares a source with a string: it asks the object. A new source is a class here and a row
of ``SOURCES``.
"""

import itertools
from collections import Counter
from pathlib import Path

from augbench import images
from augbench.core import files, list_files
from augbench.core.files import BadInput
from augbench.images import folders
from augbench.study import embedding_pairs

# Columns of lists of URLs and of an index's metadata, and how they may be spelt.
COLUMNS = {
    "url": ["url", "URL"],
    "caption": ["caption", "text", "TEXT"],
    "aesthetic": ["aesthetic", "AESTHETIC_SCORE"],
}
# What a pool may say besides, and how that may be spelt; it is kept where a pool says it.
PROVENANCE = {"licence": ["licence", "license", "LICENCE", "LICENSE"], "face_bboxes": ["face_bboxes"]}
LISTED = 100_000  # files of a pool that a plan lists to count what is ignored


class Source:
    """What the program asks of a source; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    needs: tuple[str, ...] = ("path",)  # keys of the pool's section
    example = "path: data/laion"  # of these
    may_be_a_file = False  # its path, rather than a folder
    is_built_in = False  # the study makes it itself, and serves it over HTTP
    is_local = False  # the images lie on this machine
    has_images = False  # models can be trained on them
    is_packed = False  # shards are made of it here
    downloads = False  # images come from the web: to be packed, or the neighbours alone
    is_ready = False  # it is searched where it lies: nothing is embedded here
    brings_index = False  # its path is a clip-retrieval folder
    is_scanned = False  # all of its embeddings are read for a search
    is_remote = False  # it is searched by a service
    returns_embeddings = True  # of the images that a search finds
    shows_captions = True  # of all of its images, to be matched

    def files(self, path: str | Path) -> list[str]:
        """The files that the pool consists of, sorted."""
        return []

    def count(self, paths: list[str]) -> int:
        """Images, of which shards are made, in these files."""
        return len(paths)

    def check(self, path: str | Path) -> None:
        """Raise BadInput when the files at ``path`` cannot be used, as far as that is seen without reading them."""

    def left_out(self, path: str | Path) -> Counter:
        """Counts of files that are not used, by kind, see :func:`augbench.images.folders.left_out_message`."""
        return Counter()

    def columns(self, path: str | Path) -> list[str] | None:
        """The columns that are known of each image; None where that is not known before any work starts."""
        return None


class Digits(Source):
    name = "digits"
    meaning = "the built-in web"
    needs = ()
    is_built_in = True
    has_images = True


class Folder(Source):
    name = "folder"
    meaning = "images, with captions in NAME.txt beside NAME.jpg"
    is_local = True
    has_images = True
    is_packed = True

    def files(self, path):
        """At any depth. No table could hold a name that is not UTF-8."""
        return sorted(str(file) for file in folders.images(path) if folders.is_text(file))

    def check(self, path):
        # Not listed here: it may be large, and the plan lists it once for all.
        left_out: Counter = Counter()
        if next(folders.images(path, left_out), None) is None:
            instead = f" but {message}" if (message := folders.left_out_message(left_out)) else ""
            raise BadInput(f"there is no image in {path}{instead}")

    def left_out(self, path):
        kinds: Counter = Counter()
        for file in itertools.islice(folders.images(path, kinds), LISTED):
            if not folders.is_text(file):
                kinds["names that are not UTF-8"] += 1
        kinds.pop(".txt", None)  # captions
        return kinds

    def columns(self, path):
        return []


class Files(Source):
    """Files of one kind in a folder, or a single one."""

    extension: str
    is_local = True
    has_images = True

    def files(self, path):
        path = Path(path)
        if path.is_file():
            return [str(path)]
        entries = sorted(entry.path for entry in folders.entries(path) if not folders.is_system(entry.name))
        return [name for name in entries if name.lower().endswith(self.extension)]

    def check(self, path):
        names = self.files(path)
        if not names:
            raise BadInput(f"there is no *{self.extension} in {path}")
        self.check_files(path, names)

    def check_files(self, path: str | Path, names: list[str]) -> None:
        raise NotImplementedError

    def left_out(self, path):
        if Path(path).is_file():
            return Counter()
        taken = set(self.files(path))
        others = (Path(entry.path) for entry in folders.entries(path) if entry.path not in taken)
        kinds = ("folders" if file.is_dir() else file.suffix.lower() or "without extension" for file in others)
        return Counter(files.printable(kind) for kind in itertools.islice(kinds, LISTED))


class Shards(Files):
    name = "shards"
    meaning = "WebDataset shards"
    extension = ".tar"

    def check_files(self, path, names):
        for name in names:
            images.check_shard(name)


class Urls(Files):
    name = "urls"
    meaning = "Parquet with URLs and captions"
    extension = ".parquet"
    may_be_a_file = True
    is_packed = True
    downloads = True

    def count(self, paths):
        from pyarrow.parquet import ParquetFile

        return sum(ParquetFile(path).metadata.num_rows for path in paths)

    def check_files(self, path, names):
        if not sum(map(checked_rows, names)):
            raise BadInput(f"{path} has no rows; a list has the columns url and caption")

    def columns(self, path):
        import pyarrow.parquet as pq

        names = self.files(path)
        return pq.read_schema(names[0]).names if names else None


class Index(Source):
    name = "index"
    meaning = "an existing clip-retrieval folder"
    downloads = True
    is_ready = True
    brings_index = True


class Embeddings(Source):
    name = "embeddings"
    meaning = "published embeddings, STEM.npz or STEM.npy with STEM.parquet as of DataComp, searched exactly"
    downloads = True
    is_ready = True
    is_scanned = True

    def columns(self, path):
        import pyarrow.parquet as pq

        return sorted({name for pair in embedding_pairs.twins(path) for name in pq.read_schema(pair).names})


class Service(Source):
    name = "service"
    meaning = "a running clip-retrieval back"
    needs = ("url", "index")
    example = "url: http://localhost:1234/knn-service, index: laion5B"
    downloads = True
    is_remote = True
    returns_embeddings = False
    shows_captions = False


SOURCES: dict[str, Source] = {
    source.name: source for source in (Digits(), Folder(), Shards(), Urls(), Embeddings(), Index(), Service())
}


def checked_rows(name: str) -> int:
    """The rows of a list of URLs. Raises BadInput when it lacks a column, or one has the wrong type."""
    file = list_files.open_parquet(name)
    spelt = list_files.first_match(file.schema_arrow.names, COLUMNS)
    if "url" not in spelt:
        raise BadInput(
            f"{files.printable(name)} has no column {' or '.join(COLUMNS['url'])} (it has "
            f"{', '.join(file.schema_arrow.names)})"
        )
    list_files.check_types(file, list(spelt.values()), name)
    return file.metadata.num_rows
