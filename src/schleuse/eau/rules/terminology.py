"""Code lists of the eAU (eau.md § 9). Only codes: what they mean stands there, and in the practice's software."""

from __future__ import annotations

from schleuse.eau.rules.edition import Edition
from schleuse.eau.rules.notation import CodeList

KBV_CS = "https://fhir.kbv.de/CodeSystem"
SFHIR = f"{KBV_CS}/KBV_CS_SFHIR"
DE_CS = "http://fhir.de/CodeSystem"
HL7_CS = "http://terminology.hl7.org/CodeSystem"

AU_TYPE_SYSTEM = f"{KBV_CS}/KBV_CS_EAU_AU_Type"
FORM_SYSTEM = f"{SFHIR}_KBV_FORMULAR_ART"
DOCUMENT_TYPE_SYSTEM = f"{SFHIR}_KBV_FHIR_DOKUMENTTYPE"
QUALIFICATION_SYSTEM = f"{KBV_CS}/KBV_CS_FOR_Qualification_Type"
PROFESSION_SYSTEM = f"{KBV_CS}/KBV_CS_FOR_Berufsbezeichnung"
SECTION_SYSTEM = f"{KBV_CS}/KBV_CS_FOR_Section_Type"
CLINICAL_SYSTEM = f"{HL7_CS}/condition-clinical"
VERIFICATION_SYSTEM = f"{HL7_CS}/condition-ver-status"
V2_TYPES = f"{HL7_CS}/v2-0203"
DE_TYPES = f"{DE_CS}/identifier-type-de-basis"
KBV_TYPES = f"{KBV_CS}/KBV_CS_Base_identifier_type"
ICD_SYSTEM = f"{DE_CS}/bfarm/icd-10-gm"


def _list(name: str, title: str, system: str, codes: str) -> CodeList:
    return CodeList(name, title, ((system, tuple(codes.split())),))


