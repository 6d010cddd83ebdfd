"""From what was found out about mails to what the store takes: pseudonyms, the judgement, and the sealed document.

The eAU store has no key. Whose a document is, it knows by a pseudonym of the vault; what is in it, the vault seals
under a key of that person. Both are asked for once a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from schleuse.eau.decision import Judgement, Sound, judge
from schleuse.eau.document import Facts
from schleuse.eau.filing import Arrival, Sealed
from schleuse.eau.findings import Findings, Membership, Trouble
from schleuse.eau.intake import Examined
from schleuse.eau.outcome import Policy, Wait
from schleuse.eau.trips import ask, trouble_of
from schleuse.errors import Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault import Document, Named, Pseudonyms, Vault

log = structlog.get_logger()

_SEPARATOR = b"\x1f"

AskMembership = Callable[[IK, Facts, datetime], Membership]


@dataclass(frozen=True, slots=True, repr=False)
class Case:
    """One mail between looking and filing. sealed: of a sound document."""

    examined: Examined
    arrival: Arrival
    judgement: Judgement
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Cases:
    """A batch. refused: why the vault serves this insurer nothing now, None if it does."""

    cases: list[Case] = field(default_factory=list)
    refused: Error | None = None


def named(facts: Facts) -> Named:
    """What the vault is told of a document in order to know whose it is."""
    practice = facts.practice.encode() if facts.practice else None
    return Named(_person(facts), facts.content_key() or b"", practice)


def _person(facts: Facts) -> bytes:
    """The KVNR as it is, so that whoever erases a person by it finds all.

    In the Ersatzverfahren name and birth date; a Storno, which names nobody, belongs to the eAU that it cancels.
    """
    known = facts.person_key()
    if known is not None:
        return known
    if facts.person is not None:
        return person_without_kvnr(*facts.person)
    return b"document" + _SEPARATOR + str(facts.target or facts.id).encode()


def person_without_kvnr(family: str, given: str, born: str) -> bytes:
    """How the vault knows a person of the Ersatzverfahren; whoever erases him says the same."""
    return b"name" + _SEPARATOR + _SEPARATOR.join(part.strip().casefold().encode() for part in (family, given, born))


def make_cases(ik: IK, mails: Sequence[Examined], vault: Vault, policy: Policy, membership: AskMembership) -> Cases:
    """Judge all, and have the sound documents sealed: two round trips at most. Never raises `Exception`."""
    documented = [one for one in mails if one.findings.facts is not None and one.xml is not None]
    known = ask(
        lambda some: vault.pseudonyms(ik, some),
        [named(one.findings.facts) for one in documented if one.findings.facts is not None],
    )
    whose = {one.claimed.id: found for one, found in zip(documented, known.answers, strict=True)}
    cases = [_judged(ik, one, whose.get(one.claimed.id), policy, membership) for one in mails]
    sound = [case for case in cases if isinstance(case.judgement, Sound)]
    filed = ask(lambda some: vault.file(ik, some), [_document(case, whose[case.arrival.delivery]) for case in sound])
    containers = {case.arrival.delivery: found for case, found in zip(sound, filed.answers, strict=True)}
    return Cases(
        [_sealed(case, containers.get(case.arrival.delivery)) for case in cases], known.refused or filed.refused
    )


def _judged(
    ik: IK, examined: Examined, whose: Pseudonyms | Exception | None, policy: Policy, membership: AskMembership
) -> Case:
    claimed, found = examined.claimed, examined.findings
    arrival = Arrival(
        claimed.id,
        claimed.digest,
        claimed.accepted_at,
        found.document_id,
        found.file_hash,
        examined.target,
        held_for=claimed.held_for,
    )
    if isinstance(whose, Exception):
        return _waiting(examined, arrival, whose)
    facts = found.facts
    try:
        if whose is not None and facts is not None:
            try:
                asked = membership(ik, facts, claimed.accepted_at)
            except UnavailableError:
                return Case(examined, arrival, Wait(Trouble.MEMBERSHIP))
            found = replace(found, practice=whose.practice, membership=asked)
            content = whose.content if facts.content_key() is not None else None
            arrival = replace(
                arrival, practice=whose.practice, person=whose.subject, content_key=content, period=facts.period()
            )
        return Case(replace(examined, findings=found), arrival, judge(found, policy))
    except Exception as error:  # a mistake of ours must stop neither the other mails nor accuse anybody
        return _waiting(examined, arrival, error)


def _waiting(examined: Examined, arrival: Arrival, error: Exception) -> Case:
    if not isinstance(error, Error):
        log.error("eau.mistake", delivery=arrival.delivery, error=type(error).__name__)
    trouble = trouble_of(error)
    blank = Findings(sent_at=arrival.accepted_at, trouble=trouble)
    return Case(replace(examined, findings=blank), arrival, Wait(trouble))


def _document(case: Case, whose: Pseudonyms | Exception) -> Document:
    facts, examined = case.examined.findings.facts, case.examined
    assert facts is not None  # noqa: S101 -- a sound mail has them, and pseudonyms
    assert isinstance(whose, Pseudonyms)  # noqa: S101
    # One form is kept: the signed file, out of which the feed takes the XML.
    if examined.p7s is not None:
        return Document(whose.subject, str(facts.id), "p7s", examined.p7s)
    assert examined.xml is not None  # noqa: S101 -- facts come out of it
    return Document(whose.subject, str(facts.id), "xml", examined.xml)


def _sealed(case: Case, container: bytes | Exception | None) -> Case:
    if container is None:
        return case
    if isinstance(container, Exception):
        return _waiting(case.examined, case.arrival, container)
    return replace(case, sealed=Sealed(p7s=container) if case.examined.p7s is not None else Sealed(xml=container))
