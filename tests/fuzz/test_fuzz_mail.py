from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.fuzz_mail import NEVER_RAISING, TARGETS, run
from tests.kim.layers import CLIENT_MAIL, Layers
from tests.mail.smime.samples import ca, practice

from schleuse.mail.smime import ber

VALID = Layers()
#: One valid input of each kind, to be damaged; every target gets every one.
SEEDS = {
    "client mail": CLIENT_MAIL,
    "KIM mail": VALID.mail(),
    "signed": VALID.signed(),
    "envelope": VALID.sealed(),
    "certificate": practice("p256").certificate_der,
    "chunks": ber.indefinite(ber.SEQUENCE, ber.chunked(ber.OCTET_STRING, bytes(300), 100)),
    "ocsp": ca().ocsp(practice("p256").certificate, ca().certificate.not_valid_before_utc),
    "multipart": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25)
@given(data=st.data())
def test_damage_is_malformed_and_nothing_else(target: str, seed: str, data: st.DataObject) -> None:
    octets = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        octets = octets or bytearray(1)
    run(target, bytes(octets))


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_noise_is_malformed_and_nothing_else(target: str, data: bytes) -> None:
    run(target, data)


def test_the_targets_that_answer_always_exist() -> None:
    assert set(TARGETS) > NEVER_RAISING


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (optional)")
@pytest.mark.parametrize("target", TARGETS)
def test_the_command_fuzzes_for_a_moment(target: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "tests/fuzz/fuzz_mail.py"), target, "-runs=200"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root / 'src'}:{root}"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
