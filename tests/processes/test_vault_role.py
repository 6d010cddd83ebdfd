"""The vault and its journal as real processes: nothing opens without an entry, whoever is killed (RP-01, § 14.5)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, build_home, platform, until

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.kim.message import SealedKIMMail, open_with, read_envelope
from schleuse.mail.smime.trust import TrustStore
from schleuse.vault.client import VaultClient
from schleuse.vault.contracts import (
    BadTokenError,
    CounterAheadError,
    Document,
    ErasedError,
    KeyMissingError,
    Named,
    SealedMail,
    VaultUnavailableError,
    WrappedKey,
    feed_paths,
)
from schleuse.vault.tokens import audience, make_token, read_token_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KASSE = IK("109900011")
PERSON = b"A123456780"
NAME = "urn:uuid:0b8f1b5e-1111-4222-8333-444455556666"


@pytest.fixture(scope="module")
def a_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def site(a_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(a_home, tmp_path / "home") as one:
        yield one


@pytest.fixture
def up(site: Platform) -> Platform:
    """Journal and vault run."""
    site.start("journal")
    site.start("vault")
    until(lambda: site.ready("vault"), "the vault to be ready")
    return site


@pytest.fixture
def client(site: Platform) -> Iterator[VaultClient]:
    client = VaultClient(site.config.vault_socket)
    yield client
    client.close()


def sealed(site: Platform, client: VaultClient, seed: int = 1) -> SealedKIMMail:
    """A mail as a practice sends it, up to its wrapped key."""
    (mail,) = site.mails(site.order(1), seed)
    found = read_envelope(mail.wire, address=site.config.insurers[0].address, certificates=client.certificates(KASSE))
    assert isinstance(found, SealedKIMMail)
    return found


def opened(client: VaultClient, mail: SealedKIMMail) -> bytes | Error:
    return client.open_mails(KASSE, [SealedMail(1, mail.wrapped)])[0]


def filed(client: VaultClient, content: bytes) -> bytes:
    (whose,) = client.pseudonyms(KASSE, [Named(PERSON, b"content")])
    return client.file(KASSE, [Document(whose.subject, NAME, "xml", content)])[0]


def token(site: Platform, what: tuple[str, str] | None = None) -> str:
    key = read_token_key(site.home / "insurers" / KASSE.value / "feed.key")
    return make_token(
        key, "eins", KASSE, audience(site.config.hostname), "feed", what or ("GET", feed_paths(KASSE, NAME)[0]), now()
    )


def now() -> datetime:
    return datetime.now(UTC)


def entries(site: Platform, client: VaultClient) -> list[Entry]:
    """All that the vault has had confirmed; the journal signs and shows them a moment later."""
    size = int(log_of_kasse(client)["size"])
    until(lambda: len(site.entries()) >= size, "the entries to be published")
    return site.entries()


def releases(site: Platform, client: VaultClient) -> list[Entry]:
    return [one for one in entries(site, client) if one.kind is Kind.KEY_RELEASED and one.result is Result.GRANTED]


def log_of_kasse(client: VaultClient) -> dict[str, int]:
    found: dict[str, int] = next(one for origin, one in client.status()["logs"].items() if f"/{KASSE}/" in origin)
    return found


def counter(client: VaultClient) -> int:
    return log_of_kasse(client)["counter"]


def test_a_mail_is_opened_a_document_filed_and_fetched_each_with_its_entry(up: Platform, client: VaultClient) -> None:
    mail = sealed(up, client)
    key = opened(client, mail)
    assert isinstance(key, bytes)
    trust = TrustStore.from_files(up.config.eau.trust)
    whole = open_with(mail, key, trust=trust, now=now())
    assert whole.inner is not None
    container = filed(client, whole.inner)
    assert whole.inner not in container
    assert client.fetch(KASSE, token(up), NAME, "xml", container) == whole.inner
    assert [(one.purpose, one.release_counter) for one in releases(up, client)] == [
        (Purpose.EAU_INTAKE, 1),
        (Purpose.EAU_DELIVERY, 2),
    ]
    kinds = [one.kind for one in entries(up, client)]
    assert kinds.count(Kind.WRITE) == 1
    algorithm, signature = client.signer(KASSE).sign(b"data")
    assert algorithm
    assert signature
    assert counter(client) == 3


def test_what_is_not_shown_by_a_token_is_refused_and_leaves_an_entry(up: Platform, client: VaultClient) -> None:
    container = filed(client, b"<eAU/>")
    for wrong in ("", "nonsense", token(up, ("GET", f"/v1/{KASSE}/eau/urn:uuid:other"))):
        with pytest.raises(BadTokenError):
            client.fetch(KASSE, wrong, NAME, "xml", container)
    denied = [one for one in entries(up, client) if one.kind is Kind.KEY_RELEASED and one.result is Result.DENIED]
    assert len(denied) == 3
    assert releases(up, client) == []


def test_a_mail_for_a_key_that_the_vault_does_not_have_is_our_own_trouble(up: Platform, client: VaultClient) -> None:
    found = client.open_mails(KASSE, [SealedMail(1, WrappedKey(b"\x30\x00", b"\x30\x00", b"x"))])
    assert isinstance(found[0], KeyMissingError)
    with pytest.raises(KeyMissingError):
        client.certificates(IK("109999999"))


def test_without_the_journal_nothing_opens_and_with_it_all_goes_on(up: Platform, client: VaultClient) -> None:
    mail = sealed(up, client)
    container = filed(client, b"<eAU/>")
    assert isinstance(opened(client, mail), bytes)
    up.kill("journal")
    for attempt in (
        lambda: opened(client, mail),  # its key is still in memory
        lambda: client.fetch(KASSE, token(up), NAME, "xml", container),
        lambda: filed(client, b"<eAU/>"),
        lambda: client.signer(KASSE).sign(b"data"),
    ):
        with pytest.raises(VaultUnavailableError):
            attempt()
    until(lambda: not up.ready("vault"), "the vault to say that it is not ready")
    assert up.processes["vault"].poll() is None, "it does not crash for it"
    up.start("journal")
    until(lambda: up.ready("vault"), "the vault to be ready again")
    assert isinstance(opened(client, mail), bytes)
    assert client.fetch(KASSE, token(up), NAME, "xml", container) == b"<eAU/>"
    assert_numbered(up, client)


def test_a_vault_that_starts_before_the_journal_waits_for_it(site: Platform, client: VaultClient) -> None:
    site.start("vault")
    until(site.config.vault_socket.exists, "the vault's socket")
    with pytest.raises(VaultUnavailableError):
        filed(client, b"<eAU/>")
    site.start("journal")
    until(lambda: site.ready("vault"), "the vault to be ready")
    mail = sealed(site, client)
    assert isinstance(opened(client, mail), bytes)


def test_the_counter_of_a_vault_that_is_killed_has_no_gap(up: Platform, client: VaultClient) -> None:
    mail = sealed(up, client)
    container = filed(client, b"<eAU/>")
    answered = 0
    for _ in range(3):
        for _ in range(5):
            assert isinstance(opened(client, mail), bytes)
            answered += 1
        up.kill("vault")
        with pytest.raises(VaultUnavailableError):
            opened(client, mail)
        up.start("vault")
        until(lambda: up.ready("vault"), "the vault to be ready")
        assert client.fetch(KASSE, token(up), NAME, "xml", container) == b"<eAU/>"
        answered += 1
    assert_numbered(up, client)
    assert len(releases(up, client)) == answered


def test_a_vault_killed_in_the_middle_of_its_work_loses_no_number(up: Platform, client: VaultClient) -> None:
    """Requests are in flight: an entry without an opening may be, an opening without an entry never."""
    mail = sealed(up, client)
    answered: list[int] = []

    def work() -> None:
        with suppress(VaultUnavailableError):
            while True:
                answered.append(len(client.open_mails(KASSE, [SealedMail(1, mail.wrapped)] * 8)))

    for _ in range(3):
        before = len(answered)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(work)
            until(lambda: len(answered) > before + 30, "work")  # noqa: B023
            up.kill("vault")
        up.start("vault")
        until(lambda: up.ready("vault"), "the vault to be ready")
    assert_numbered(up, client)
    assert sum(answered) <= len(releases(up, client)) <= sum(answered) + 3 * 4 * 8


def assert_numbered(site: Platform, client: VaultClient) -> None:
    numbers = [one.release_counter for one in releases(site, client)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert counter(client) == len(numbers)


def test_a_journal_that_was_set_back_is_noticed_and_nothing_opens(up: Platform, client: VaultClient) -> None:
    """A backup put back, or entries taken away: the vault has counted more than the journal has (§ 14.5)."""
    mail = sealed(up, client)
    up.stop("journal")
    shutil.copytree(up.home / "journal", up.home / "backup")
    up.start("journal")
    until(lambda: up.ready("vault"), "the vault to be ready again")
    assert isinstance(opened(client, mail), bytes)
    up.stop("vault")
    up.stop("journal")
    shutil.rmtree(up.home / "journal")
    (up.home / "backup").rename(up.home / "journal")
    up.start("journal")
    up.start("vault")
    until(lambda: CounterAheadError.code in up.log("vault"), "the vault to say so")
    size = len(up.entries())
    for _ in range(9):
        with pytest.raises(CounterAheadError):
            opened(client, mail)
    assert not up.ready("vault")
    # The start's own entry and that of our reading may be signed only now.
    assert len(up.entries()) < size + 9, "asking again does not make up for what is lost"


def test_key_files_are_taken_over_once_and_then_gone(up: Platform, client: VaultClient) -> None:
    """As `schleuse init` configures it: `erase_key_files`."""
    files = [pair[1] for insurer in up.config.insurers for pair in (*insurer.encryption, insurer.signature)]
    assert [path for path in files if path.exists()] == []
    up.kill("vault")
    up.start("vault")
    until(lambda: up.ready("vault"), "the vault to be ready without the files")
    assert isinstance(opened(client, sealed(up, client)), bytes)
    assert {one["state"] for one in client.import_keys()} == {"known"}


def test_a_wrong_unlock_key_opens_nothing_and_is_told(up: Platform) -> None:
    up.stop("vault")
    up.config.vault.unlock_file.write_bytes(bytes(32))
    up.start("vault")
    assert up.processes.pop("vault").wait(60) == 69
    assert "does not unlock" in up.log("vault")
    (up.config.vault.folder / "kek.sealed").unlink()
    up.start("vault")
    assert up.processes.pop("vault").wait(60) == 69, "a new key would hide that the old one is gone"


def test_the_commands_show_count_and_erase(up: Platform, client: VaultClient, tmp_path: Path) -> None:
    container = filed(client, b"<eAU/>")
    assert client.fetch(KASSE, token(up), NAME, "xml", container) == b"<eAU/>"
    home = ("--home", str(up.home))
    status = json.loads(up.command("vault", "status", "--json", *home).stdout)
    assert status["health"]["ready"]
    assert status["releases_since_start"] == {f"{KASSE} EAU_DELIVERY": 1}
    (release,) = releases(up, client)
    operator = "betrieb-1"
    order = (
        "--ik",
        KASSE.value,
        "--operator",
        operator,
        "--operator-key",
        str(up.home / "operators" / f"{operator}.key"),
    )
    shown = up.command("vault", "opening", str(release.event), *order, "--json", *home)
    assert "insurer's system eins" in shown.stdout
    reads = [one for one in entries(up, client) if one.kind is Kind.READ and one.purpose is Purpose.DATA_PROTECTION]
    assert reads, "to look is an entry itself (RP-07)"

    person = tmp_path / "person"
    person.write_bytes(PERSON + b"\n")
    erase = ("vault", "erase", "--person-file", str(person), *order, *home)
    plan = up.command(*erase)
    assert "KEY_DESTROYED" in plan.stdout
    assert PERSON.decode() not in plan.stdout
    assert client.fetch(KASSE, token(up), NAME, "xml", container) == b"<eAU/>"


def test_an_erased_person_opens_never_again(up: Platform, client: VaultClient) -> None:
    for insurer in range(2):
        up.start_witness(insurer)
    container = filed(client, b"<eAU/>")
    operator = "betrieb-1"
    key = read_token_key(up.home / "operators" / f"{operator}.key")
    what = ("ERASE", sha256(PERSON).hexdigest())

    def erased() -> bool:
        order = make_token(key, operator, KASSE, audience(up.config.hostname), "erase", what, now())
        try:
            return client.erase(KASSE, order, PERSON)
        except VaultUnavailableError:  # the witnesses have only just come up
            assert client.fetch(KASSE, token(up), NAME, "xml", container) == b"<eAU/>"
            return False

    until(erased, "the erasure")
    with pytest.raises(ErasedError):
        client.fetch(KASSE, token(up), NAME, "xml", container)
    assert [one.kind for one in entries(up, client)].count(Kind.KEY_DESTROYED) >= 1


def test_nothing_of_a_person_a_content_or_a_key_is_in_the_log(up: Platform, client: VaultClient) -> None:
    container = filed(client, b"<eAU>secret</eAU>")
    client.fetch(KASSE, token(up), NAME, "xml", container)
    with pytest.raises(BadTokenError):
        client.fetch(KASSE, "nonsense", NAME, "xml", container)
    up.stop("vault")
    for word in (PERSON.decode(), "secret", "BEGIN", NAME):
        assert word not in up.log("vault")
