"""Which code a result came from: Snakemake notices a changed script, but not a changed module that it imports."""

import ast
import functools
import hashlib
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# Modules whose edits change no result, and what only they import: a job's log, its GPUs, its progress.
WITHOUT_RESULTS = frozenset({"core.progress", "jobs.gpus", "jobs.logs"})
BUNDLED = "package_data.bundled"  # a call of it names a file of the folder resources
TEMPLATE = re.compile(r"[\w/]+\.html\.j2")
INCLUDED = re.compile(r"{%-?\s*(?:include|import|from|extends)\s+[\"']([^\"']+)")


def modules_of(source: str | Path) -> list[Path]:
    """The files of augbench that a Python file imports, transitively and also inside functions, with the files
    that these read.

    Those are templates, named as a text like report/page.html.j2, and what these include, and data, named in a call of
    ``package_data.bundled``. Sorted; without the modules that change no result.
    """
    seen, to_read = set(), list(_imports(Path(source), PACKAGE))
    while to_read:
        file = to_read.pop()
        if file not in seen:
            seen.add(file)
            to_read += _imports(file, PACKAGE)
    return sorted(seen)


def digest(source: str | Path) -> str:
    """SHA-256 (16 hex digits) over a Python file and all of :func:`modules_of`."""
    total = hashlib.sha256(Path(source).read_bytes())
    for file in modules_of(source):
        total.update(_line(file, PACKAGE))
    return total.hexdigest()[:16]


def digest_of_module(module: str) -> str:
    """:func:`digest` of a module, e.g. ``augbench.classifier.training``."""
    return digest(PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py"))


@functools.cache  # sources do not change while a plan is made, and most scripts import most of them
def _line(file: Path, package: Path) -> bytes:
    """A file's name in the package, and the digest of what it holds."""
    return file.relative_to(package).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest()


@functools.cache
def _imports(file: Path, package: Path) -> tuple[Path, ...]:
    """The files of the package that this one imports or includes itself."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":  # a CSV includes nothing
        return tuple(package / "templates" / name for name in INCLUDED.findall(text))
    imported = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported += [part for alias in node.names for part in _modules(package, alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += _modules(package, node.module)
            imported += [part for alias in node.names for part in _modules(package, f"{node.module}.{alias.name}")]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == BUNDLED:
            imported.append(package / "resources" / ast.literal_eval(node.args[0]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and TEMPLATE.fullmatch(node.value):
            imported.append(package / "templates" / node.value)
    return tuple(dict.fromkeys(imported))


def _modules(package: Path, name: str) -> list[Path]:
    """The file of a module, and of the packages that it lies in, which are read before it."""
    first, *parts = name.split(".")
    if first != "augbench" or ".".join(parts) in WITHOUT_RESULTS:
        return []
    places = [package.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    files = [place / "__init__.py" for place in places] + [package.joinpath(*parts).with_suffix(".py")]
    return [file for file in files if file.is_file()]
