"""The three kinds of Condition and the further steps (eau.md §§ 6.2 to 6.5)."""

from __future__ import annotations

from schleuse.eau.rules import extensions as ext
from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants import resources as within
from schleuse.eau.rules.notation import CodeList, Profile, Rule, extension, maybe, one, slices
from schleuse.eau.rules.parts import coded, concept, head, refers


def _people(edition: Edition) -> tuple[Rule, Rule]:
    return (
        refers("subject", edition.canonical("KBV_PR_FOR_Patient")),
        refers("asserter", edition.canonical("KBV_PR_FOR_Practitioner")),
    )


def condition_au(edition: Edition) -> Profile:
    subject, asserter = _people(edition)
    period = one("onset[x]", "Period", maybe("start", "dateTime"), one("end", "dateTime"), invariants=(within.PERIOD,))
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Condition_AU",
        "Condition",
        (
            *head("KBV_PR_EAU_Condition_AU", edition),
            concept("clinicalStatus", codes.CLINICAL_SYSTEM, "active"),
            concept("verificationStatus", codes.VERIFICATION_SYSTEM, "confirmed"),
            concept("code", codes.DOCUMENT_TYPE_SYSTEM, "eAU"),
            subject,
            period,
            asserter,
        ),
        within.CONDITION_AU,
        extensions=(
            extension("asserted", ext.ASSERTED, at_least=1),
            extension("seven-weeks", ext.SEVEN_WEEKS),
            extension("cause", ext.DUE_TO, at_most=3),
            extension("partly-fit", ext.PARTLY_FIT),
            extension("unfit-for-job", ext.UNFIT_FOR_JOB),
        ),
    )


def _status(name: str, system: str, values: CodeList, edition: Edition) -> Rule:
    inner = coded(values)
    if edition.old:
        inner = one("coding", "Coding", one("system", "uri", fixed=system), one("code", "code"), values=values)
    return maybe(name, "CodeableConcept", inner, values=values)


def condition_icd(edition: Edition) -> Profile:
    subject, asserter = _people(edition)
    icd = one(
        "icd",
        "Coding",
        one("system", "uri", fixed=codes.ICD_SYSTEM),
        one("version", "string"),
        one("code", "code"),
        extensions=(extension("side", ext.SIDE), extension("certainty", ext.CERTAINTY)),
        others=edition.old,
    )
    code = slices("coding", "Coding", "value:system", icd, at_least=1, at_most=1)
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Condition_ICD",
        "Condition",
        (
            *head("KBV_PR_EAU_Condition_ICD", edition),
            _status("clinicalStatus", codes.CLINICAL_SYSTEM, codes.CLINICAL_STATUS, edition),
            _status("verificationStatus", codes.VERIFICATION_SYSTEM, codes.VERIFICATION_STATUS, edition),
            one("code", "CodeableConcept", code),
            subject,
            asserter,
        ),
        within.CONDITION_ICD,
        closed=not edition.old,
    )


def condition_text(edition: Edition) -> Profile:
    subject, asserter = _people(edition)
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Condition_Text",
        "Condition",
        (
            *head("KBV_PR_EAU_Condition_Text", edition),
            concept("verificationStatus", codes.VERIFICATION_SYSTEM, "confirmed"),
            one("code", "CodeableConcept", one("text", "string", length=70)),
            subject,
            asserter,
        ),
    )


def service_request(edition: Edition) -> Profile:
    step = one(
        "code",
        "CodeableConcept",
        coded(codes.STEPS),
        maybe("text", "string"),
        values=codes.STEPS,
        invariants=(within.STEP_TEXT,),
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_ServiceRequest_steps",
        "ServiceRequest",
        (
            *head("KBV_PR_EAU_ServiceRequest_steps", edition),
            one("status", "code", fixed="active"),
            one("intent", "code", fixed="proposal"),
            step,
            refers("subject", edition.canonical("KBV_PR_FOR_Patient")),
            refers("requester", edition.canonical("KBV_PR_FOR_Practitioner")),
            refers("reasonReference", edition.canonical("KBV_PR_EAU_Condition_AU")),
        ),
        within.SERVICE_REQUEST,
        extensions=(
            extension("reintegration", ext.REINTEGRATION),
            extension("admission", ext.ADMISSION),
            extension("discharge", ext.DISCHARGE),
        ),
    )
