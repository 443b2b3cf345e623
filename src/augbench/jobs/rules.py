"""What augbench adds to its rules beside what stands in them: parameters by which Snakemake sees changes that it would
miss, and settings of a profile for rules that are made by number."""

import functools
from collections.abc import Iterable

from augbench.core import code_digest

digest_of = functools.cache(code_digest.digest)


def track_code(rules: Iterable, source_of) -> None:
    """Make a digest of its script, and of all that this imports, a parameter of each rule: their edits, and no others,
    run a job again.

    ``source_of`` : rule -> the path of its script
    """
    for rule in rules:
        if rule.script:
            rule.set_params(code=_digest(source_of(rule)))


def _digest(script):
    return lambda wildcards: digest_of(script)


def name_parameters(rules: Iterable) -> None:
    """Let Snakemake compare parameters by name: it compares the set of their values alone, to which a seed of 1 in 2
    parts is a seed of 2 in 1 part."""
    for rule in rules:
        if len(rule.params) > 2:  # of which one is the code
            rule.set_params(named=_named(list(rule.params.items())))


def _named(items):
    def values_by_name(wildcards):
        values = {name: value(wildcards) if callable(value) else value for name, value in items}
        return {name: value for name, value in values.items() if not isinstance(value, list | dict)}

    return values_by_name


def numbered_rule(name: str, place: int, settings) -> str:
    """The name of one of several like rules: ``classify``, ``classify_2``, ``classify_3``, ...

    What the command line or a profile sets for the first (``set-resources``, ``set-threads``) holds for each.
    ``settings`` : Snakemake's resource settings
    """
    if not place:
        return name
    for known in (settings._parsed_overwrite_resources, settings._parsed_overwrite_threads):
        if name in known:
            known.setdefault(f"{name}_{place + 1}", known[name])
    return f"{name}_{place + 1}"
