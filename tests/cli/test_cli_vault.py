"""`schleuse vault …` against a vault behind its socket: plans before deeds, and no person where others can read."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.cli.conftest import Ended, Shell
from tests.vault.vaults import AUDIENCE, EAU, KASSE, OPERATOR, SYSTEM, Vault, build, mail, store_in, take_over

from schleuse.cli import EXIT_CODES
from schleuse.cli.vault_orders import order_of
from schleuse.config import read_config
from schleuse.eau.document import DocumentId, Facts, Kind, Profile
from schleuse.eau.sealing import named
from schleuse.errors import ConflictError, MalformedError, RefusedError, UnavailableError
from schleuse.journal.entry import Kind as Leaf
from schleuse.journal.entry import Purpose
from schleuse.vault.budgets import Limits
from schleuse.vault.contracts import ErasedError
from schleuse.vault.overrides import Overrides
from schleuse.vault.rotation import Rotation
from schleuse.vault.server import Desk, listen
from schleuse.vault.tokens import audience, read_public_key, verify_token

SECOND = Ed25519PrivateKey.generate()
KVNR = "A123456780"
NAME = "urn:uuid:1"
NOT_READY = 69
T = TypeVar("T")


class Running:
    """A vault in a loop of its own; the commands run in the test's thread."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Event | None = None
        self.imported: list[dict[str, str]] = []
        self.vault: Vault = build(store_in(folder), limits=Limits(1000, 1000))
        self.vault.clock.now = datetime.now(UTC)
        self.rotation = Rotation(self.vault.core, [KASSE], {("op", ""): OPERATOR.public_key()}, AUDIENCE)
        up: Future[None] = Future()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(up),))
        self._thread.start()
        up.result(30)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def filed(self, person: bytes = KVNR.encode()) -> bytes:
        return self.do(self.vault.filed(NAME, b"<eAU/>", person=person))

    def fetched(self, container: bytes) -> bytes:
        return self.do(self.vault.fetched(NAME, container))

    def entries(self, kind: Leaf) -> int:
        return [entry.kind for entry in self.vault.journal.entries()].count(kind)

    def close(self) -> None:
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        self._loop.close()
        self.vault.store.close()

    async def _imports(self) -> list[dict[str, str]]:
        return self.imported

    async def _serve(self, up: Future[None]) -> None:
        self._ended = asyncio.Event()
        await take_over(self.vault)
        keys = {("op", ""): OPERATOR.public_key(), ("second", ""): SECOND.public_key()}
        overrides = Overrides(self.vault.core, [KASSE], keys, AUDIENCE)
        desk = Desk(self.vault.service, self._imports, self.rotation, overrides)
        async with listen(self._path, desk, {os.getuid(): "operator"}):
            up.set_result(None)
            await self._ended.wait()


@pytest.fixture
def site(home: Path, tmp_path: Path) -> Iterator[Running]:
    """The home's vault, for which the audience of tokens is `schleuse:test.example`."""
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace('hostname = "kim.test.kim.telematik-test"', 'hostname = "test.example"'))
    running = Running(tmp_path, read_config(home).vault_socket)
    yield running
    running.close()


@pytest.fixture
def order(home: Path) -> tuple[str, ...]:
    """What says who gives an order."""
    pem = OPERATOR.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "op.key").write_bytes(pem)
    return ("--home", str(home), "--ik", KASSE.value, "--operator", "op", "--operator-key", str(home / "op.key"))


@pytest.fixture
def person(tmp_path: Path) -> Path:
    file = tmp_path / "person"
    file.write_text(f"{KVNR}\n")
    return file


Erase = Callable[..., Ended]


@pytest.fixture
def erase(shell: Shell, order: tuple[str, ...], person: Path) -> Erase:
    return lambda *more: shell("vault", "erase", "--person-file", str(person), *order, *more)


def test_status_shows_counters_and_whether_the_role_is_ready(shell: Shell, site: Running, home: Path) -> None:
    site.fetched(site.filed())
    site.do(site.vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)]))
    shown = shell("vault", "status", "--home", str(home), "--json")
    found = json.loads(shown.out)
    (log,) = found["logs"].values()
    assert (log["counter"], log["in_doubt"]) == (3, 0)
    assert found["releases_since_start"] == {f"{KASSE} EAU_DELIVERY": 1, f"{KASSE} EAU_INTAKE": 2}
    assert (shown.code, found["health"]["ready"]) == (NOT_READY, False), "nobody answers at its metrics port here"
    text = shell("vault", "status", "--home", str(home))
    assert "letzte Freigabe" in text.out
    assert f"2 {KASSE} EAU_INTAKE" in text.out
    assert "nicht bereit" in text.out


@pytest.mark.parametrize("words", [("status",), ("import",)])
def test_without_a_vault_a_command_says_so(shell: Shell, home: Path, words: tuple[str, ...]) -> None:
    ended = shell("vault", *words, "--home", str(home))
    assert (ended.code, ended.out) == (EXIT_CODES[UnavailableError], "")
    assert "vault.sock" in ended.err


