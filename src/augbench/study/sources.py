"""Where a pool's images come from: a class for each value of ``source``, and the table of them.

Nothing else in the program compares a source with a string: it asks the object. A new source is a class here and a row
of ``SOURCES``.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from augbench import images
from augbench.core import files, list_files, names, tsv_files
from augbench.core.files import BadInput
from augbench.images import folders, parquet_images
from augbench.study import embedding_pairs

# Columns of lists of URLs and of an index's metadata, and how they may be spelt.
COLUMNS = {
    "url": ["url", "URL", "image_url", "img_url"],
    "caption": ["caption", "text", "TEXT", "captions", "alt_text", "description"],
    "aesthetic": ["aesthetic", "AESTHETIC_SCORE", "aesthetic_score", "aesthetic_score_laion_v2"],
}
# What a pool may say besides, and how that may be spelt; it is kept where a pool says it.
PROVENANCE = {"licence": ["licence", "license", "LICENCE", "LICENSE"], "face_bboxes": ["face_bboxes"]}


def spellings(columns: Mapping[str, str]) -> dict[str, list[str]]:
    """``COLUMNS``, of which some are called as the pool's ``columns`` say."""
    return COLUMNS | {name: [spelt] for name, spelt in columns.items()}


LISTED = 100_000  # files of a pool that a plan lists to count what is ignored


class Source:
    """What the program asks of a source; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    needs: tuple[str, ...] = ("path",)  # keys of the pool's section
    example = "path: data/laion"  # of these
    may_be_a_file = False  # its path, rather than a folder
    takes_columns = False  # whose names can be configured
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

    def count(self, paths: list[str], columns: Mapping[str, str]) -> int:
        """Images, of which shards are made, in these files; ``columns`` as in the section ``pool``."""
        return len(paths)

    def check(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        """Raise BadInput when the files at ``path`` cannot be used, as far as that is seen without reading them;
        ``columns`` as in the section ``pool``."""

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

    def check(self, path, columns=None):
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
    """Files of some kinds in a folder, or a single one."""

    extensions: tuple[str, ...]
    is_local = True
    has_images = True

    def files(self, path):
        path = Path(path)
        if path.is_file():
            return [str(path)]
        entries = sorted(entry.path for entry in folders.entries(path) if not folders.is_system(entry.name))
        return [name for name in entries if name.lower().endswith(self.extensions)]

    def check(self, path, columns=None):
        names = self.files(path)
        if not names:
            raise BadInput(f"there is no {' or '.join(f'*{kind}' for kind in self.extensions)} in {path}")
        self.check_files(path, names, columns or {})

    def check_files(self, path: str | Path, names: list[str], columns: Mapping[str, str]) -> None:
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
    extensions = (".tar",)

    def check_files(self, path, names, columns):
        for name in names:
            images.check_shard(name)


class Urls(Files):
    name = "urls"
    meaning = "Parquet or TSV with URLs and captions"
    extensions = (".parquet", tsv_files.SUFFIX)
    may_be_a_file = True
    takes_columns = True
    is_packed = True
    downloads = True

    def count(self, paths, columns):
        return sum(_count_rows(path, columns) for path in paths)

    def check_files(self, path, names, columns):
        if not sum([checked_rows(name, spellings(columns)) for name in names]):
            raise BadInput(f"{path} has no rows; a list has the columns url and caption")

    def columns(self, path):
        names = self.files(path)
        if not names or tsv_files.is_one(names[0]):
            return list(tsv_files.columns_of(names[0], COLUMNS)[0]) if names else None
        return list_files.open_parquet(names[0]).schema_arrow.names


class HuggingFace(Files):
    name = "huggingface"
    meaning = "a Hugging Face data set's Parquet files of images and captions, read where they lie"
    extensions = (parquet_images.SUFFIX,)
    may_be_a_file = True
    takes_columns = True

    def files(self, path):
        """At any depth, as in ``data/train-00000-of-00001.parquet``."""
        if Path(path).is_file():
            return [str(path)]
        return [file for file in folders.files_below(path) if file.lower().endswith(self.extensions)]

    def check_files(self, path, names, columns):
        if not sum([parquet_images.check(name, spellings(columns)) for name in names]):
            raise BadInput(f"{path} has no rows; each holds an image and its caption")

    def left_out(self, path):
        if Path(path).is_file():
            return Counter()
        others = set(folders.files_below(path)) - set(self.files(path))
        return Counter(files.printable(Path(file).suffix.lower() or "without extension") for file in others)

    def columns(self, path):
        import pyarrow.parquet as pq

        return sorted({name for file in self.files(path) for name in pq.read_schema(file).names})


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
    source.name: source
    for source in (Digits(), Folder(), Shards(), HuggingFace(), Urls(), Embeddings(), Index(), Service())
}


def _count_rows(path: str, columns: Mapping[str, str]) -> int:
    """The rows of a list of URLs; a long one of lines is read through once for each of its states."""
    if not tsv_files.is_one(path):
        return list_files.count_rows(path, COLUMNS)
    status = Path(path).stat()
    return _count_lines(path, columns.get("url"), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _count_lines(path: str, url: str | None, size: int, changed: int) -> int:
    return tsv_files.count(path, spellings({"url": url} if url else {}))


def checked_rows(name: str | Path, columns: Mapping[str, Sequence[str]]) -> int:
    """The rows of a list of URLs. Raises BadInput when it lacks a column, or one has the wrong type.

    ``columns`` : name -> its spellings
    """
    if tsv_files.is_one(name):
        return tsv_files.count(name, columns)
    file = list_files.open_parquet(name)
    spelt = names.first_match(file.schema_arrow.names, columns)
    if "url" not in spelt:
        raise BadInput(
            f"{files.printable(name)} has no column {' or '.join(columns['url'])} (it has "
            f"{', '.join(file.schema_arrow.names)}); name it, `columns: {{url: NAME}}`"
        )
    list_files.check_types(file, list(spelt.values()), name, [spelt.get("caption", "")])
    return file.metadata.num_rows
