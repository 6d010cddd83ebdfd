"""Coverage: who pays (eau.md § 7)."""

from __future__ import annotations

from schleuse.eau.rules import extensions as ext
from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants import resources as within
from schleuse.eau.rules.notation import Profile, extension, maybe, one
from schleuse.eau.rules.parts import coded, head, refers


def coverage(edition: Edition) -> Profile:
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_FOR_Coverage",
        "Coverage",
        (
            *head("KBV_PR_FOR_Coverage", edition),
            one("status", "code", fixed="active"),
            one("type", "CodeableConcept", coded(codes.PAYOR), values=codes.PAYOR),
            refers("beneficiary", edition.canonical("KBV_PR_FOR_Patient")),
            maybe("period", "Period", one("end", "dateTime"), invariants=(within.COVER_END,)),
            one(
                "payor",
                "Reference",
                ext.institution("identifier", edition, second_ik=True),
                one("display", "string", length=45),
            ),
        ),
        within.coverage(edition),
        extensions=(
            extension("personengruppe", ext.PERSONENGRUPPE),
            extension("dmp", ext.DMP),
            extension("versichertenart", ext.VERSICHERTENART),
            extension("wop", ext.WOP),
        ),
    )
