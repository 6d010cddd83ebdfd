"""Who issues hold receipts: the platform's receipt key, and what holds a delivery at this moment (incident.md § 6.4).

The key says "we had this mail then"; it opens nothing, so it lies beside the roles and not in the vault. Its public
half is in `keys/receipts.jwks.json`, for the paper that senders get beforehand, and at the status address.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from schleuse.clock import Now
from schleuse.config import Config, host_and_port
from schleuse.errors import UnavailableError
from schleuse.holding.receipt import Case, Entry, Hold, entry
from schleuse.holding.states import State
from schleuse.journal.disk import OsDisk, replace
from schleuse.kim.accounts import Accounts
from schleuse.kim.receipts import document, jwks, sign
from schleuse.kim.store import HoldWindow, MailStore
from schleuse.kim.store.holds import spans
from schleuse.kim.store.origins import Record
from schleuse.kim.switched import SENDING, reading
from schleuse.processes.switching import news_book
from schleuse.scopes import Direction, Scope, Service, atom
from schleuse.switch.copy import Switch, standing_of
from schleuse.switch.standing import UNKNOWN_TIME
from schleuse.vault.tokens import read_token_key

KEY = Path("keys/receipts.key")
JWKS = Path("keys/receipts.jwks.json")
#: What holds an insurer's mail when it is closed.
_WAYS = (Service.EAU_INTAKE, Service.KEYS)


class ReceiptKeyError(UnavailableError):
    """A key that signs what we say can be neither read nor made; the operator restores it or makes room."""

    code = "receipt.key"


def receipt_key(home: Path) -> Ed25519PrivateKey:
    """Raises ReceiptKeyError."""
    return signing_key(home / KEY, home / JWKS)


def signing_key(path: Path, public: Path) -> Ed25519PrivateKey:
    """A key that signs what we say, made at the first start, with its public half beside it. Raises ReceiptKeyError."""
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, Ed25519PrivateKey.generate())
        key = read_token_key(path)
    except (OSError, UnavailableError) as cause:
        raise ReceiptKeyError(f"the key {path.name} cannot be read or made in {path.parent.name}") from cause
    try:
        replace(OsDisk(), public, json.dumps(jwks([key.public_key()]), indent=1).encode())
    except OSError as cause:
        raise ReceiptKeyError(f"the public half of {path.name} cannot be written ({cause.strerror})") from cause
    return key


def _write(path: Path, key: Ed25519PrivateKey) -> None:
    """Whole, or not at all, and never over another one: receipts that were given must stay verifiable."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    os.link(draft, path)
    draft.unlink()


class Issuer:
    """Makes receipts of what the record says at this moment. Called in threads."""

    def __init__(
        self,
        config: Config,
        key: Ed25519PrivateKey,
        store: MailStore,
        accounts: Accounts,
        switch: Switch,
        now: Now,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(12),
    ) -> None:
        port = host_and_port(config.kim.receipts)[1]
        self.address = f"https://{config.hostname}:{port}/v1/receipts"
        self.public = jwks([key.public_key()])
        self._issuer = f"schleuse:{config.hostname}"
        self._contact = config.kim.contact
        self._key = key
        self._store = store
        self._accounts = accounts
        self._switch = switch
        self._now = now
        self._new_id = new_id
        self._news = news_book(config)

    def receipt(self, records: Sequence[Record], status: str) -> tuple[dict[str, Any], str]:
        """(payload, signed). status: the address at which it can be asked for again. Raises UnavailableError."""
        names = {one.account for one in records if one.account is not None}
        windows: dict[str, list[HoldWindow]] = {}
        for window in self._store.leases.holds.windows(names) if names else ():
            windows.setdefault(window.account, []).append(window)
        now = self._now()
        entries = [(one.reference, self._entry(one, windows.get(one.account or "", []))) for one in records]
        payload = document(
            entries, issuer=self._issuer, id=self._new_id(), now=now, status=status, contact=self._contact
        )
        return payload, sign(payload, self._key)

    def may_hold(self, account: str) -> bool:
        """Whether anything of an insurer's mailbox may be held now."""
        windows = self._store.leases.holds.windows([account])
        found = self._accounts.get(account)
        tenant = found.insurer.value if found and found.insurer else ""
        return any(one.drained_at is None for one in windows) or self._closed(tenant) is not None

    def _closed(self, tenant: str) -> Hold | None:
        found = (self._of(atom(service, tenant, Direction.PROCESS)) for service in _WAYS)
        return next((one for one in found if one is not None), None)

    def _entry(self, record: Record, windows: Sequence[HoldWindow]) -> Entry:
        account = self._accounts.get(record.account) if record.account else None
        insurer = account.insurer if account else None
        case = Case(
            Service.KIM_MAIL if insurer is None else Service.EAU_INTAKE,
            insurer.value if insurer else "",
            record.state,
            record.accepted_at,
            record.told,
            self._hold(record, windows),
        )
        return entry(case)

    def _hold(self, record: Record, windows: Sequence[HoldWindow]) -> Hold | None:
        if record.state not in (State.HELD, State.RELEASING):
            return None
        if record.account is None:
            return self._of(SENDING)
        account = self._accounts.get(record.account)
        if account is None or account.insurer is None:
            return self._of(reading(None))
        window = window_of(record.delivery, windows)
        if window is None:
            return self._closed(account.insurer.value)
        ways = [atom(service, account.insurer.value, Direction.PROCESS) for service in _WAYS]
        return self._with_news(window, ways)

    def _of(self, scope: Scope) -> Hold | None:
        at = standing_of(self._switch, scope)
        return None if at.state.begins else self._with_news(Hold(at.reason, at.since), [scope])

    def _with_news(self, hold: Hold, scopes: Sequence[Scope]) -> Hold:
        if hold.since is None or hold.since == UNKNOWN_TIME:
            return Hold(hold.reason, None)  # a role in doubt: nobody has promised anything
        return replace_fields(hold, news_by=self._news.promised(scopes, hold.since))


def window_of(delivery: int, windows: Sequence[HoldWindow]) -> Hold | None:
    """What holds a delivery of a mailbox with these windows: one that lasts, or one whose backlog is not released."""
    lasting = next((one for one in windows if one.is_open), None)
    if lasting is not None:
        return Hold(lasting.reason, lasting.began_at)
    for part in spans([one for one in windows if one.drained_at is None]):
        if part.released < delivery <= part.end:
            return Hold(part.window.reason, part.window.began_at)
    return None
