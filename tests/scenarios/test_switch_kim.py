"""The switch and the mail role, on real processes: what senders and mailboxes see (incident.md § 16).

HD-02, HD-03, HD-30, T-02, T-03 and T-24; conservation holds throughout.
"""

from __future__ import annotations

import poplib
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.config import host_and_port
from schleuse.kim.receipts import check_file, keys_of
from schleuse.kim.store.origins import reference_of
from schleuse.mail.spool import OsDisk
from schleuse.practice.ledger import Progress
from schleuse.scopes import ScopeState

DEFERRED = b"4.3.2 temporarily closed for security reasons, please retry automatically"


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home", {"[kim]": "[kim]\nreceipt_mails = true"}) as started:
        started.start_all()
        yield started


def saw(one: Platform, epoch: int) -> int:
    """The mail role has noted to the end that it saw the epoch."""
    until(
        lambda: bool(switching.effects(one.home, epoch).get("kim", {}).get("quiet_at")),
        f"epoch {epoch}\n{one.log('kim')[-3000:]}",
    )
    return epoch


def close(one: Platform, scopes: str, state: ScopeState) -> int:
    return saw(one, switching.close(one.home, scopes, state))


def trust(one: Platform) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(one.config.eau.submit_ca))


def asked(one: Platform, *recipients: str) -> list[tuple[int, bytes]]:
    """What RCPT TO each of these is answered with, in one transaction."""
    host, port = host_and_port(one.config.kim.smtp_tls)
    with smtplib.SMTP_SSL(host, port, context=trust(one)) as session:
        session.login(one.practice.address, one.practice.password)
        session.mail(one.practice.address)
        return [session.rcpt(address) for address in recipients]


def receipt(one: Platform, message_id: str) -> dict[str, object]:
    """Fetched from the status address and checked with the key that was published beforehand."""
    address = f"https://{one.config.kim.receipts}/v1/receipts/{reference_of(message_id)}"
    answer = httpx.get(address, verify=trust(one)).raise_for_status()
    keys = keys_of((one.home / "keys" / "receipts.jwks.json").read_bytes())
    (message,) = check_file(answer.content, keys)["messages"]
    return dict(message)


def progress(one: Platform) -> list[Progress]:
    one.fetch()
    return [sent.progress for sent in one.ledger.mails.values()]


def test_one_insurer_defers_while_the_other_and_letters_go_on(one: Platform) -> None:
    """HD-03, T-24: RCPT-level answers on a shared port, and nobody gets a 5xx."""
    first, second = (insurer.address for insurer in one.config.insurers)
    close(one, f"eau/{one.config.insurers[0].ik}", ScopeState.DEFER)
    answers = asked(one, first, second, one.practice.address)
    assert answers[0] == (451, DEFERRED)
    assert [code for code, _ in answers[1:]] == [250, 250]
    one.kill("kim")
    one.start("kim")
    until(lambda: one.ready("kim"), "the mail role")
    assert asked(one, first)[0][0] == 451  # SW-02, T-03
    saw(one, switching.open(one.home, f"eau/{one.config.insurers[0].ik}"))
    assert asked(one, first)[0][0] == 250
    assert one.conservation().holds


def test_held_eau_are_accepted_with_dsn_and_a_receipt_that_verifies_offline(one: Platform) -> None:
    """HD-02, HD-30: an informational mail for each, a signed receipt, no error."""
    close(one, "eau/*", ScopeState.HOLD)
    mails = one.mails(one.order(3))
    assert all(reply.accepted for reply in one.send(mails))
    until(lambda: progress(one) == [Progress.DELIVERED] * 3, "three DSNs")
    told = receipt(one, mails[0].sent.message_id)
    assert (told["held"], told["do_not_resend"], told["state"]) == (True, True, "HELD")
    assert told["action_needed"] == {"what": "none", "by": None}
    assert one.conservation().holds


def test_while_mail_is_held_mailboxes_say_try_later_and_running_sessions_end(one: Platform) -> None:
    """SW-10: what such a session had marked is not deleted."""
    mails = one.mails(one.order(1))
    one.send(mails)
    until(lambda: _count(one) > 0, "a DSN")
    host, port = host_and_port(one.config.kim.pop3_tls)
    session = poplib.POP3_SSL(host, port, context=trust(one), timeout=30)
    session.user(one.practice.address)
    session.pass_(one.practice.password)
    session.dele(1)
    close(one, "kim", ScopeState.HOLD)
    with pytest.raises((poplib.error_proto, OSError)):
        session.quit()
    session.close()
    with pytest.raises(poplib.error_proto, match=r"SYS/TEMP.*closed for security reasons"):
        _count(one)
    epoch = switching.open(one.home, "kim")
    saw(one, epoch)
    assert _count(one) > 0
    assert one.conservation().holds


def _count(one: Platform) -> int:
    host, port = host_and_port(one.config.kim.pop3_tls)
    session = poplib.POP3_SSL(host, port, context=trust(one), timeout=30)
    try:
        session.user(one.practice.address)
        session.pass_(one.practice.password)
        count = session.stat()[0]
        session.quit()
        return count
    finally:
        session.close()


def test_in_a_store_that_is_95_percent_full_eau_are_accepted_and_letters_deferred(
    base_home: Path, tmp_path: Path
) -> None:
    """T-18: no drop, no 5xx. The reserve is chosen so that this machine's disk counts as so full."""
    used, free = _disk(tmp_path)
    reserve = int(used + free - used / 0.97)
    changes = {"[kim]": f"[kim]\nmin_free_octets = {reserve}"}
    with platform(base_home, tmp_path / "home", changes) as one:
        one.start_all()
        insurer = one.config.insurers[0].address
        answers = asked(one, insurer, one.practice.address)
        assert [code for code, _ in answers] == [250, 452]
        (reply,) = one.send(one.mails(one.order(1)))
        assert reply.accepted
        assert one.conservation().holds


def _disk(folder: Path) -> tuple[int, int]:
    """(used, free) as the store sees it: what is reserved for root is used."""
    free, total = OsDisk().room(folder)
    return total - free, free
