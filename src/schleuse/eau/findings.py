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
from schleuse.eau.signature import PayloadVerdict
from schleuse.kim.classify import Kind as MailKind
from schleuse.kim.dienstkennung import EAU_LIEFERUNG, EAU_STORNO_ARZT, Dienstkennung
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult


class Trouble(StrEnum):
    """What may be off at our side. Each makes the mail wait, whatever else was found (HD-01)."""

    KEY = "key"  # the vault cannot serve, or a key that should be here is not
    BUDGET = "budget"  # the vault opens no more in this hour (journal.md § 14.4)
    STORE = "store"
    VALIDATOR = "validator"
    TRUST = "trust"  # trust anchors or revocation data missing
    VIRUS_SCANNER = "virus_scanner"
    DIRECTORY = "directory"
    MEMBERSHIP = "membership"
    INTERNAL = "internal"


class Payload(StrEnum):
    """Whether exactly one signed file was there."""

    FOUND = "found"
    MISSING = "missing"
    SEVERAL = "several"


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


#: Mail about mail that arrives in the same mailbox (kim.md § 12.5).
IN_BAND = frozenset({MailKind.DSN, MailKind.MDN, MailKind.CM_ERROR, MailKind.AUTO_REPLY})


def claimed_kind(dienstkennung: Dienstkennung | None) -> Kind | None:
    """What the sender says that it sends; the version does not matter (kim.md § 6)."""
    if dienstkennung is None:
        return None
    if dienstkennung.same_service(EAU_LIEFERUNG):
        return Kind.EAU
    return Kind.STORNO if dienstkennung.same_service(EAU_STORNO_ARZT) else None


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
    undelivered: of a DSN, it reports that a mail of this mailbox failed for good.
    trouble: whatever was off at our side, at any stage.
    decryption: KEY_NOT_AVAILABLE says that the envelope names no certificate that was ever this insurer's: the sender
        encrypted for somebody else. A key of ours that cannot be used now is Trouble.KEY instead.
    integrity: of the KIM mail, as `kim.message.OpenedMail` gives it; empty if it was not reached.
    profile, document_id: as far as the payload could be read, also of a faulty one.
    file_hash: SHA-256 over the enveloped XML octets, once they are there (eau.md § 4).
    unkeepable_id: no index takes the document's Dokumenten-ID, or the one that a Storno names; the profile allows it.
    facts: of a payload whose verdict is VALID. practice: its keyed pseudonym, for Storno.
    """

    sent_at: datetime
    message_id: str | None = None
    mail: MailKind = MailKind.APPLICATION
    undelivered: bool = False
    dienstkennung: Dienstkennung | None = None
    file_name: FileName | None = None
    trouble: Trouble | None = None
    decryption: DecryptionResult = DecryptionResult.DECRYPTED
    integrity: tuple[IntegrityCheckResult, ...] = (IntegrityCheckResult.INTACT,)
    virus: bool = False
    payload: Payload = Payload.FOUND
    signature: PayloadVerdict = PayloadVerdict.VALID
    charset_ok: bool = True
    verdict: Verdict = Verdict.VALID
    profile: Profile | None = None
    document_id: DocumentId | None = None
    file_hash: bytes | None = None
    unkeepable_id: bool = False
    facts: Facts | None = None
    practice: bytes | None = None
    membership: Membership = Membership.NOT_ASKED
    details: tuple[Detail, ...] = ()

    def __repr__(self) -> str:
        return f"Findings({self.kind} {self.document_id} {self.decryption} {self.verdict})"

    @property
    def kind(self) -> Kind | None:
        """eAU or Storno: the payload knows best, then the Dienstkennung, then the file name (eau.md § 13.2)."""
        if self.profile and self.profile.kind:
            return self.profile.kind
        if (claimed := claimed_kind(self.dienstkennung)) is not None:
            return claimed
        return self.file_name.kind if self.file_name else None
