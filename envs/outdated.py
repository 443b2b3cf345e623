"""What newer versions there are than the lock's, what holds them back, and since when one could go on: `make outdated`.

What holds a package back is read from the requirements of the installed packages, which are the lock's, so a package
of which only another Python has a newer version is not listed. uv asks the package index that it is configured for: for
the newest versions, for the first release of a holder that no longer stands in the way, and for the days of releases.
Where it cannot, that is said instead, and only the overrides are listed.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


class Offline(Exception):
    """The package index does not answer; says why."""


class Release(NamedTuple):
    """A version of a package, and the day on which its first file was uploaded; empty where the index does not say."""

    version: str
    day: str = ""

    def __str__(self) -> str:
        return f"{self.version} of {self.day}" if self.day else self.version


# --- the package index ----------------------------------------------------------------------------------


def _ask_uv(*arguments: str, text: str = "", folder: Path | None = None) -> str | None:
    """What ``uv pip`` prints; None if nothing meets what is asked for. Raises Offline.

    The overrides of ``folder`` hold, else none.
    """
    with tempfile.TemporaryDirectory() as empty:
        command = ["uv", "pip", *arguments, "--python", sys.executable]
        outcome = subprocess.run(command, input=text, cwd=folder or empty, capture_output=True, text=True)
    if outcome.returncode == 0:
        return outcome.stdout
    if outcome.returncode == 1 and "No solution found" in outcome.stderr:
        return None
    raise Offline(" ".join((outcome.stderr.strip().splitlines() or ["uv said nothing"])[0].split()))


def newer_versions() -> list[dict]:
    """name, version and latest_version of the installed packages that have a newer version. Raises Offline."""
    return json.loads(_ask_uv("list", "--outdated", "--format", "json"))


def first_releases(wanted: Sequence[str], *, alone: bool) -> dict[str, Release]:
    """The lowest release of each package that meets its requirement; none if there are no such.

    Unless ``alone``, they must go together, with all that they require. Raises Offline.
    """
    options = ["--format", "pylock.toml", "--resolution", "lowest-direct", "--quiet", *["--no-deps"] * alone]
    lock = _ask_uv("compile", "-", *options, text="\n".join(wanted))
    return {row["name"]: _release(row) for row in tomllib.loads(lock or "").get("packages", [])}


def _release(row: Mapping) -> Release:
    """A release as pylock.toml (PEP 751) describes it."""
    files = [*row.get("wheels", []), *([row["sdist"]] if "sdist" in row else [])]
    days = [file["upload-time"].date().isoformat() for file in files if "upload-time" in file]
    return Release(row["version"], min(days, default=""))


def first_without(owner: str, requirement: str) -> Release | None:
    """The first release of ``owner``, "NAME VERSION", after that version with which a requirement can be met."""
    name, _, version = owner.partition(" ")
    return first_releases([f"{name}>{version}", requirement], alone=False).get(name)


def goes_with_ours(requirement: str) -> bool:
    """Whether a requirement can be met beside the project's own, under its overrides. Raises Offline."""
    command = ["compile", str(PROJECT), "-", "--extra", "dev", "--quiet"]
    return _ask_uv(*command, text=requirement, folder=PROJECT.parent) is not None


# --- what holds packages back ---------------------------------------------------------------------------


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


def holders(name: str, version: str, required: Mapping[str, list[Requirement]]) -> dict[str, Requirement]:
    """Who excludes a version of a package -> the requirement that does."""
    return {
        owner: each
        for owner, requirements in required.items()
        for each in requirements
        if canonicalize_name(each.name) == name and not each.specifier.contains(version, prereleases=True)
    }


def is_exact(requirement: Requirement) -> bool:
    return [each.operator for each in requirement.specifier] == ["=="]


class Newer(NamedTuple):
    """The installed version of a package, the release after it, and the newest version."""

    installed: str
    following: Release
    newest: str

    def __str__(self) -> str:
        since = f"since {self.following.day}, " * bool(self.following.day)
        return f"{self.installed} -> {self.newest} ({since}first {self.following.version})"


