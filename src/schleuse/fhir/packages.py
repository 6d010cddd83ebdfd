"""Official FHIR packages on disk, and which set of them is valid from when to when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from schleuse.errors import MalformedError, RefusedError
from schleuse.fhir.definitions import Definitions


class BadPackageError(MalformedError):
    """Not a FHIR package that we accept (npm-style .tgz with bounded JSON files)."""

    code = "fhir.bad-package"


class UnknownListError(RefusedError):
    """No dependency list of that name, or one of its packages is not installed."""

    code = "fhir.unknown-list"


@dataclass(frozen=True, slots=True)
class DependencyList:
    """A set of packages that is valid together for documents dated in [valid_from, valid_till], both inclusive.

    valid_till: None means open.
    packages: file stems as in the configuration ("kbv.ita.eau-1.2.1").
    """

    name: str
    packages: tuple[str, ...]
    valid_from: date
    valid_till: date | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """What is installed in a directory.

    profiles: profile URL -> version after the bar ("" for none) -> names of the lists that may judge it.
    """

    lists: tuple[DependencyList, ...]
    profiles: dict[str, dict[str, tuple[str, ...]]]
    ignored_code_systems: tuple[str, ...]

    def for_document(self, profile: str, issued: date) -> DependencyList | None:
        """The list that judges a document of this profile ("url|version") and date, or None if outside every window."""
        raise NotImplementedError


def add(paths: Iterable[Path], target_dir: Path, *, config: Path | None = None) -> list[str]:
    """Install package files (.tgz), and the lists of a configuration; returns the names of the packages installed.

    Raises BadPackageError; nothing of the faulty file is kept.
    """
    raise NotImplementedError


def read_registry(target_dir: Path) -> Registry:
    """What is installed; empty if the directory does not exist."""
    raise NotImplementedError


def load(target_dir: Path, list_name: str) -> Definitions:
    """Definitions of one dependency list, with the base R4 definitions that are installed. Raises UnknownListError."""
    raise NotImplementedError
