"""All measurements, one after the other: tables and plots go to bench/results."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "crypto",
    "check",
    "store",
    "intake",
    "journal",
    "witness",
    "vault",
    "processing",
    "shutdown",
    "abort",
    "release",
    "state_check",
    "soak",
)


def main() -> None:
    chosen = sys.argv[1:] or NAMES
    for name in chosen:
        print(f"\n== {name} ==", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)


if __name__ == "__main__":
    main()