class Facts(NamedTuple):
    """What the index says.

    newer : of the packages that have a newer version; current : the installed release of the others; without,
    goes_with_ours : :func:`first_without`, :func:`goes_with_ours`
    """

    newer: Mapping[str, Newer]
    current: Mapping[str, Release]
    without: Callable[[str, str], Release | None]
    goes_with_ours: Callable[[str], bool]

    @property
    def has_days(self) -> bool:
        releases = [*(each.following for each in self.newer.values()), *self.current.values()]
        return any(release.day for release in releases)


def describe(owner: str, requirement: Requirement, version: str, facts: Facts) -> str:
    """What a holder asks for, and whether and since when a release of it would let ``version`` in."""
    asks = f"{owner} asks for {requirement.name}{requirement.specifier}"
    name = owner.partition(" ")[0]
    if name not in facts.newer:
        day = facts.current[name].day if name in facts.current else ""
        return f"{asks} and is its newest release{day and f', of {day}'}"
    release = facts.without(owner, f"{canonicalize_name(requirement.name)}=={version}")
    return f"{asks}; no longer does {release}" if release else f"{asks}, and so does each newer release"


def report_outdated(required: Mapping[str, list[Requirement]], own: list[Requirement], facts: Facts) -> list[str]:
    """One line for each package that has a newer version, and one for those that a package pins exactly."""
    overridden = {canonicalize_name(each.name) for each in overrides()}
    lines, pinned = [], {}
    for name, newer in facts.newer.items():
        newest = newer.newest
        ours = holders(name, newest, {"pyproject.toml": own})
        # An override replaces what packages ask for, not what the project itself does.
        theirs = holders(name, newest, required) if name not in overridden else {}
        if not ours and len(theirs) == 1 and all(map(is_exact, theirs.values())):
            pinned.setdefault(next(iter(theirs)), []).append(f"{name} {newer.installed} -> {newest}")
            continue
        why = [f"{owner} asks for {each.name}{each.specifier}" for owner, each in ours.items()]
        why += [describe(owner, each, newest, facts) for owner, each in theirs.items()]
        if not why:
            possible = facts.goes_with_ours(f"{name}=={newest}")
            why = ["make lock UPGRADE=1 takes it" if possible else "what it requires itself is excluded by others"]
        lines.append(f"{name} {newer}: {'; '.join(why)}")
    return lines + [
        f"{owner} holds exact versions, and goes first: {', '.join(names)}" for owner, names in pinned.items()
    ]


def report_overrides(required: Mapping[str, list[Requirement]], facts: Facts | None) -> list[str]:
    """One line for each override and each package that still needs it; ``facts`` is None if no index answers."""
    lines = []
    for override in overrides():
        name = canonicalize_name(override.name)
        version = importlib.metadata.version(name)
        against = holders(name, version, required)
        for owner, each in against.items():
            asks = f"{owner} asks for {each.name}{each.specifier}"
            lines.append(f"{override}: {describe(owner, each, version, facts) if facts else asks}")
        if not against:
            lines.append(f"{override}: no package excludes {version} any more, so the override can go")
    return lines


def ask_index(required: Mapping[str, list[Requirement]]) -> Facts:
    """Raises Offline."""
    rows = {canonicalize_name(row["name"]): row for row in newer_versions()}
    following = first_releases([f"{name}>{row['version']}" for name, row in rows.items()], alone=True)
    newer = {name: Newer(row["version"], following[name], row["latest_version"]) for name, row in rows.items()}
    installed = (owner.split(" ") for owner in required)
    current = first_releases([f"{name}=={version}" for name, version in installed if name not in newer], alone=True)
    return Facts(newer, current, first_without, goes_with_ours)


def main() -> int:
    required = installed_requirements()
    required = {owner: each for owner, each in required.items() if not owner.startswith("augbench ")}
    try:
        facts = ask_index(required)
        lines = report_outdated(required, own_requirements(), facts)
        print(*(lines or ["Everything is at its newest version."]), sep="\n")
        if not facts.has_days:
            print("\nThe package index does not say when versions were released.")
        failure = None
    except Offline as error:
        facts, failure = None, error
    print("\nOverrides (pyproject.toml, [tool.uv]):", *report_overrides(required, facts), sep="\n")
    if failure:
        print(f"\nThe package index cannot be asked what is newer: {failure}", file=sys.stderr)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
