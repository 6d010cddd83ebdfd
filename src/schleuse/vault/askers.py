"""Who gives an order or asks for a document: judged here, by his token, and nowhere else (journal.md § 14.2 step 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schleuse.identifiers import IK
from schleuse.journal.entry import Purpose
from schleuse.vault.contracts import BadTokenError
from schleuse.vault.core import Actor, Core
from schleuse.vault.tokens import Claims, verify_token
from schleuse.vault.tokens import Purpose as TokenPurpose


class Askers:
    """keys: of those who sign tokens, by (name, IK), operators under (name, ""). audience: this platform's."""

    def __init__(self, core: Core, keys: Mapping[tuple[str, str], Ed25519PublicKey], audience: str) -> None:
        self._core = core
        self._keys = keys
        self._audience = audience

    async def judged(
        self, ik: IK, token: str, purpose: TokenPurpose, why: Purpose, whats: Sequence[tuple[str, str]]
    ) -> Claims:
        """What a token says that is for this insurer, purpose and one of these things. Raises BadTokenError.

        An attempt that does not show who it is leaves an entry.
        """
        try:
            claims = verify_token(token, self._keys, aud=self._audience, purpose=purpose, now=self._core.now())
            if claims.ik != ik:
                raise BadTokenError(f"the token is for another insurer than {ik}")
            if claims.what not in whats:
                raise BadTokenError("the token is for another request than this")
        except BadTokenError:
            await self._core.deny(ik, Actor("insurer", "unknown"), why)
            raise
        return claims
