"""What newer versions there are than the lock's, and what holds them back: `make outdated`.

What holds a package back is read from the requirements of the installed packages, which are the lock's, so a package of
which only another Python has a newer version is not listed. uv asks the package index for the newest versions; where it
cannot, that is said instead, and only the overrides are listed.
"""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def installed_requirements() -> dict[str, list[Requirement]]:
    """What each installed package requires of others here."""
    names = {}
    for package in importlib.metadata.distributions():
        required = map(Requirement, package.requires or [])
        names[f"{canonicalize_name(package.name)} {package.version}"] = [
            each for each in required if not each.marker or each.marker.evaluate({"extra": ""})
        ]
    return names


def own_requirements() -> list[Requirement]:
    project = tomllib.loads(PROJECT.read_text())["project"]
    required = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    return [each for each in required if not each.marker or each.marker.evaluate()]


def overrides() -> list[Requirement]:
    return list(map(Requirement, tomllib.loads(PROJECT.read_text())["tool"]["uv"]["override-dependencies"]))


def holders(name: str, version: str, required: Mapping[str, list[Requirement]]) -> dict[str, str]:
    """Who excludes a version of a package -> the requirement that does."""
    return {
        owner: f"{each.name}{each.specifier}"
        for owner, requirements in required.items()
        for each in requirements
        if canonicalize_name(each.name) == name and not each.specifier.contains(version, prereleases=True)
    }


def note(owner: str, newer: Mapping[str, str]) -> str:
    """When ``owner``, "NAME VERSION", may ask for something else."""
    package = owner.partition(" ")[0]
    return f"{package} has a newer version, see there" if package in newer else "its newest version"


def report_outdated(newer: list[dict], required: Mapping[str, list[Requirement]], own: list[Requirement]) -> list[str]:
    """One line for each package that has a newer version."""
    names = {canonicalize_name(row["name"]): row["latest_version"] for row in newer}
    overridden = {canonicalize_name(each.name) for each in overrides()}
    lines = []
    for row in newer:
        name, version = canonicalize_name(row["name"]), row["latest_version"]
        why = [f"pyproject.toml asks for {each}" for each in holders(name, version, {"": own}).values()]
        if name not in overridden:  # an override replaces what packages ask for, not what the project itself does
            against = holders(name, version, required).items()
            why += [f"{owner} ({note(owner, names)}) asks for {requirement}" for owner, requirement in against]
        why = why or ["no requirement excludes it: try make lock UPGRADE=1"]
        lines.append(f"{name} {row['version']} -> {version}: {'; '.join(why)}")
    return lines


def report_overrides(required: Mapping[str, list[Requirement]]) -> list[str]:
    """One line for each override and each package that still needs it."""
    lines = []
    for override in overrides():
        name = canonicalize_name(override.name)
        version = importlib.metadata.version(name)
        against = holders(name, version, required)
        lines += [f"{override}: {owner} asks for {requirement}" for owner, requirement in against.items()]
        if not against:
            lines.append(f"{override}: no package excludes {version} any more, so the override can go")
    return lines


def main() -> int:
    required = installed_requirements()
    required = {owner: each for owner, each in required.items() if not owner.startswith("augbench ")}
    command = ["uv", "pip", "list", "--outdated", "--format", "json", "--python", sys.executable]
    outcome = subprocess.run(command, capture_output=True, text=True)
    online = outcome.returncode == 0
    if online:
        lines = report_outdated(json.loads(outcome.stdout), required, own_requirements())
        print(*(lines or ["Everything is at its newest version."]), sep="\n")
    print("\nOverrides (pyproject.toml, [tool.uv]):", *report_overrides(required), sep="\n")
    if not online:
        reason = outcome.stderr.strip().splitlines() or ["uv said nothing"]
        print(f"\nThe package index cannot be asked what is newer: {' '.join(reason[0].split())}", file=sys.stderr)
    return 0 if online else 1


if __name__ == "__main__":
    sys.exit(main())
