"""What a decision is made with (what the store knows, what the operator chose) and what may come of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from schleuse.eau.codes import Code
from schleuse.eau.document import DocumentId, Facts, Kind
from schleuse.eau.findings import Detail, Trouble
from schleuse.eau.versions import TRANSITION_TA_1_26, Answer, Transition
from schleuse.holding.states import State
from schleuse.kim.classify import Kind as MailKind


class DocumentState(StrEnum):
    """What became of a document. PENDING is a Storno whose eAU has not arrived yet."""

    ACCEPTED = "accepted"
    CANCELLED = "cancelled"
    PENDING = "pending"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Known:
    """A document that the store already has, as far as decisions need it.

    delivery: of the mail that brought it. practice: keyed pseudonym, None if unknown.
    """

    kind: Kind
    state: DocumentState
    delivery: int
    document_id: DocumentId | None = None
    practice: bytes | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the store knows about one mail's document at this moment, inside the transaction.

    same_file: with the same file hash. same_id: under the same Dokumenten-ID, whatever its content.
    target: of a Storno, the eAU it names. stornos: waiting for this eAU, or for the same target, oldest first.
    similar: an accepted eAU with the same content key under another id (HD-05).
    """

    same_file: Known | None = None
    same_id: Known | None = None
    target: Known | None = None
    stornos: tuple[Known, ...] = ()
    similar: Known | None = None


class Quarantine(StrEnum):
    """Why people must look. No error code exists for any of these."""

    TEST_IN_PRODUCTION = "test_in_production"  # eau.md § 19 no. 10
    PRODUCTION_IN_TEST = "production_in_test"
    UNCLASSIFIABLE = "unclassifiable"  # kim.md § 12.5: manual inbox
    STRAY_FEHLERNACHRICHT = "stray_fehlernachricht"
    UNDELIVERED_LETTER = "undelivered_letter"  # a DSN: a Fehlernachricht of ours failed for good
    ID_REUSED = "id_reused"  # same Dokumenten-ID, other content
    ID_UNKEEPABLE = "id_unkeepable"  # a Dokumenten-ID that the profile allows and no index takes
    FOREIGN_STORNO = "foreign_storno"  # from another practice than the eAU, if the policy says so
    NO_REFERENCE = "no_reference"  # faulty, but nothing that an answer could name
    NO_ADDRESS = "no_address"  # faulty, but nobody to answer to


class IdReuse(StrEnum):
    """What to do with an accepted document's id on other content; the TA names no code for it (eau.md § 13.3)."""

    QUARANTINE = "quarantine"
    FAULTY = "faulty"


class ForeignStorno(StrEnum):
    """What to do with a Storno from another practice; the profile does not forbid it (eau.md § 11)."""

    APPLY = "apply"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator may choose, and what the law changes.

    prefix: of file names in this environment, "E" or "T".
    accept_if_payload_signed: a fault of the KIM mail's signature is passed over if the document's own is valid.
    """

    prefix: str
    accept_if_payload_signed: bool = False
    id_reuse: IdReuse = IdReuse.QUARANTINE
    foreign_storno: ForeignStorno = ForeignStorno.APPLY
    transition: Transition = TRANSITION_TA_1_26


@dataclass(frozen=True, slots=True)
class Filed:
    """An eAU to be stored and handed to the insurer.

    cancelled_by: a Storno that came first. similar: an eAU that may be the same certificate (proposed, HD-05).
    again: a rejected document that is processable now ("delivered again" is noted, eau.md § 13.3).
    """

    facts: Facts
    cancelled_by: Known | None = None
    similar: Known | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class StornoFiled:
    """A Storno that cancels an accepted eAU. other_practice: it is not the practice that issued the eAU."""

    facts: Facts
    target: Known
    other_practice: bool = False


@dataclass(frozen=True, slots=True)
class StornoPending:
    """A Storno that waits for its eAU; after a time-out people look (eau.md § 11).

    refusal: what the practice is told if that eAU turns out faulty (code 105); None if nothing can name this Storno.
    """

    facts: Facts
    refusal: Faulty | None = None


class Again(StrEnum):
    SAME_DOCUMENT = "same_document"
    ALREADY_CANCELLED = "already_cancelled"


@dataclass(frozen=True, slots=True)
class DeliveredAgain:
    """Noted, no message, no second case. facts: of a second Storno with an id of its own, which is remembered."""

    first: Known
    again: Again
    facts: Facts | None = None


class Reference(StrEnum):
    """How a Fehlernachricht names what is wrong; values are the urls of the nested extension (eau.md § 12)."""

    BUNDLE_IDENTIFIER = "Bundle-Identifier"
    MESSAGE_ID = "Message-ID"


@dataclass(frozen=True, slots=True)
class Faulty:
    """A Fehlernachricht must go to the practice. virus: its body is the fixed sentence and nothing else.

    stornos: those that waited for this eAU and are refused with it.
    """

    code: Code
    kind: Kind
    reference: Reference
    reference_value: str
    version: Answer
    dienstkennung_version: str
    details: tuple[Detail, ...] = ()
    virus: bool = False
    stornos: tuple[Known, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantined:
    reason: Quarantine


@dataclass(frozen=True, slots=True)
class InBand:
    kind: MailKind


@dataclass(frozen=True, slots=True)
class Wait:
    """Our own trouble: the mail stays where it is and is tried again."""

    reason: Trouble


Outcome = Filed | StornoFiled | StornoPending | DeliveredAgain | Faulty | Quarantined | InBand | Wait


def holding_state(outcome: Outcome) -> State:
    """What the mail becomes in the mail store (incident.md § 6.2)."""
    match outcome:
        case Filed() | StornoFiled() | StornoPending() | InBand():
            return State.DELIVERED
        case DeliveredAgain():
            return State.DUPLICATE_LINKED
        case Faulty():
            return State.RETURNED
        case Quarantined():
            return State.QUARANTINED
        case Wait():
            return State.HELD
        case _:
            assert_never(outcome)
