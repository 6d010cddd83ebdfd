"""What a witness can cosign in a second (journal.md § 18), beside the raw flushes of the same run.

    python -m bench.witness [--seconds 1] [--rounds 3] [--dir /var/tmp]

One request parsed, its signature and consistency proof checked, the new size committed by SQLite with
`synchronous = FULL`, and cosigned; one after the other, as a log asks. The log grows by 100 entries each time.
raw: pwrite of 4 KiB and fdatasync, a second, measured for 0.2 s before and after every round; medians of the rounds.
Writes bench/results/witness.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.journal import raw_rate
from schleuse.clock import utc_now
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.cosignature import Ed25519Cosigner
from schleuse.journal.note import LogKey, LogSigner
from schleuse.journal.proof import consistency_proof
from schleuse.journal.tree import MemoryTree, root_at
from schleuse.journal.witness_request import WitnessRequest, parse_witness_request
from schleuse.witness.alarm import Alarm
from schleuse.witness.service import Cosigned, Witness
from schleuse.witness.store import WitnessStore

RESULTS = Path(__file__).parent / "results"
ORIGIN = "journal.example/kasse-0/2027"
STEP = 100
REQUESTS = 4000
REQUIRED = 0.15


def requests(signer: LogSigner) -> list[bytes]:
    """What the log sends, in order."""
    tree = MemoryTree([number.to_bytes(8) for number in range(STEP * REQUESTS)])
    made = []
    for size in range(STEP, STEP * REQUESTS + 1, STEP):
        old, checkpoint = size - STEP, Checkpoint(ORIGIN, size, root_at(size, tree))
        proof = tuple(consistency_proof(old, size, tree))
        made.append(WitnessRequest(old, proof, checkpoint, checkpoint.signed_by(signer)).encode())
    return made


def alarmed(alarm: Alarm) -> None:
    raise AssertionError(alarm)


def cosign(folder: Path, signer: LogSigner, asked: list[bytes], seconds: float) -> list[float]:
    """Seconds that each took."""
    store = WitnessStore(folder / "witness.sqlite")
    cosigner = Ed25519Cosigner("witness.example/kasse", Ed25519PrivateKey.generate())
    witness = Witness({ORIGIN: (LogKey(signer.key),)}, (cosigner,), store, utc_now, alarmed)
    spent, stop = [], time.perf_counter() + seconds
    for body in asked:
        start = time.perf_counter()
        if start >= stop:
            break
        assert isinstance(witness.add_checkpoint(parse_witness_request(body)), Cosigned)
        spent.append(time.perf_counter() - start)
    store.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    args = parser.parse_args()
    signer = LogSigner(ORIGIN, Ed25519PrivateKey.generate())
    asked, rates, raws, middles = requests(signer), [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.dir) as name:
            raw = raw_rate(Path(name))
            spent = cosign(Path(name), signer, asked, args.seconds)
            raws.append((raw + raw_rate(Path(name))) / 2)
        rates.append(len(spent) / sum(spent))
        middles.append(statistics.median(spent) * 1e3)
    figure = {
        "case": "witness add-checkpoint",
        "per_second": statistics.median(rates),
        "p50_ms": statistics.median(middles),
        "raw": statistics.median(raws),
    }
    ratio = figure["per_second"] / figure["raw"]
    figure |= {"ratio": ratio, "required": REQUIRED}
    line = (
        f"| {figure['case']} | {figure['per_second']:,.0f} | {figure['p50_ms']:.2f} | {ratio:.2f} | "
        f"≥ {REQUIRED}{'' if ratio >= REQUIRED else ' MISSED'} | {figure['raw']:,.0f} |"
    )
    print(line)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "witness.json").write_text(json.dumps(figure, indent=1) + "\n")
    head = "| case | a second | p50 ms | ratio to raw | required | raw/s |\n|---|---|---|---|---|---|\n"
    (RESULTS / "witness.md").write_text(head + line + "\n")


if __name__ == "__main__":
    main()
