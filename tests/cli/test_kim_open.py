from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.kim.layers import CLIENT_MAIL, Layers, ecies
from tests.mail.smime.samples import INSURER, NOW, ca, insurer

from schleuse.cli import app
from schleuse.errors import MalformedError, UnavailableError

VALID = Layers()


#: (exit code, octets on stdout, text on stderr) of `schleuse kim open …` in the folder.
Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    insurer().write(tmp_path, "enc")
    insurer("brainpool").write(tmp_path, "ec")
    (tmp_path / "enc.p12").write_bytes(insurer().p12(b"geheim"))
    (tmp_path / "password").write_bytes(b"geheim\n")
    ca().save(tmp_path)
    (tmp_path / "crl.pem").write_bytes(ca().crl(NOW).public_bytes(serialization.Encoding.PEM))
    (tmp_path / "mail.eml").write_bytes(VALID.mail())
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: str) -> tuple[int, bytes, str]:
        out, err = io.BytesIO(), io.StringIO()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, write_through=True))
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as left:
            app(["kim", "open", *arguments])
        return int(left.value.code or 0), out.getvalue(), err.getvalue()

    return call


P12 = ("--p12", "enc.p12", "--password-file", "password")
PEM = ("--key", "enc.key", "--cert", "enc.pem")


@pytest.mark.parametrize("key", [P12, PEM])
def test_the_inner_mail_goes_to_stdout_and_the_results_to_stderr(run: Run, key: tuple[str, ...]) -> None:
    code, out, err = run("mail.eml", *key, "--trust", "ca.pem", "crl.pem")
    assert (code, out) == (0, CLIENT_MAIL)
    assert "X-KIM-DecryptionResult: 00" in err
    assert "X-KIM-IntegrityCheckResult: 01" in err or "X-KIM-IntegrityCheckResult: 07" in err


def test_without_trust_anchors_the_certificate_is_not_checked(run: Run) -> None:
    code, _, err = run("mail.eml", *PEM)
    assert code == 0
    assert "X-KIM-IntegrityCheckResult: 07" in err
    assert "no trust anchors" in err


def test_json_is_one_object_for_machines(run: Run) -> None:
    _, _, err = run("mail.eml", *PEM, "--json")
    result = json.loads(err)
    assert (result["decryption"], result["integrity"], result["intact"]) == ("00", ["07"], True)
    assert (result["telematik_id"], result["signing_time"]) == ("1-5678", NOW.isoformat())


def test_a_hyphen_reads_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(VALID.mail())))
    assert run("-", *PEM)[:2] == (0, CLIENT_MAIL)


def test_the_address_binds_the_key(run: Run) -> None:
    assert run("mail.eml", *PEM, "--address", INSURER)[0] == 0
    code, out, err = run("mail.eml", *PEM, "--address", "other@kasse.kim.telematik-test")
    assert (code, out) == (2, b"")
    assert "X-KIM-DecryptionResult: 01" in err
    assert "X-KIM-Fehlermeldung: 4009" in err


def test_a_mail_that_is_not_intact_is_shown_with_exit_code_1(run: Run, folder: Path) -> None:
    content = VALID.signed_head + VALID.signed().replace(b"Hallo", b"Hullo")
    (folder / "changed.eml").write_bytes(VALID.mail(VALID.sealed(content)))
    code, out, err = run("changed.eml", *PEM)
    assert (code, out) == (1, CLIENT_MAIL.replace(b"Hallo", b"Hullo"))
    assert "X-KIM-IntegrityCheckResult: 02" in err


def test_a_mail_that_does_not_open_has_exit_code_2(run: Run, folder: Path) -> None:
    (folder / "broken.eml").write_bytes(VALID.mail(b"no CMS"))
    code, out, err = run("broken.eml", *PEM)
    assert (code, out) == (2, b"")
    assert "X-KIM-DecryptionResult: 02" in err


def test_what_is_no_kim_mail_is_shown_unchanged_and_counts_as_not_opened(run: Run, folder: Path) -> None:
    (folder / "dsn.eml").write_bytes(CLIENT_MAIL)
    code, out, err = run("dsn.eml", *PEM)
    assert (code, out) == (2, CLIENT_MAIL)
    assert "no KIM mail" in err


def test_a_mail_for_an_ec_key_says_that_we_cannot_do_that_yet(run: Run, folder: Path) -> None:
    to_ec = [(INSURER, insurer("brainpool").certificate_der)]
    layers = replace(VALID, sealed_for=to_ec, signed_for=to_ec, wrap=ecies)
    (folder / "ec.eml").write_bytes(layers.mail())
    code, _, err = run("ec.eml", "--key", "ec.key", "--cert", "ec.pem")
    assert code == 69
    assert "X-KIM-DecryptionResult: X01" in err
    assert "not supported yet" in err


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("mail.eml",), MalformedError),
        (("mail.eml", *P12, *PEM), MalformedError),
        (("mail.eml", "--key", "enc.key"), MalformedError),
        (("missing.eml", *PEM), UnavailableError),
        (("mail.eml", "--p12", "enc.p12"), UnavailableError),
        (("mail.eml", "--p12", "mail.eml"), UnavailableError),
        (("mail.eml", "--key", "enc.pem", "--cert", "enc.pem"), UnavailableError),
        (("mail.eml", "--key", "enc.key", "--cert", "enc.key"), UnavailableError),
        (
            ("mail.eml", "--key", "ec.key", "--cert", "enc.pem"),
            UnavailableError,
        ),  # a pair that does not belong together
        (("mail.eml", *PEM, "--trust", "password"), UnavailableError),
    ],
)
def test_what_the_command_line_lacks_is_an_error_of_its_kind(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], kind: type[Exception]
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(kind):
        app(["kim", "open", *arguments])
