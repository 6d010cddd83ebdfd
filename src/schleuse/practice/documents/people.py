"""Who appears in an eAU: insurer, patient, practice and doctor, with numbers that have right check digits."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from schleuse.identifiers import kvnr_check_digit
from schleuse.practice.documents import wordlists as words


@dataclass(frozen=True, slots=True)
class Insurer:
    """A Kostenträger. ik: nine digits; name: at most 45 signs; second_ik: only for BG and UK."""

    ik: str
    name: str
    second_ik: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A postal address. All lines optional for patients; box: a Postfach, then without street and number."""

    street: str | None
    number: str | None
    extra: str | None
    box: str | None
    postal_code: str | None
    city: str | None
    country: str = "D"


@dataclass(frozen=True, slots=True, repr=False)
class Name:
    """A person's name; prefix is the Vorsatzwort, addition the Namenszusatz, title the academic title."""

    family: str
    given: str
    prefix: str | None = None
    addition: str | None = None
    title: str | None = None

    @property
    def whole_family(self) -> str:
        """The family name as it is written, with Namenszusatz and Vorsatzwort before it."""
        return " ".join(part for part in (self.addition, self.prefix, self.family) if part)


@dataclass(frozen=True, slots=True, repr=False)
class Patient:
    """An invented insured person. born: always known to us, even when a document leaves it partly out."""

    name: Name
    born: date
    kvnr: str
    kvk: str
    address: Address


@dataclass(frozen=True, slots=True)
class Doctor:
    """Who signs. number: LANR or ZANR, nine digits. telematik_id as on the eHBA."""

    id: str
    name: Name
    profession: str
    number: str
    telematik_id: str
    asv_group: str


@dataclass(frozen=True, slots=True)
class Practice:
    """Where it was issued. number: BSNR, KZV-Abrechnungsnummer, Standortnummer or IK, nine digits."""

    id: str
    name: str
    number: str
    telematik_id: str
    phone: str
    fax: str | None
    email: str | None
    address: Address
    asv_team: str


def random_id(rng: Random) -> str:
    """A version 4 UUID drawn from rng."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def digits(rng: Random, count: int) -> str:
    return f"{rng.randrange(10**count):0{count}d}"


def luhn(body: str) -> str:
    """Check digit by modulo 10 with weights 2-1-2-1 from the left (digits 3 to 8 of an IK)."""
    total = 0
    for index, sign in enumerate(body):
        product = int(sign) * (2 - index % 2)
        total += product - 9 if product > 9 else product
    return str(total % 10)


def random_ik(rng: Random, category: str = "10") -> str:
    """category: class of the IK, 10 for insurers, 26 for hospitals."""
    body = digits(rng, 6)
    return category + body + luhn(body)


def random_kvnr(rng: Random) -> str:
    first_nine = chr(ord("A") + rng.randrange(26)) + digits(rng, 8)
    return f"{first_nine}{kvnr_check_digit(first_nine)}"


def random_insurer(rng: Random) -> Insurer:
    return Insurer(random_ik(rng), rng.choice(words.INSURERS), random_ik(rng))


def random_name(rng: Random, *, title: float = 0.1) -> Name:
    """title: probability of an academic title."""
    noble = rng.random() < 0.08
    return Name(
        family=rng.choice(words.FAMILY),
        given=rng.choice(words.GIVEN),
        prefix=rng.choice(words.PREFIXES) if noble or rng.random() < 0.05 else None,
        addition=rng.choice(words.ADDITIONS) if noble else None,
        title=rng.choice(words.TITLES) if rng.random() < title else None,
    )


def random_address(rng: Random) -> Address:
    postal_code, city = rng.choice(words.PLACES)
    extra = rng.choice(words.EXTRAS) if rng.random() < 0.15 else None
    return Address(rng.choice(words.STREETS), rng.choice(words.HOUSE_NUMBERS), extra, None, postal_code, city)


def random_patient(rng: Random, today: date) -> Patient:
    born = today - timedelta(days=rng.randrange(16 * 366, 67 * 365))
    return Patient(random_name(rng), born, random_kvnr(rng), digits(rng, 10), random_address(rng))


def random_doctor(rng: Random) -> Doctor:
    return Doctor(
        id=random_id(rng),
        name=random_name(rng, title=0.6),
        profession=rng.choice(words.PROFESSIONS),
        number=digits(rng, 9),
        telematik_id=f"1-1.58.{digits(rng, 8)}",
        asv_group=f"555555{digits(rng, 3)}",
    )


def random_practice(rng: Random, names: tuple[str, ...] = words.PRACTICES) -> Practice:
    area = digits(rng, 3)
    return Practice(
        id=random_id(rng),
        name=rng.choice(names),
        number=digits(rng, 9),
        telematik_id=f"1-2.58.{digits(rng, 8)}",
        phone=f"0{area} {digits(rng, 6)}",
        fax=f"0{area} {digits(rng, 7)}" if rng.random() < 0.6 else None,
        email=f"praxis{digits(rng, 4)}@praxis.example" if rng.random() < 0.6 else None,
        address=random_address(rng),
        asv_team=digits(rng, 9),
    )
