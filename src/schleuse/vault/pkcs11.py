"""Key encryption keys in a PKCS#11 token: they never leave it, not even for us (journal.md § 14.6; extra `hsm`).

A generation is an AES-256 key with the configured label, its number in CKA_ID. One thread of the process owns the
module and its session: python-pkcs11 tells the module nothing about locks, and SoftHSM2 crashes or fails under threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, cast

from schleuse.config import HSM
from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.kek import KEY, NONCE, check_old, no_generation

if TYPE_CHECKING:
    import pkcs11

    class AESKey(pkcs11.SecretKey, pkcs11.EncryptMixin, pkcs11.DecryptMixin):
        """What the module's wrapper makes of a key that may encrypt and decrypt."""


T = TypeVar("T")

WAIT_S = 30.0  #: for one answer of the token, with all that wait before it


class Pkcs11Kek:
    """A `Kek` over the token of `hsm`. Raises KeyMissingError. Threads may share it, and they wait in turn."""

    def __init__(self, hsm: HSM) -> None:
        self._hsm = hsm
        self._session: pkcs11.Session | None = None
        self._keys: dict[int, AESKey] = {}
        self._known: frozenset[int] = frozenset()  # as last seen, whatever the session does
        self._refused = ""
        self._unwraps = 0
        _wait(_worker().submit(self._open))
        self._id = max(self._keys)

    @property
    def id(self) -> int:
        """See `Kek`."""
        return self._id

    @property
    def unwraps(self) -> int:
        """Every C_Decrypt, checks after a failure included: what the token's own counter has (§ 14.5)."""
        return self._unwraps

    @property
    def generations(self) -> tuple[int, ...]:
        """See `Kek`."""
        return tuple(sorted(self._known))

    def wrap(self, nonce: bytes, plaintext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """See `Kek`."""
        chosen = self._id if generation is None else generation
        return _wait(_worker().submit(self._with_session, lambda: self._encrypt(chosen, nonce, plaintext, aad)))

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """See `Kek`."""
        return _wait(self.unwrapping(nonce, ciphertext, aad, generation))

    def unwrapping(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None = None) -> Future[bytes]:
        """The same, for a caller that must not block: `await asyncio.wrap_future(…)`."""
        return _worker().submit(self._with_session, lambda: self._unwrap(nonce, ciphertext, aad, generation))

    def renew(self) -> int:
        """See `Kek`."""
        return _wait(_worker().submit(self._renew))

    def destroy(self, generation: int) -> None:
        """See `Kek`."""
        _wait(_worker().submit(self._destroy, generation))

    def close(self) -> None:
        """Log out. The next use opens a session again."""
        _wait(_worker().submit(self._close))

    # Everything from here on runs in the one thread.

    def _renew(self) -> int:
        newest = self._id + 1
        self._close()  # the process is logged in once, and this session may only read
        _create(self._hsm, newest)
        self._close()
        self._open()
        self._check(newest)
        self._id = newest
        return newest

    def _destroy(self, generation: int) -> None:
        check_old(generation, self._known)
        self._close()
        _remove(self._hsm, generation)
        self._close()
        self._open()

    def _with_session(self, act: Callable[[], T]) -> T:
        """Act; once more in a new session if the old one is lost."""
        import pkcs11

        if self._session is not None:
            try:
                return act()
            except pkcs11.PKCS11Error:
                self._close()
        self._open()
        try:
            return act()
        except pkcs11.PKCS11Error as cause:
            self._close()
            raise _trouble(self._hsm, cause) from cause

    def _unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None) -> bytes:
        import pkcs11

        if generation is not None and generation not in self._keys:
            raise no_generation(generation, self._keys)
        if len(nonce) != NONCE:
            raise SealBrokenError("the nonce of a wrapped key has not 12 bytes")
        for one in sorted(self._keys, reverse=True) if generation is None else (generation,):
            try:
                return self._decrypt(one, nonce, ciphertext, aad)
            except pkcs11.PKCS11Error:
                # SoftHSM2 says CKR_GENERAL_ERROR for a wrong tag as for anything else, so we ask for something
                # that must work: if it does not, the session is at fault, and this raises.
                self._check(one)
        raise SealBrokenError("a wrapped key does not open under the key encryption key of the token")

    def _check(self, generation: int) -> None:
        nonce, plaintext = os.urandom(NONCE), bytes(KEY)
        self._decrypt(generation, nonce, self._encrypt(generation, nonce, plaintext, b"check"), b"check")

    def _encrypt(self, generation: int, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        import pkcs11

        if generation not in self._keys:
            raise no_generation(generation, self._keys)
        how = pkcs11.GCMParams(nonce, aad)
        return _whole(
            self._keys[generation].encrypt(plaintext, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=how)
        )

    def _decrypt(self, generation: int, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        import pkcs11

        self._unwraps += 1
        how = pkcs11.GCMParams(nonce, aad)
        return _whole(
            self._keys[generation].decrypt(ciphertext, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=how)
        )

    def _open(self) -> None:
        if self._refused:
            raise KeyMissingError(self._refused)
        try:
            with _translated(self._hsm, self._refuse):
                self._session = _open_session(self._hsm, rw=False)
                self._keys = _generations(self._session, self._hsm)
                self._known = frozenset(self._keys)
        except KeyMissingError:
            self._close()  # or the next try is told that we are logged in already
            raise

    def _refuse(self, reason: str) -> None:
        # Three wrong PINs lock a token for good, so a wrong one is tried once in the life of the process.
        self._refused = reason

    def _close(self) -> None:
        self._session, self._keys = None, {}
        # All of the module, not the session alone: after a token was away, only C_Initialize finds it again.
        library = sys.modules.get("pkcs11")
        if library is not None:
            with contextlib.suppress(library.PKCS11Error):
                library.lib(str(self._hsm.module)).finalize()


def _whole(answer: bytes | Iterator[bytes]) -> bytes:
    """The wrapper answers in one piece what it was given in one piece."""
    return answer if isinstance(answer, bytes) else b"".join(answer)


def create_key(hsm: HSM, generation: int = 1) -> bool:
    """Make this generation in the token unless it is there; True if it was made. Raises KeyMissingError.

    Not while a `Pkcs11Kek` of this process is open: a process logs in once.
    """
    return _wait(_worker().submit(_create, hsm, generation))


def _create(hsm: HSM, generation: int) -> bool:
    pkcs11 = _library()
    with _translated(hsm):
        session = _open_session(hsm, rw=True)
        try:
            if _find(session, hsm, generation):
                return False
            session.generate_key(
                pkcs11.KeyType.AES,
                KEY * 8,
                id=generation.to_bytes(4),
                label=hsm.key,
                store=True,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                template={
                    pkcs11.Attribute.PRIVATE: True,
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                    pkcs11.Attribute.MODIFIABLE: False,
                },
            )
            return True
        finally:
            session.close()


def _remove(hsm: HSM, generation: int) -> None:
    with _translated(hsm):
        session = _open_session(hsm, rw=True)
        try:
            for key in _find(session, hsm, generation):
                key.destroy()
        finally:
            session.close()


def _find(session: pkcs11.Session, hsm: HSM, generation: int | None = None) -> list[AESKey]:
    import pkcs11

    wanted = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
        pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
        pkcs11.Attribute.LABEL: hsm.key,
    }
    if generation is not None:
        wanted[pkcs11.Attribute.ID] = generation.to_bytes(4)
    return [cast("AESKey", key) for key in session.get_objects(wanted)]


def _generations(session: pkcs11.Session, hsm: HSM) -> dict[int, AESKey]:
    import pkcs11

    keys: dict[int, AESKey] = {}
    for key in _find(session, hsm):
        generation = int.from_bytes(key.id)
        if len(key.id) > 4 or generation == 0 or generation in keys:
            raise KeyMissingError(
                f"a key {hsm.key!r} in token {hsm.token!r} has CKA_ID {key.id.hex() or 'empty'}, expected is its"
                " generation, each once (00000001 for the first); the token's operator can change it"
            )
        if key[pkcs11.Attribute.EXTRACTABLE] or not key[pkcs11.Attribute.SENSITIVE]:
            raise KeyMissingError(
                f"key {hsm.key!r} could be taken out of token {hsm.token!r} (expected: SENSITIVE, not EXTRACTABLE);"
                " the token's operator makes another"
            )
        keys[generation] = key
    if not keys:
        raise KeyMissingError(f"token {hsm.token!r} has no AES key {hsm.key!r}; the token's operator makes one")
    return keys


def _open_session(hsm: HSM, *, rw: bool) -> pkcs11.Session:
    try:
        pin = hsm.pin_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise KeyMissingError(
            f"the PIN file {hsm.pin_file} cannot be read; the vault's operator can change it"
        ) from None
    token: pkcs11.Token = _library().lib(str(hsm.module)).get_token(token_label=hsm.token)
    return token.open(rw=rw, user_pin=pin)


@contextlib.contextmanager
def _translated(hsm: HSM, refused: Callable[[str], None] = lambda reason: None) -> Iterator[None]:
    """Errors of the module as ours; refused is told when trying again would harm."""
    pkcs11 = _library()
    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired) as cause:
        reason = (
            f"token {hsm.token!r} refuses the PIN of {hsm.pin_file} ({type(cause).__name__}); its operator changes"
            " the file and starts the vault again"
        )
        refused(reason)
        raise KeyMissingError(reason) from cause
    except pkcs11.PKCS11Error as cause:
        raise _trouble(hsm, cause) from cause


def _trouble(hsm: HSM, cause: Exception) -> KeyMissingError:
    return KeyMissingError(
        f"token {hsm.token!r} of {hsm.module} cannot be used ({type(cause).__name__}); its operator sees to it"
    )


def _library() -> ModuleType:
    try:
        import pkcs11
    except ImportError as cause:
        raise KeyMissingError(
            "vault.hsm needs the package python-pkcs11, which is not installed; whoever installs Schleuse adds its"
            " extra: schleuse[hsm]"
        ) from cause
    return pkcs11


@cache
def _worker() -> ThreadPoolExecutor:
    """The one thread of this process that touches modules."""
    return ThreadPoolExecutor(1, thread_name_prefix="pkcs11")


def _wait(future: Future[T]) -> T:
    try:
        return future.result(WAIT_S)
    except TimeoutError as cause:
        future.cancel()
        raise KeyMissingError(f"the token gave no answer within {WAIT_S:.0f} s; its operator sees to it") from cause