def test_erase_shows_its_plan_and_does_nothing(site: Running, erase: Erase) -> None:
    container = site.filed()
    shown = erase()
    assert shown.code == 0
    assert "KEY_DESTROYED" in shown.out
    assert "--yes" in shown.out
    assert KVNR not in shown.out + shown.err
    assert site.fetched(container) == b"<eAU/>"


def test_erase_destroys_with_an_entry_and_knows_nobody_afterwards(site: Running, erase: Erase) -> None:
    container = site.filed()
    done = erase("--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "vernichtet")
    assert KVNR not in done.out + done.err
    with pytest.raises(ErasedError):
        site.fetched(container)
    assert site.entries(Leaf.KEY_DESTROYED) == 1
    assert erase("--yes").out.splitlines()[-1] == "die Kasse hat nichts von dieser Person"


def test_a_person_can_be_typed_or_piped_and_is_never_an_argument(
    shell: Shell, site: Running, order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.filed()
    assert shell("vault", "erase", KVNR, *order).code == 2
    assert shell("vault", "erase", "--person", KVNR, *order).code == 2
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: KVNR)
    assert "KEY_DESTROYED" in shell("vault", "erase", *order).out
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KVNR}\n"))
    done = shell("vault", "erase", "--person-file", "-", *order, "--yes")
    assert done.out.splitlines()[-1] == "vernichtet"


def test_a_person_without_kvnr_is_named_as_the_eau_role_names_it(site: Running, erase: Erase, person: Path) -> None:
    nobodys = DocumentId("urn:uuid:7d2c1c3e-0000-4000-8000-000000000001")
    who = ("Beispiel", "Erika", "1970-01-01")
    container = site.filed(named(Facts(nobodys, Profile("", None), Kind.EAU, person=who)).person)
    person.write_text("beispiel \nERIKA\n1970-01-01\n")
    assert erase("--yes").out.splitlines()[-1] == "vernichtet"
    with pytest.raises(ErasedError):
        site.fetched(container)


@pytest.mark.parametrize("text", ["", "A12345678", "Erika", "Erika\n1970", "Beispiel\nErika\n1970\nMusterstadt"])
def test_what_names_no_person_is_an_error_that_quotes_nothing(erase: Erase, person: Path, text: str) -> None:
    person.write_text(text)
    ended = erase("--yes")
    assert ended.code == EXIT_CODES[MalformedError]
    assert not any(line in ended.out + ended.err for line in text.splitlines())


