"""What the stages of the intake found out about one mail, before anybody decides (eau.md § 13.2).

Every stage leaves exactly one word. A stage that was not reached leaves its default, which never accuses: the
defaults of a `Findings` describe a mail about which nothing is known to be wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schleuse.eau.document import DocumentId, Facts, Kind, Profile


class InBandKind(StrEnum):
    """Mail about mail that arrives in the same mailbox (kim.md § 12.5)."""

    DSN = "dsn"
    MDN = "mdn"
    CM_ERROR = "cm_error"
    AUTO_REPLY = "auto_reply"


class Trouble(StrEnum):
    """What may be off at our side. Each makes the mail wait, whatever else was found (HD-01)."""

    KEY = "key"  # the vault cannot serve, or a key that should be here is not
    STORE = "store"
    VALIDATOR = "validator"
    TRUST = "trust"  # trust anchors or revocation data missing
    VIRUS_SCANNER = "virus_scanner"
    DIRECTORY = "directory"
    MEMBERSHIP = "membership"
    INTERNAL = "internal"


class Decryption(StrEnum):
    """X-KIM-DecryptionResult (kim.md § 12.2).

    NO_KEY means that the envelope names no certificate that was ever this insurer's: the sender encrypted for
    somebody else. A key of ours that cannot be used is Trouble.KEY instead.
    """

    OK = "00"
    NO_KEY = "01"
    WRONG_FORMAT = "02"
    KONNEKTOR_UNAVAILABLE = "03"


class Integrity(StrEnum):
    """X-KIM-IntegrityCheckResult (kim.md § 12.3)."""

    OK = "01"
    CONTENT_DIFFERS = "02"
    NO_SIGNATURE = "03"
    WRONG_FORMAT = "04"
    CERTIFICATE_PATH = "05"
    OTHER = "06"
    STATUS_UNKNOWN = "07"
    HEADERS_DIFFER = "08"
    RECIPIENTS_DIFFER = "09"


class Payload(StrEnum):
    """Whether exactly one signed file was there."""

    FOUND = "found"
    MISSING = "missing"
    SEVERAL = "several"
    NOT_CMS = "not_cms"


class PayloadSignature(StrEnum):
    """Verdict on the CAdES signature (eau.md § 4)."""

    VALID = "valid"
    DATA_DIFFER = "data_differ"
    CERTIFICATE = "certificate"
    STATUS_UNKNOWN = "status_unknown"  # like valid: revocation not obtainable is our trouble


class Verdict(StrEnum):
    """Of XML parser and profile check."""

    VALID = "valid"
    INVALID = "invalid"
    UNREADABLE = "unreadable"


class Membership(StrEnum):
    """Answer of the insurer's membership data for the person on the day that matters (eau.md § 13.2 step 10)."""

    NOT_ASKED = "not_asked"
    MEMBER = "member"
    FORMER_MEMBER = "former_member"  # change of insurer is running: accepted and forwarded (eau.md § 17.6)
    UNCLEAR = "unclear"  # must not be answered with an error (eau.md § 15)
    OTHER_INSURER = "other_insurer"
    UNKNOWN_PERSON = "unknown_person"


@dataclass(frozen=True, slots=True)
class Dienstkennung:
    """X-KIM-Dienstkennung of the bad or good mail, three parts. Compared without case and white space (kim.md § 6)."""

    application: str
    type: str
    version: str

    @property
    def kind(self) -> Kind | None:
        """What the sender says that it sends; the version does not matter."""
        return _KINDS.get((self.application.strip().casefold(), self.type.strip().casefold()))

    @property
    def is_fehlernachricht(self) -> bool:
        """An error message that went astray: answering it could start a loop."""
        return (self.application.strip().casefold(), self.type.strip().casefold()) == ("eau", "fehler-kasse")


_KINDS = {("eau", "lieferung"): Kind.EAU, ("eau", "storno-arzt"): Kind.STORNO}


@dataclass(frozen=True, slots=True)
class Detail:
    """One finding for the vendor: where, which rule, and what was found and expected. Never patient data."""

    path: str
    rule: str
    text: str = ""


_FILE_NAME = re.compile(r"([ET])EAU0_(Storno_|Fehler_)?", re.I | re.ASCII)


@dataclass(frozen=True, slots=True)
class FileName:
    """Inner subject or attachment name, as far as it follows eau.md § 3: prefix letter and what it says to be."""

    prefix: str
    kind: Kind | None

    @classmethod
    def parse(cls, text: str | None) -> FileName | None:
        """None if the name follows another pattern, which is no ground for rejection."""
        found = _FILE_NAME.match(text.strip()) if text else None
        if found is None:
            return None
        middle = (found[2] or "").casefold()
        return cls(found[1].upper(), {"": Kind.EAU, "storno_": Kind.STORNO}.get(middle))


@dataclass(frozen=True, slots=True, repr=False)
class Findings:
    """All that is known about one mail of an insurer's eAU mailbox.

    sent_at: Date of the KIM mail, else the time of acceptance (HD-48).
    message_id: outer Message-ID with angle brackets, None if missing.
    trouble: whatever was off at our side, at any stage.
    profile, document_id: as far as the payload could be read, also of a faulty one.
    file_hash: SHA-256 over the enveloped XML octets, once they are there (eau.md § 4).
    facts: of a payload whose verdict is VALID. practice: its keyed pseudonym, for Storno.
    """

    sent_at: datetime
    message_id: str | None = None
    in_band: InBandKind | None = None
    dienstkennung: Dienstkennung | None = None
    file_name: FileName | None = None
    trouble: Trouble | None = None
    decryption: Decryption = Decryption.OK
    integrity: Integrity = Integrity.OK
    virus: bool = False
    payload: Payload = Payload.FOUND
    signature: PayloadSignature = PayloadSignature.VALID
    charset_ok: bool = True
    verdict: Verdict = Verdict.VALID
    profile: Profile | None = None
    document_id: DocumentId | None = None
    file_hash: bytes | None = None
    facts: Facts | None = None
    practice: bytes | None = None
    membership: Membership = Membership.NOT_ASKED
    details: tuple[Detail, ...] = ()

    def __repr__(self) -> str:
        return f"Findings({self.kind} {self.document_id} {self.decryption} {self.integrity} {self.verdict})"

    @property
    def kind(self) -> Kind | None:
        """eAU or Storno: the payload knows best, then the Dienstkennung, then the file name (eau.md § 13.2)."""
        if self.profile and self.profile.kind:
            return self.profile.kind
        if self.dienstkennung and self.dienstkennung.kind:
            return self.dienstkennung.kind
        return self.file_name.kind if self.file_name else None
