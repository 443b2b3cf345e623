"""The templates of all pages, filled in one way: text from data is escaped, and a name that is missing is an error."""

from collections.abc import Callable
from pathlib import Path


def template(name: str, **filters: Callable):
    """The ``jinja2.Template`` of the package's ``templates``/``name``; ``filters`` are known in it by their names."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
