"""Result codes of receive processing: X-KIM-DecryptionResult and X-KIM-IntegrityCheckResult (kim.md § 12)."""

from __future__ import annotations

from enum import StrEnum


class DecryptionResult(StrEnum):
    """Ids of kim.md § 12.2, letter for letter. X01 is ours, from the range that is left to vendors."""

    DECRYPTED = "00"
    KEY_NOT_AVAILABLE = "01"
    WRONG_FORMAT = "02"
    KONNEKTOR_NOT_AVAILABLE = "03"
    #: The sender did it right (TI ECIES, kim.md § 7.4); it is we who cannot read it yet.
    UNSUPPORTED_KEY_TRANSPORT = "X01"

    @property
    def error_code(self) -> str | None:
        """Code of X-KIM-Fehlermeldung (kim.md § 13)."""
        return _DECRYPTION_ERROR[self]

    @property
    def own_trouble(self) -> bool:
        """Whether the cause is ours, so that the sender must not hear of it (HD-01)."""
        return self in {DecryptionResult.KONNEKTOR_NOT_AVAILABLE, DecryptionResult.UNSUPPORTED_KEY_TRANSPORT}


class IntegrityCheckResult(StrEnum):
    """Ids of kim.md § 12.3, letter for letter."""

    INTACT = "01"
    CONTENT_DIFFERS = "02"
    NO_SIGNATURE = "03"
    WRONG_FORMAT = "04"
    CERTIFICATE_INVALID = "05"
    OTHER_FAILURE = "06"
    STATUS_UNKNOWN = "07"
    HEADERS_DIFFER = "08"
    RECIPIENT_EMAILS_DIFFER = "09"

    @property
    def success(self) -> bool:
        """01, and 07, which is treated like success (kim.md § 12.3)."""
        return self in {IntegrityCheckResult.INTACT, IntegrityCheckResult.STATUS_UNKNOWN}

    @property
    def error_code(self) -> str | None:
        """Code of X-KIM-Fehlermeldung (kim.md § 13); 01 to 07 have none."""
        return _INTEGRITY_ERROR.get(self)


#: X-KIM-Fehlermeldung of a mail whose X-KOM-LE-Version we do not support (kim.md § 13).
VERSION_UNSUPPORTED_CODE = "4008"

_DECRYPTION_ERROR = {
    DecryptionResult.DECRYPTED: None,
    DecryptionResult.KEY_NOT_AVAILABLE: "4009",
    DecryptionResult.WRONG_FORMAT: "4010",
    DecryptionResult.KONNEKTOR_NOT_AVAILABLE: "4011",
    DecryptionResult.UNSUPPORTED_KEY_TRANSPORT: None,
}
_INTEGRITY_ERROR = {
    IntegrityCheckResult.HEADERS_DIFFER: "4014",
    IntegrityCheckResult.RECIPIENT_EMAILS_DIFFER: "4015",
}
