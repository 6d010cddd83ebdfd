from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.environment import Environment
from schleuse.errors import MalformedError, RefusedError
from schleuse.kim.address import BadKIMAddressError, KIMAddress, parse_kim_address


def test_spelling_is_kept_and_case_does_not_matter_when_comparing() -> None:
    address = KIMAddress("Praxis.Beispiel@Arzt.KIM.telematik")
    assert str(address) == "Praxis.Beispiel@Arzt.KIM.telematik"
    assert address == KIMAddress("praxis.beispiel@arzt.kim.telematik")
    assert hash(address) == hash(KIMAddress(address.key))
    assert address != "praxis.beispiel@arzt.kim.telematik"


def test_a_printed_address_names_nobody() -> None:
    assert "beispiel" not in repr(KIMAddress("praxis.beispiel@arzt.kim.telematik"))


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("a@b.kim.telematik", Environment.PRODUCTION),
        ("a@b.kim.telematik-test", Environment.TEST),
        (" a@B.KIM.TELEMATIK\t", Environment.PRODUCTION),
        ("x" * 64 + "@" + "y" * 189 + ".kim.telematik", Environment.PRODUCTION),
    ],
)
def test_addresses_of_the_environment_are_accepted(text: str, environment: Environment) -> None:
    assert parse_kim_address(text, environment).belongs_to(environment)


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("a@b.kim.telematik", Environment.TEST),
        ("a@b.kim.telematik-test", Environment.PRODUCTION),
    ],
)
def test_production_and_test_are_never_mixed(text: str, environment: Environment) -> None:
    with pytest.raises(RefusedError):
        parse_kim_address(text, environment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@b.kim.telematik",
        "a@kim.telematik",
        "a@.kim.telematik",
        "a@b.example.org",
        "a@b.kim.telematik.example.org",
        "a@bkim.telematik",
        "ä@b.kim.telematik",
        "a b@b.kim.telematik",
        "a@b@c.kim.telematik",
        "a+b@c.kim.telematik",
        "a@b..kim.telematik",
        "a@b_c.kim.telematik",
        "a\r\nBcc: x@b.kim.telematik",
        "<a@b.kim.telematik>",
        "x" * 65 + "@b.kim.telematik",
        "a@" + "y" * 190 + ".kim.telematik",
    ],
)
def test_what_is_no_kim_address_is_malformed(text: str) -> None:
    with pytest.raises(BadKIMAddressError):
        KIMAddress(text)


@given(st.text(max_size=40), st.sampled_from(Environment))
def test_any_text_is_an_address_or_refused(text: str, environment: Environment) -> None:
    for candidate in (text, f"{text}@b{environment.suffix}", f"a@{text}{environment.suffix}"):
        try:
            address = parse_kim_address(candidate, environment)
        except (MalformedError, RefusedError):
            continue
        assert str(address).isascii()
        assert "\n" not in str(address)