AU_TYPE = _list("au-type", "Art der Bescheinigung", AU_TYPE_SYSTEM, "ERST FOLGE ERST_END FOLGE_END")
#: 4 (Berufskrankheit) is in the code system, not in the list of the eAU.
CAUSE = _list("ursache", "Ursache", f"{KBV_CS}/KBV_CS_FOR_Ursache_Type", "1 2 3")
STEPS = _list(
    "weitere-schritte",
    "Weitere Schritte",
    f"{KBV_CS}/KBV_CS_EAU_WeitereSchritte_Type",
    "d_arzt reha wiedereingliederung sonstige stationaere_heilbehandlung",
)
QUALIFICATION = _list("qualification", "Qualifikation", QUALIFICATION_SYSTEM, "00 01 02 03 04")
LEGAL_BASIS = _list(
    "statuskennzeichen",
    "Rechtsgrundlage (Statuskennzeichen)",
    f"{SFHIR}_KBV_STATUSKENNZEICHEN",
    "00 01 04 07 10 11 14 17",
)
PERSONENGRUPPE = _list("personengruppe", "Besondere Personengruppe", f"{SFHIR}_KBV_PERSONENGRUPPE", "00 04 06 07 08 09")
VERSICHERTENSTATUS = _list("versichertenstatus", "Versichertenart", f"{SFHIR}_KBV_VERSICHERTENSTATUS", "1 3 5")
WOP = _list(
    "wop",
    "Wohnortprinzip (WOP)",
    f"{SFHIR}_ITA_WOP",
    "00 01 02 03 17 20 38 46 47 48 49 50 51 52 55 60 61 62 71 72 73 78 83 88 93 98",
)
CERTAINTY = _list("diagnosesicherheit", "Diagnosesicherheit", f"{SFHIR}_ICD_DIAGNOSESICHERHEIT", "A G V Z")
SIDE = _list("seitenlokalisation", "Seitenlokalisation", f"{SFHIR}_ICD_SEITENLOKALISATION", "R L B")
CLINICAL_STATUS = _list(
    "clinical-status", "Klinischer Status", CLINICAL_SYSTEM, "active recurrence relapse inactive remission resolved"
)
VERIFICATION_STATUS = _list(
    "verification-status",
    "Bestätigungsstatus",
    VERIFICATION_SYSTEM,
    "unconfirmed provisional differential confirmed refuted entered-in-error",
)
IDENTIFIER_USE = _list(
    "identifier-use",
    "Verwendung des Identifiers",
    "http://hl7.org/fhir/identifier-use",
    "usual official temp secondary old",
)
NARRATIVE_STATUS = _list(
    "narrative-status",
    "Status der Textdarstellung",
    "http://hl7.org/fhir/narrative-status",
    "generated extensions additional empty",
)
#: GKV to SEL stand in the German base list, the other two in one of the KBV.
PAYOR = CodeList(
    "kostentraeger",
    "Art des Kostenträgers",
    (
        (f"{DE_CS}/versicherungsart-de-basis", ("GKV", "PKV", "BG", "SEL")),
        (f"{KBV_CS}/KBV_CS_FOR_Payor_Type_KBV", ("SKT", "UK")),
    ),
)
ERROR = _list(
    "fehlercode",
    "Fehlercodes der Krankenkassen",
    f"{SFHIR}_EAU_AU_ERROR_KASSE",
    "100 101 102 103 104 105 201 202 203 204 301 303 304 305 307 309 310 311 313 314",
)
#: OperationOutcome.issue.code; the profile fixes the severity only (eau.md § 12 wants "processing").
ISSUE_TYPE = _list(
    "issue-type",
    "Art des Problems",
    "http://hl7.org/fhir/issue-type",
    "invalid structure required value invariant security login unknown expired forbidden suppressed processing"
    " not-supported duplicate multiple-matches not-found deleted too-long code-invalid extension too-costly"
    " business-rule conflict transient lock-error no-store exception timeout incomplete throttled informational",
)
_COUNTRY_CODES = (
    "AFG ET AX AL DZ AJ AS AND AGO ANG ANT AQU RA AQ ARM AW HEL ASE AU ETH AUS BS BRN BD BDS BY B BH DY BER BHT BOL BQ"
    " BIH RB BV BR BJ IO BRU BG HV RU RCH CP COI CR CI CW DK D WD DOM DSC EC ES ERI EST SWZ FAL FR FJI FIN F TF FG FP"
    " GAB WAG GEO GH GIB WG GR GRO GUA GUM GCA GG RG GUB GUY RH HM HCA HKG IND RI MAN IRQ IR IRL IS IL I JA J YEM JE"
    " JOR YU KAI K CAM CDN KAN CV KAS QAT EAK KIS KIB CC CO KOM RCB ZRE KOR ROK KOS HR C KWT LAO LS LV RL LB LAR FL LT"
    " L MAC RM MW MAL BIO RMM M MA MAR MAT RIM MS MAY MEX MIK MD MC MON MNE MOT MOZ MYA SWA NAU UM NEP NKA NZ NIC NL"
    " NLA RN WAN NIU MK NMA NF N MAO A PK PSE PAL PA PNG PY PIN PE RP PIT PL P PRI REU RWA RO RUS PIE SOL Z WS RSM STP"
    " SAU S CH SN SRB SCG SY WAL ZW SGP SK SLO SP E CL BL SCN WL MF SX WV ZA SUD SDN GS SSD SME SD SJ SYR TAD TWN EAT T"
    " TJ OTI TG TOK TON TT CHD CZ TN TR TUR TUC TUV EAU UA H ROU USB VAN V YV UAE USA GB VN WF CX EH RCA CY"
)
#: DEÜV Anlage 8, Länderkennzeichen.
COUNTRY = _list("laenderkennzeichen", "Länderkennzeichen", f"{DE_CS}/deuev/anlage-8-laenderkennzeichen", _COUNTRY_CODES)

_DMP_SINGLE = tuple(f"{number:02d}" for number in range(12))
#: 12 (Adipositas) and the combinations 30 to 58 came with V1.06, in force since 2024-10-01.
_DMP = {"1.05": _DMP_SINGLE, "1.06": (*_DMP_SINGLE, "12", *(str(number) for number in range(30, 59)))}


def dmp(edition: Edition) -> CodeList:
    return CodeList("dmp", "DMP-Kennzeichnung", ((f"{SFHIR}_KBV_DMP", _DMP[edition.dmp]),))


#: Code systems whose members are few and known, beside those that the lists above make complete.
SYSTEMS: dict[str, tuple[str, ...]] = {
    f"{KBV_CS}/KBV_CS_FOR_Ursache_Type": ("1", "2", "3", "4"),
    FORM_SYSTEM: ("e010", "e011", "e012", "e013", "e16A", "e16D"),
    DOCUMENT_TYPE_SYSTEM: ("eAU", "eRezept", "eVDGA"),
    PROFESSION_SYSTEM: ("Berufsbezeichnung",),
    SECTION_SYSTEM: ("AU_Condition", "ICD", "ICD_Text", "FOR_PractitionerRole", "AU_weiter", "Coverage"),
}
