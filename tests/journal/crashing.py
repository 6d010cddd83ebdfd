"""Child process of the crash test: the journal role on a home, until it is killed. Usage: crashing.py HOME PORT"""

from __future__ import annotations

import sys
from pathlib import Path

import uvloop

from schleuse.identifiers import IK
from schleuse.processes.journal import run
from schleuse.processes.journal_keys import JournalRole

if __name__ == "__main__":
    role = JournalRole(
        Path(sys.argv[1]),
        "test.example",
        (IK("109905003"), IK("108018007")),
        http=f"127.0.0.1:{sys.argv[2]}",
        segment_size=256 * 1024,
        publish_seconds=0.05,
    )
    uvloop.run(run(role))
