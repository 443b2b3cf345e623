"""What augbench adds to its rules beside what stands in them: parameters by which Snakemake sees changes that it would
miss, and settings of a profile for rules that are made by number."""

import functools
from collections.abc import Iterable
from pathlib import Path

from augbench.core import code_digest
from augbench.jobs import gpus
from augbench.study.sections.base import Section

digest_of = functools.cache(code_digest.digest)


def track_changes(workflow) -> None:
    """Give each rule of augbench the parameters by which Snakemake notices changes; not those of another workflow of
    which augbench is a module. A job, which reads the rules again, has no use for them."""
    if not workflow.is_main_process:
        return
    here = workflow.current_basedir.join("workflow/rules").get_path_or_uri(secret_free=True)
    rules = [rule for rule in workflow.rules if rule.basedir.get_path_or_uri(secret_free=True) == here]
    track_code(rules, lambda rule: workflow.sourcecache.get_path(rule.basedir.join(rule.script)))
    name_parameters(rules)


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


def value_at(section: Section, key: str):
    """A value of a section of the configuration by its place, e.g. ``clip.train``; of a section, all its values."""
    for name in key.split("."):
        section = getattr(section, name)
    return section.model_dump() if isinstance(section, Section) else section


def touched(file: str) -> str:
    """The path of an empty file, which is made where there is none."""
    path = Path(file)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return file


def share_gpus(workflow) -> None:
    """Let so many jobs with a GPU run at once as this machine has GPUs, unless the profile or the command line says how
    many: a job that waits for one would hold its cores. On a cluster its scheduler knows."""
    is_local = workflow.resource_settings.nodes is None
    if workflow.is_main_process and is_local and (count := gpus.usable()):
        workflow.global_resources.setdefault("gpu", count)


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
