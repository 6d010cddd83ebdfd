"""Which packages judge a document of which date: data, not code (eau.md § 10).

The configuration is the `refv-config.yaml` of gematik's reference validator: dependencyLists (name -> packages,
validFrom, validTill), supportedProfiles (URL -> profileVersions -> dependencyLists), ignoredCodeSystems.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import yaml

from schleuse.errors import CorruptError, MalformedError


class BadConfigError(MalformedError):
    """The configuration of dependency lists cannot be read; whoever gave the file can repair it."""

    code = "fhir.bad-config"


class BadRegistryError(CorruptError):
    """Our own list of installed packages contradicts itself; install the packages again."""

    code = "fhir.bad-registry"


@dataclass(frozen=True, slots=True)
class DependencyList:
    """A set of packages that is valid together for documents dated in [valid_from, valid_till], both inclusive.

    valid_till: None means open.
    packages: names with version ("kbv.ita.eau-1.2.1"); where two define the same, the earlier one counts.
    """

    name: str
    packages: tuple[str, ...]
    valid_from: date
    valid_till: date | None = None

    def covers(self, day: date) -> bool:
        """Whether a document of this date is in the window."""
        return self.valid_from <= day and (self.valid_till is None or day <= self.valid_till)


@dataclass(frozen=True, slots=True)
class Registry:
    """What is installed in a directory.

    profiles: profile URL -> version after the bar -> names of the lists that may judge it.
    """

    lists: tuple[DependencyList, ...] = ()
    profiles: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    ignored_code_systems: tuple[str, ...] = ()

    def find(self, name: str) -> DependencyList | None:
        """The list of a name, or None."""
        return next((one for one in self.lists if one.name == name), None)

    def for_document(self, profile: str, issued: date) -> DependencyList | None:
        """The list that judges a document of this profile ("url|version") and date, or None if outside every window."""
        url, _, version = profile.partition("|")
        for name in self.profiles.get(url, {}).get(version, ()):
            found = self.find(name)
            if found is not None and found.covers(issued):
                return found
        return None

    def joined(self, newer: Registry) -> Registry:
        """Both together; what is in both is taken from the newer one."""
        lists = {one.name: one for one in (*self.lists, *newer.lists)}
        profiles = {url: dict(versions) for url, versions in self.profiles.items()}
        for url, versions in newer.profiles.items():
            for version, names in versions.items():
                known = profiles.setdefault(url, {}).get(version, ())
                profiles[url][version] = (*names, *(name for name in known if name not in names))
        ignored = dict.fromkeys((*self.ignored_code_systems, *newer.ignored_code_systems))
        return Registry(tuple(lists.values()), profiles, tuple(ignored))

    def to_json(self) -> str:
        """As it is kept on disk."""
        return json.dumps(
            {
                "lists": [
                    {
                        "name": one.name,
                        "packages": one.packages,
                        "validFrom": one.valid_from.isoformat(),
                        "validTill": one.valid_till.isoformat() if one.valid_till else None,
                    }
                    for one in self.lists
                ],
                "profiles": self.profiles,
                "ignoredCodeSystems": self.ignored_code_systems,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Registry:
        """What `to_json` wrote. Raises BadRegistryError."""
        try:
            value = json.loads(text)
            lists = tuple(
                DependencyList(
                    one["name"], tuple(one["packages"]), _day(one["validFrom"]), _day_or_open(one["validTill"])
                )
                for one in value["lists"]
            )
            profiles = {
                url: {version: tuple(names) for version, names in versions.items()}
                for url, versions in value["profiles"].items()
            }
            return cls(lists, profiles, tuple(value["ignoredCodeSystems"]))
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise BadRegistryError("the registry of FHIR packages cannot be read; add the packages again") from cause


def read_config(text: str) -> Registry:
    """The registry that a configuration (YAML, or JSON, which is YAML too) describes. Raises BadConfigError."""
    try:
        value = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - all strings: 1.2 is a version, no number
    except (yaml.YAMLError, RecursionError) as cause:
        raise BadConfigError("the configuration of dependency lists is not YAML") from cause
    try:
        lists = tuple(_lists(value["dependencyLists"]))
        profiles = {
            url: {version: tuple(entry["dependencyLists"]) for version, entry in profile["profileVersions"].items()}
            for url, profile in value.get("supportedProfiles", {}).items()
        }
        return Registry(lists, profiles, tuple(value.get("ignoredCodeSystems", ())))
    except (KeyError, TypeError, AttributeError, ValueError) as cause:
        raise BadConfigError(
            "the configuration lacks dependencyLists with packages and validFrom, "
            "or supportedProfiles with profileVersions and their dependencyLists"
        ) from cause


def _lists(entries: Mapping[str, Any]) -> Iterator[DependencyList]:
    for name, entry in entries.items():
        packages = tuple(package.removesuffix(".tgz") for package in entry["packages"])
        yield DependencyList(name, packages, _day(entry["validFrom"]), _day_or_open(entry.get("validTill")))


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _day_or_open(text: str | None) -> date | None:
    return _day(text) if text else None
