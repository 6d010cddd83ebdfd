"""`eau check`: documents a second when warm, and what a start costs with and without the cache of compiled rules.

    python -m bench.check [--documents 300]

CPU ms a document of about 25 KB, tree and rules apart, beside expat alone (the floor of reading XML in this
interpreter) on the same documents in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from xml.parsers import expat

from schleuse.eau.checks import Checker
from schleuse.fhir import parse
from schleuse.practice.documents import Generator

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5


def documents(count: int) -> list[bytes]:
    """Distinct valid eAU of about 25 KB."""
    rng = Random(7)
    now = datetime.now(UTC)
    return [Generator(rng, now).eau(payor="GKV", icds=6, steps=("reha", "d_arzt")).xml for _ in range(count)]


def cpu_ms(work: Callable[[bytes], object], files: list[bytes]) -> float:
    """Median over rounds of CPU ms a document, garbage collection off as in the workers."""
    gc.collect()
    gc.disable()
    spent = []
    for _ in range(ROUNDS):
        before = time.process_time()
        for file in files:
            work(file)
        spent.append((time.process_time() - before) / len(files) * 1e3)
        gc.collect()
    gc.enable()
    return statistics.median(spent)


def start_seconds(cache: Path) -> float:
    """Wall time of a new process until its rules are ready."""
    program = "import sys; from pathlib import Path; from schleuse.eau.checks import Checker; "
    program += "Checker('own', cache=Path(sys.argv[1])).warm()"
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(cache)], check=True)
    return time.perf_counter() - before


def command_seconds(folder: Path) -> float:
    """Wall time of `schleuse eau check FOLDER` on all the documents, start included."""
    command = [sys.executable, "-m", "schleuse", "eau", "check", str(folder), "--json", "--rules", "own"]
    subprocess.run(command, check=True, capture_output=True)  # compiles, if this user never has
    before = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    verdicts = [json.loads(line)["verdict"] for line in done.stdout.splitlines()]
    assert set(verdicts) == {"valid"}, verdicts
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=300)
    files = documents(parser.parse_args().documents)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir(mode=0o700)
        cold, warm = start_seconds(cache), statistics.median(start_seconds(cache) for _ in range(3))
        checker = Checker("own", cache=cache)
        checker.warm()
        papers = Path(folder) / "papers"
        papers.mkdir()
        for index, xml in enumerate(files):
            (papers / f"{index}.xml").write_bytes(xml)
        command = command_seconds(papers)
    floor = cpu_ms(lambda xml: expat.ParserCreate().Parse(xml, True), files)
    tree = cpu_ms(parse, files)
    both = cpu_ms(checker.check, files)
    rows = [
        ("size of a document, KB (median)", statistics.median(len(xml) for xml in files) / 1e3),
        ("expat alone, ms (floor)", floor),
        ("tree, ms", tree),
        ("tree + rules, ms", both),
        ("documents/s, one core, warm", 1e3 / both),
        ("start without cache, s (all five rule sets)", cold),
        ("start with cache, s", warm),
        (f"schleuse eau check of {len(files)} files, s", command),
    ]
    text = "| `eau check` | value |\n|---|---|\n" + "".join(f"| {name} | {value:,.2f} |\n" for name, value in rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "check.md").write_text(text)
    (RESULTS / "check.json").write_text(json.dumps(dict(rows), indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", "src")
    main()
