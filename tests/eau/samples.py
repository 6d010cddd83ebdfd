"""One valid example of everything that intake decisions are made of; tests vary it by `replace()`."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schleuse.eau.decision import decide
from schleuse.eau.document import DocumentId, Facts, Kind, Profile
from schleuse.eau.findings import FileName, Findings, Verdict
from schleuse.eau.outcome import DocumentState, Known, Policy
from schleuse.eau.store import Arrival, EauStore, Filing, Letter, Recorded, Sealed
from schleuse.identifiers import IK
from schleuse.kim.dienstkennung import EAU_LIEFERUNG, EAU_STORNO_ARZT

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC)
AN_INSURER = IK("109500969")
ANOTHER_INSURER = IK("104212059")
POLICY = Policy(prefix="E")

BUNDLE = "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Bundle"
STORNO_BUNDLE = "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Storno_Bundle"
EAU_PROFILE = Profile(BUNDLE, "1.2")
STORNO_PROFILE = Profile(STORNO_BUNDLE, "1.2")

ONE_PRACTICE, OTHER_PRACTICE = b"p" * 32, b"q" * 32


def an_id(number: int) -> DocumentId:
    """The same UUID for the same number."""
    return DocumentId(f"urn:uuid:{uuid.UUID(int=number)}")


EAU_ID, STORNO_ID = an_id(1), an_id(1001)
EAU_FACTS = Facts(EAU_ID, EAU_PROFILE, Kind.EAU, practice="123456789")
STORNO_FACTS = Facts(STORNO_ID, STORNO_PROFILE, Kind.STORNO, practice="123456789", target=EAU_ID)

AN_EAU = Findings(
    sent_at=NOON,
    message_id="<a@praxis.kim.telematik>",
    dienstkennung=EAU_LIEFERUNG,
    file_name=FileName("E", Kind.EAU),
    profile=EAU_PROFILE,
    document_id=EAU_ID,
    file_hash=b"1" * 32,
    facts=EAU_FACTS,
    practice=ONE_PRACTICE,
)
A_STORNO = replace(
    AN_EAU,
    message_id="<s@praxis.kim.telematik>",
    dienstkennung=EAU_STORNO_ARZT,
    file_name=FileName("E", Kind.STORNO),
    profile=STORNO_PROFILE,
    document_id=STORNO_ID,
    file_hash=b"2" * 32,
    facts=STORNO_FACTS,
)
#: The payload could be read as XML, and breaks its profile.
A_FAULTY_EAU = replace(AN_EAU, verdict=Verdict.INVALID, facts=None)

ACCEPTED_EAU = Known(Kind.EAU, DocumentState.ACCEPTED, 1, EAU_ID, ONE_PRACTICE)
CANCELLED_EAU = replace(ACCEPTED_EAU, state=DocumentState.CANCELLED)
REJECTED_EAU = replace(ACCEPTED_EAU, state=DocumentState.REJECTED)
PENDING_STORNO = Known(Kind.STORNO, DocumentState.PENDING, 2, STORNO_ID, ONE_PRACTICE)


class Case:
    """One mail as it comes to the store: what was found, and the rows' keys."""

    def __init__(self, delivery: int, found: Findings, **keys: Any) -> None:
        self.found = found
        self.arrival = Arrival(
            delivery=delivery,
            digest=hashlib.sha256(b"%d" % delivery).digest(),
            accepted_at=NOON + timedelta(seconds=delivery),
            document_id=found.document_id,
            file_hash=found.file_hash,
            target=found.facts.target if found.facts else None,
            practice=found.practice,
            **keys,
        )
        self.sealed = Sealed(xml=b"sealed xml %d" % delivery, p7s=b"sealed p7s %d" % delivery)
        self.letter = Letter(f"<l{delivery}@kk.kim.telematik>", "eau@kk.kim.telematik", "a@b.kim.telematik", b"draft")


def eau(delivery: int, id: int | None = None, content: bytes | None = None, **changes: Any) -> Case:
    """A mail with an eAU; id: number of its document, else that of the delivery. content: another one under that id."""
    document = an_id(delivery if id is None else id)
    file_hash = hashlib.sha256(content or document.value.encode()).digest()
    facts = replace(EAU_FACTS, id=document)
    keys = {key: changes.pop(key) for key in ("person", "content_key", "held_for", "period") if key in changes}
    found = replace(AN_EAU, document_id=document, facts=facts, file_hash=file_hash)
    return Case(delivery, replace(found, **changes), **keys)


def storno(delivery: int, of: int, id: int | None = None, **changes: Any) -> Case:
    """A mail with a Storno of the eAU of that number."""
    document = an_id(1000 + (delivery if id is None else id))
    facts = replace(STORNO_FACTS, id=document, target=an_id(of))
    file_hash = hashlib.sha256(document.value.encode()).digest()
    return Case(delivery, replace(A_STORNO, document_id=document, facts=facts, file_hash=file_hash, **changes))


def faulty(delivery: int, id: int | None = None, **changes: Any) -> Case:
    """A mail with an eAU that breaks its profile."""
    return eau(delivery, id, verdict=Verdict.INVALID, facts=None, **changes)


def file(
    store: EauStore, *cases: Case, ik: IK = AN_INSURER, policy: Policy = POLICY, epoch: int | None = None
) -> list[Recorded]:
    """Decide and record a batch, as the worker does."""
    with store.filing(ik, [case.arrival for case in cases], NOON, epoch) as filing:
        return [settle_one(filing, case, policy) for case in cases]


def settle_one(filing: Filing, case: Case, policy: Policy = POLICY) -> Recorded:
    earlier = filing.recorded(case.arrival)
    if earlier is not None:
        return earlier
    outcome = decide(case.found, filing.memory(case.arrival), policy)
    return filing.keep(case.arrival, outcome, sealed=case.sealed, letter=case.letter)