def test_an_order_with_another_key_destroys_nothing_and_leaves_an_entry(
    site: Running, erase: Erase, home: Path
) -> None:
    container = site.filed()
    (home / "op.key").write_bytes(SYSTEM.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert erase("--yes").code == EXIT_CODES[RefusedError]
    assert site.fetched(container) == b"<eAU/>"
    assert len(site.vault.journal.denials()) == 1


def test_an_insurer_that_is_not_configured_is_refused(shell: Shell, order: tuple[str, ...], person: Path) -> None:
    other = [word if word != KASSE.value else "109999999" for word in order]
    ended = shell("vault", "erase", "--person-file", str(person), *other)
    assert ended.code == EXIT_CODES[RefusedError]


def test_an_opening_shows_what_an_entry_stands_for_and_is_an_entry(
    shell: Shell, site: Running, order: tuple[str, ...]
) -> None:
    site.do(site.vault.service.open_mails(EAU, KASSE, [mail(4711)]))
    (release,) = site.vault.journal.releases()
    shown = shell("vault", "opening", str(release.event), *order, "--json")
    assert shown.code == 0
    assert "4711" in shown.out
    assert "role eau" in shown.out
    looks = [one for one in site.vault.journal.entries() if one.kind is Leaf.READ]
    assert [one.purpose for one in looks] == [Purpose.DATA_PROTECTION]
    assert "4711" in shell("vault", "opening", str(release.event), *order).out


def test_an_event_without_opening_is_refused_and_the_look_is_an_entry_all_the_same(
    shell: Shell, site: Running, order: tuple[str, ...]
) -> None:
    unknown = "00000000-0000-7000-8000-000000000000"
    assert shell("vault", "opening", unknown, *order).code == EXIT_CODES[RefusedError]
    assert shell("vault", "opening", "nonsense", *order).code == EXIT_CODES[MalformedError]
    assert site.entries(Leaf.READ) == 1


def test_import_shows_each_file_and_fails_while_one_is_not_in_the_vault(
    shell: Shell, site: Running, home: Path
) -> None:
    one = {"ik": KASSE.value, "kind": "enc", "file": "/h/enc.key", "state": "known", "reason": "", "on_disk": "yes"}
    site.imported = [one]
    shown = shell("vault", "import", "--home", str(home))
    assert (shown.code, "schon im Tresor" in shown.out, "liegt noch als Datei" in shown.out) == (0, True, True)
    site.imported = [one, {**one, "kind": "osig", "state": "missing", "reason": "nobody has it", "on_disk": "no"}]
    shown = shell("vault", "import", "--home", str(home))
    assert (shown.code, "fehlt" in shown.out, "nobody has it" in shown.out) == (NOT_READY, True, True)
    assert json.loads(shell("vault", "import", "--home", str(home), "--json").out) == site.imported


@pytest.fixture
def operator(home: Path, order: tuple[str, ...]) -> tuple[str, ...]:
    """An order for all insurers."""
    return tuple(word for word in order if word not in ("--ik", KASSE.value))


def test_rotate_shows_its_plan_and_does_nothing(shell: Shell, site: Running, operator: tuple[str, ...]) -> None:
    shown = shell("vault", "rotate", *operator)
    assert shown.code == 0
    assert "Generation 2 entsteht" in shown.out
    assert site.vault.core.keyring.kek.generations == (1,)


def test_rotate_makes_a_generation_and_the_same_again_no_other(
    shell: Shell, site: Running, operator: tuple[str, ...]
) -> None:
    site.filed()
    assert "noch umzupacken: 4" in shell("vault", "rotate", *operator, "--yes").out  # person, two identities, insurer
    again = json.loads(shell("vault", "rotate", *operator, "--yes", "--json").out)
    assert again == {"generations": [1, 2], "left": 4, "restart_first": True}
    assert site.do(site.rotation.sweep())
    shown = shell("vault", "rotate", *operator).out
    assert "keine ältere verpackt noch etwas" in shown
    assert "den Tresor neu starten" in shown
    assert "Generation 3 entsteht" in shown


def test_retire_shows_its_plan_and_the_vault_judges(shell: Shell, site: Running, operator: tuple[str, ...]) -> None:
    shell("vault", "rotate", *operator, "--yes")
    assert site.do(site.rotation.sweep())
    assert "Generation 1 wird" in shell("vault", "retire", "1", *operator).out
    ended = shell("vault", "retire", "1", *operator, "--yes")
    assert ended.code == EXIT_CODES[ConflictError]
    assert "start the vault again first" in ended.err
    assert site.vault.core.keyring.kek.generations == (1, 2)


def test_no_key_is_made_in_a_token_that_is_not_configured(shell: Shell, home: Path) -> None:
    ended = shell("vault", "init-hsm", "--home", str(home))
    assert ended.code == EXIT_CODES[RefusedError]
    assert "vault.hsm is not configured" in ended.err


@pytest.fixture
def more(home: Path, order: tuple[str, ...]) -> Callable[..., tuple[str, ...]]:
    """An order for more than the budget, as one of the two operators gives it."""
    (home / "second.key").write_bytes(SECOND.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def words(operator: str, *rest: str, releases: str = "5000") -> tuple[str, ...]:
        own = [word.replace("op.key", f"{operator}.key") if word.endswith("op.key") else word for word in order]
        own[own.index("--operator") + 1] = operator
        many = ("--releases", releases, "--hours", "3", "--reason", "Stau nach Ausfall")
        return ("vault", "override", "--role", "eau", *own, *many, *rest)

    return words


def test_override_needs_what_a_second_operator_signed_and_status_shows_it(
    shell: Shell, site: Running, home: Path, tmp_path: Path, more: Callable[..., tuple[str, ...]]
) -> None:
    order = str(tmp_path / "order")
    plan = shell(*more("op"))
    assert (plan.code, "BUDGET_OVERRIDE" in plan.out, "wenn der Tresor neu startet" in plan.out) == (0, True, True)
    assert shell(*more("op", "--yes")).code == EXIT_CODES[MalformedError]
    assert shell(*more("op", "--yes", "--second", order)).code == EXIT_CODES[UnavailableError]
    assert shell(*more("op", "--sign", order)).code == 0
    alone = shell(*more("op", "--yes", "--second", order))
    assert (alone.code, "two different persons" in alone.err) == (EXIT_CODES[RefusedError], True)
    assert site.entries(Leaf.BUDGET_OVERRIDE) == 0

    again = shell(*more("second", "--sign", order))
    assert again.code == EXIT_CODES[UnavailableError], "no file is written over"
    os.unlink(order)
    assert "fünf Minuten" in shell(*more("second", "--sign", order)).out
    assert os.stat(order).st_mode & 0o777 == 0o600
    done = shell(*more("op", "--yes", "--second", order))
    assert (done.code, "Neustart des Tresors" in done.out) == (0, True)
    assert site.entries(Leaf.BUDGET_OVERRIDE) == 1
    assert "über der Grenze" in shell("vault", "status", "--home", str(home)).out

    assert "beendet" in shell(*more("second", "--end")).out
    assert "keine Überschreitung" in shell(*more("second", "--end")).out
    assert "über der Grenze" not in shell("vault", "status", "--home", str(home)).out


def test_an_operators_key_of_this_home_need_not_be_named(home: Path) -> None:
    config = read_config(home)
    token = order_of(config, KASSE, "betrieb-1", None, "erase", ("ERASE", "00"))
    keys = {("betrieb-1", ""): read_public_key(home / "operators" / "betrieb-1.pub.pem")}
    claims = verify_token(token, keys, aud=audience(config.hostname), purpose="erase", now=datetime.now(UTC))
    assert claims.name == "betrieb-1"
