"""What the roles do with their files when they start or first use them, done once for `schleuse check-config`.

A role that finds a fault later makes mail wait (HD-01); the operator should not have to find it that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError

from schleuse.config import Config
from schleuse.errors import Error
from schleuse.kim.accounts import Accounts
from schleuse.kim.address import KIMAddress
from schleuse.kim.directory import DirectoryFile
from schleuse.mail.smime.trust import TrustStore
from schleuse.mail.tls_pipe import tls_context
from schleuse.processes.eau import feed_clients
from schleuse.processes.kim import load_accounts, outbound_routes
from schleuse.vault.contracts import KeyMissingError
from schleuse.vault.private_keys import load_pair, read_certificate
from schleuse.vault.tokens import read_public_key


def rehearse(config: Config) -> list[str]:
    """One line for each thing that would not work, all of them. All files must be there (`missing_files`)."""
    return [f"{name}: {error}" for name, attempt in _attempts(config) if (error := _error_of(attempt)) is not None]


def _error_of(attempt: Callable[[], object]) -> Error | None:
    try:
        attempt()
    except Error as error:
        return error
    return None


def _attempts(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "kim.tls", partial(tls_context, config.kim.tls.certificate, config.kim.tls.key)
    relay_ca = config.kim.smtp_relay_client_ca
    if relay_ca is not None:
        yield "kim.smtp_relay_client_ca", partial(TrustStore.from_files, [relay_ca])
    yield "kim.routes", partial(outbound_routes, config)
    if config.kim.directory.exists():
        yield "kim.directory", DirectoryFile(config.kim.directory).current
    yield "eau.feed_tls", partial(tls_context, config.eau.feed_tls.certificate, config.eau.feed_tls.key)
    yield "eau.trust", partial(TrustStore.from_files, config.eau.trust)
    yield "eau.submit_ca", partial(TrustStore.from_files, [config.eau.submit_ca])
    yield "insurers.feed_clients", partial(feed_clients, config)
    for receiver in config.control.inform:
        if receiver.ca is not None:
            yield f"control.inform {receiver.name}", partial(TrustStore.from_files, [receiver.ca])
    accounts = load_accounts(config)
    for account in config.accounts:
        yield f"accounts {account.address}", partial(_account, account.address, accounts)
    for operator in config.operators:
        yield f"operators {operator.name}", partial(read_public_key, operator.public_key)
    for insurer in config.insurers:
        for certificate, key in (*insurer.encryption, insurer.signature):
            yield f"insurers {insurer.ik}", partial(_identity, certificate, key)


def _identity(certificate: Path, key: Path) -> None:
    """The key file, too, as long as it is there: once the vault has taken the key over, it may be gone."""
    if key.exists():
        load_pair(certificate, key)
    else:
        read_certificate(certificate)


def _account(address: str, accounts: Accounts) -> None:
    KIMAddress(address)
    try:
        extract_parameters(accounts.password_hash(address) or "")
    except InvalidHashError as cause:
        raise KeyMissingError("its password hash is no argon2 hash; `schleuse init` shows how one looks") from cause
