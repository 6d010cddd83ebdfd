"""The bytes of the vault's socket: what goes in comes out, and what should not come in is refused without a quote."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schleuse.vault
from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import BadIKError
from schleuse.vault import contracts
from schleuse.vault.contracts import (
    BadRequestError,
    ErasedError,
    KeyMissingError,
    OverBudgetError,
    VaultUnavailableError,
)
from schleuse.vault.wire import (
    ERRORS,
    KINDS,
    MAX_REQUEST,
    REFUSED,
    REPLY,
    REQUEST,
    Ask,
    Erase,
    Fetch,
    File,
    Insurer,
    Letter,
    Mail,
    Name,
    Names,
    Nothing,
    Opening,
    OpenMails,
    Plain,
    Pseudonym,
    Refusal,
    Sign,
    decode,
    encode,
    error_of,
    error_reply,
    refusal,
    reply,
    request,
)

BODIES: dict[type[Any], Any] = {
    Insurer: Insurer("109905003"),
    OpenMails: OpenMails("109905003", [Mail(7, b"r", b"a", b"k"), Mail(8, b"", b"", b"")]),
    Names: Names("109905003", [Name(b"A123456780", b"c", None), Name(b"p", b"c", b"practice")]),
    Pseudonym: Pseudonym(b"s" * 16, b"c" * 32, None),
    File: File("109905003", [Plain(b"s" * 16, "urn:uuid:1", "xml", b"<eAU/>")]),
    Fetch: Fetch("109905003", "token", "urn:uuid:1", "p7s", b"container"),
    Letter: Letter("109905003", "<1@example>", b"draft"),
    Sign: Sign("109905003", b"data"),
    Erase: Erase("109905003", "token", b"A123456780"),
    Opening: Opening("109905003", "token", b"e" * 16),
    Nothing: Nothing(),
    Refusal: Refusal("vault.erased", "refused", "gone"),
}
ANSWERS: list[Any] = [bytes, list[bytes], list[bytes | Refusal], list[Pseudonym], tuple[bytes, bytes], bool]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=5),
    max_leaves=15,
)


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_comes_out_as_it_went_in(kind: type[Any]) -> None:
    assert decode(encode(BODIES[kind]), kind) == BODIES[kind]


def test_a_request_has_its_length_operation_and_number_in_front() -> None:
    frame = request(Ask.SIGN, 2**63, BODIES[Sign])
    length, operation, number = REQUEST.unpack_from(frame)
    assert (length, operation, number) == (len(frame) - 14, Ask.SIGN, 2**63)
    assert decode(frame[14:], Sign) == BODIES[Sign]


def test_a_reply_has_its_request_status_and_length_in_front() -> None:
    answer, no = reply(5, [b"key"]), error_reply(6, ErasedError("gone"))
    assert REPLY.unpack_from(answer) == (5, 0, len(answer) - 13)
    assert REPLY.unpack_from(no) == (6, REFUSED, len(no) - 13)
    assert decode(no[13:], Refusal).code == "vault.erased"


def test_a_request_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(BadRequestError, match=str(MAX_REQUEST)):
        request(Ask.SIGN, 1, Sign("109905003", bytes(MAX_REQUEST)))


@given(st.sampled_from([*BODIES, *ANSWERS]), st.binary(max_size=300))
def test_any_bytes_are_a_body_or_a_bad_request(kind: Any, data: bytes) -> None:
    decoded_or_refused(data, kind)


@given(st.sampled_from([*BODIES, *ANSWERS]), JUNK)
def test_any_messagepack_is_a_body_or_a_bad_request(kind: Any, junk: Any) -> None:
    decoded_or_refused(msgspec.msgpack.encode(junk), kind)


@given(st.sampled_from([*BODIES]), st.data())
def test_a_body_cut_short_or_changed_is_a_body_or_a_bad_request(kind: Any, data: st.DataObject) -> None:
    whole = encode(BODIES[kind])
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    decoded_or_refused(changed, kind)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_body_of_endless_nesting_is_a_bad_request(depth: int) -> None:
    with pytest.raises(BadRequestError):
        decode(b"\x91" * depth, OpenMails)


@pytest.mark.parametrize("size", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_a_body_that_announces_more_than_it_has_is_a_bad_request(size: bytes) -> None:
    for kind in (OpenMails, File, Sign):
        with pytest.raises(BadRequestError):
            decode(b"\x92\xa9109905003" + size, kind)


def test_a_refusal_of_a_body_quotes_nothing_of_it_and_hides_its_cause() -> None:
    with pytest.raises(BadRequestError) as raised:
        decode(msgspec.msgpack.encode(["109905003", "A123456780", "A123456780", b"x"]), Erase)
    assert "A123456780" not in f"{raised.value}"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("kind", BODIES)
def test_nothing_is_printed_of_a_body(kind: type[Any]) -> None:
    assert repr(BODIES[kind]) == f"<{kind.__name__}>"


@pytest.mark.parametrize("kind", ERRORS.values())
def test_an_error_keeps_its_class_and_message(kind: type[Error]) -> None:
    error = error_of(decode(encode(refusal(kind("what was found"))), Refusal))
    assert (type(error), str(error)) == (kind, "what was found")


def test_every_error_of_the_contracts_has_a_row() -> None:
    raised = {
        one for one in vars(contracts).values() if isinstance(one, type) and one.__module__ == contracts.__name__
        and issubclass(one, Error)
    }  # fmt: skip
    assert raised <= set(ERRORS.values())


def test_no_two_errors_of_the_vault_have_one_code() -> None:
    for module in pkgutil.iter_modules(schleuse.vault.__path__):
        if module.name not in ("pkcs11", "migrations"):  # pkcs11 needs the extra hsm
            importlib.import_module(f"schleuse.vault.{module.name}")
    codes: dict[str, type[Error]] = {}
    todo = list(Error.__subclasses__())
    while todo:
        one = todo.pop()
        todo += one.__subclasses__()
        if one.code.startswith("vault."):
            assert codes.setdefault(one.code, one) is one


@pytest.mark.parametrize("kind", [MalformedError, RefusedError, ConflictError, CorruptError])
def test_an_error_that_this_side_does_not_know_falls_back_to_its_kind(kind: type[Error]) -> None:
    newer = type("NewerError", (kind,), {"code": "vault.newer"})
    assert type(error_of(refusal(newer("x")))) is kind


def test_unavailability_of_any_kind_means_that_the_vault_is_unavailable() -> None:
    newer = type("NewerError", (UnavailableError,), {"code": "journal.newer"})
    for error in (newer("x"), UnavailableError("x"), Error("x")):
        assert type(error_of(refusal(error))) is VaultUnavailableError


def test_a_code_under_another_kind_than_its_own_is_not_believed() -> None:
    """Whether work waits or is refused hangs on the kind."""
    assert type(error_of(Refusal(KeyMissingError.code, MalformedError.code, "x"))) is MalformedError
    assert type(error_of(Refusal(OverBudgetError.code, "nonsense", "x"))) is OverBudgetError
    assert type(error_of(Refusal("nonsense", "nonsense", "x"))) is VaultUnavailableError


def test_errors_of_other_packages_travel_as_their_kind() -> None:
    assert set(KINDS) == {"malformed", "refused", "conflict", "unavailable", "corrupt"}
    assert type(error_of(refusal(BadIKError("x")))) is MalformedError


def test_a_message_is_cut_to_what_a_log_can_show() -> None:
    assert len(refusal(ErasedError("x" * 5000)).message) == 1000


def decoded_or_refused(data: bytes, kind: Any) -> None:
    try:
        body = decode(data, kind)
    except BadRequestError:
        return
    assert decode(encode(body), kind) == body
