"""Which code a result came from: Snakemake notices a changed script, but not a changed module it imports."""

import ast
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
TEMPLATES = {"report": "report*", "review": "review*"}  # of the modules that make pages


def modules_of(*names: str) -> list[str]:
    """Those modules of augbench and all that they import inside augbench, transitively, sorted.

    ``names`` are module names without the package, e.g. ``"audit"``. Imports inside functions count.
    """
    seen, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(_source(name).read_bytes())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            parts = [module.split(".")[1] for module in found if module.startswith("augbench.")]
            waiting += [part for part in parts if _source(part).is_file()]
    return sorted(seen)


def digest(*names: str) -> str:
    """SHA-256 (16 hex digits) over the sources of :func:`modules_of` and the package's templates they may use."""
    total = hashlib.sha256()
    for name in modules_of(*names):
        total.update(name.encode() + b"\0" + _source(name).read_bytes())
        if name in TEMPLATES:
            for template in sorted((PACKAGE / "templates").glob(TEMPLATES[name])):
                total.update(template.read_bytes())
    return total.hexdigest()[:16]


def _source(name: str) -> Path:
    return PACKAGE / f"{name}.py"
