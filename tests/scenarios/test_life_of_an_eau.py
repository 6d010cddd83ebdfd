"""The life of an eAU over real ports: SMTP, S/MIME, DSN, checks, feed, Fehlernachricht, POP3 (docs/tour.md)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, until

from schleuse.practice.faults import FAULTS
from schleuse.practice.ledger import Progress


def answered(platform: Platform, message_ids: set[str], progress: set[Progress]) -> bool:
    platform.fetch()
    return all(platform.ledger.mails[id].progress in progress for id in message_ids)


def test_twenty_eau_and_a_faulty_one(running: Platform) -> None:
    mails = running.mails(running.order(20, "signature"))
    replies = running.send(mails)
    assert [reply.code for reply in replies] == [250] * 21
    *good, bad = (mail.sent.message_id for mail in mails)
    until(lambda: answered(running, set(good), {Progress.DELIVERED}), "20 receipts")
    until(lambda: answered(running, {bad}, {Progress.FAULTY}), "the Fehlernachricht")
    assert running.ledger.mails[bad].code == "202"
    wanted = {mail.sent.document_id for mail in mails[:-1]}
    until(lambda: wanted <= {event["document_id"] for event in running.events()}, "20 events")
    times = [event["accepted_at"] for event in running.events()]
    assert times == sorted(times)
    until(lambda: running.conservation().holds, "conservation")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.code])
def test_each_fault_comes_back_with_its_code_and_is_not_filed(running: Platform, name: str) -> None:
    [mail] = running.mails(running.order(0, name), seed=500 + sorted(FAULTS).index(name))
    running.send([mail])
    until(lambda: answered(running, {mail.sent.message_id}, {Progress.FAULTY}), f"the code of {name}")
    assert running.ledger.mails[mail.sent.message_id].code == str(FAULTS[name].code)
    assert mail.sent.document_id not in {event["document_id"] for event in running.events()}


def test_a_mail_sent_twice_is_filed_once_and_nobody_is_told_of_an_error(running: Platform) -> None:
    [mail] = running.mails(running.order(0, "duplicate"), seed=77)
    running.send([mail])
    until(lambda: answered(running, {mail.sent.message_id}, {Progress.DELIVERED}), "the receipt")
    until(lambda: mail.sent.document_id in [e["document_id"] for e in running.events()], "the event")
    assert [e["document_id"] for e in running.events()].count(mail.sent.document_id) == 1


def test_a_storno_cancels_in_the_feed(running: Platform) -> None:
    eau, storno = running.mails(running.order(1, stornos=1, insurer=1), seed=5)
    running.send([storno])  # it overtakes its eAU
    running.send([eau])
    until(lambda: len(running.events(1)) == 2, "both events")
    first, second = running.events(1)
    assert (first["kind"], first["state"]) == ("eau", "cancelled")
    assert (second["kind"], second["cancels"]) == ("storno", first["document_id"])


def test_what_the_insurer_acknowledges_is_confirmed(running: Platform) -> None:
    until(lambda: len(running.events(1)) == 2, "the events of the Storno")
    with running.feed(1) as client:
        last = client.get("eau").json()["last"]
        assert client.post("eau/ack", json={"cursor": last}).json()["acked"] == last
        assert client.get("eau").json()["events"] == []
    account = running.config.insurers[1].address
    until(
        lambda: any(
            one.name == account and one.states.get("CONFIRMED") == 2  # type: ignore[call-overload]
            for one in running.conservation().accounts
        ),
        "two deliveries confirmed",
    )


def test_one_insurer_never_sees_anothers(running: Platform) -> None:
    document = running.events(0)[0]["document_id"]
    other = running.config.insurers[0].ik
    with running.feed(1) as client:
        base = f"https://{running.config.eau.feed}/v1/{other}"
        assert client.get(f"{base}/eau").status_code in {401, 403}
        assert client.get(f"{base}/eau/{document}").status_code in {401, 403}
        assert client.get(f"eau/{document}").status_code == 404


def test_the_document_that_is_fetched_is_the_one_that_was_sent(running: Platform, tmp_path: Path) -> None:
    [mail] = running.mails(running.order(1), seed=99)
    running.send([mail])
    until(lambda: mail.sent.document_id in [e["document_id"] for e in running.events()], "the event")
    with running.feed() as client:
        xml = client.get(f"eau/{mail.sent.document_id}", headers={"Accept": "application/fhir+xml"}).content
        p7s = client.get(f"eau/{mail.sent.document_id}", headers={"Accept": "application/pkcs7-mime"}).content
    (tmp_path / "eau.p7s").write_bytes(p7s)
    opened = subprocess.run(
        ["openssl", "cms", "-verify", "-inform", "DER", "-in", str(tmp_path / "eau.p7s"), "-binary"]
        + ["-CAfile", str(running.config.eau.trust[0]), "-purpose", "any"],
        capture_output=True,
        check=True,
    )
    assert opened.stdout == xml
    assert xml.startswith(b"<")


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_a_stock_mail_client_hands_over_an_eau(running: Platform, tmp_path: Path) -> None:
    [mail] = running.mails(running.order(1), seed=123)
    running.ledger.record(mail.sent)
    (tmp_path / "mail.eml").write_bytes(mail.wire)
    practice = running.practice
    done = subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(running.port(running.config.kim.smtp_starttls or "")), "--tls"]
        + ["--auth", "LOGIN", "--auth-user", practice.address, "--auth-password", practice.password]
        + ["--from", practice.address, "--to", mail.sent.insurer, "--data", f"@{tmp_path / 'mail.eml'}"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    until(lambda: mail.sent.document_id in [e["document_id"] for e in running.events()], "the event")
