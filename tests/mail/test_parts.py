from __future__ import annotations

import base64
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.mail.parts import BadPartError, Bounds, Part, decode_base64, decode_body, leaves, payload_parts

EAU = frozenset({"eAU", "eAUStorno"})
P7S = bytes(range(256)) * 20


def client_mail(*more: tuple[str, bytes], description: str | None = "eAU", name: str = "EEAU0_x.p7s") -> bytes:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = "praxis@arzt.kim.telematik"
    mail.set_content("Text mit Umlaut: ä\n")
    mail.add_attachment(P7S, maintype="application", subtype="octet-stream", filename=name)
    if description is not None:
        next(mail.iter_attachments())["Content-Description"] = description
    for filename, content in more:
        mail.add_attachment(content, maintype="application", subtype="octet-stream", filename=filename)
    return bytes(mail)


def multipart(*parts: bytes, boundary: bytes = b"b") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n" + body + b"--" + boundary + b"--\r\n"


def test_the_leaves_come_in_order_and_decode() -> None:
    text, payload = leaves(client_mail())
    assert text.decode().decode("utf-8") == "Text mit Umlaut: ä\r\n"
    assert (payload.name, payload.type, payload.description) == ("EEAU0_x.p7s", "application/octet-stream", "eAU")
    assert payload.decode() == P7S


def test_a_mail_of_one_part_is_its_own_leaf() -> None:
    (part,) = leaves(b"Content-Transfer-Encoding: base64\r\n\r\nYWJj\r\n")
    assert (part.type, part.decode(), part.name) == ("text/plain", b"abc", None)


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n",
        b"preamble\r\n--b  \r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\nepilogue\r\n--b\r\n\r\nthree",
        b"--b\n\none\n--b\n\ntwo\n--b--\n",
        b"--b\r\n\r\none\r\n--b\r\n\r\ntwo",  # never closed
        b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--",
    ],
)
def test_delimiter_lines_are_found_in_every_form(body: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body
    assert [part.body for part in leaves(raw)] == [b"one", b"two"]


def test_a_delimiter_inside_a_line_or_a_longer_word_is_text() -> None:
    (part,) = leaves(multipart(b"\r\nx --b\r\n--bc\r\n--b-\r\ny"))
    assert part.body == b"x --b\r\n--bc\r\n--b-\r\ny"


def test_a_multipart_without_parts_is_an_empty_leaf() -> None:
    (part,) = leaves(b"Content-Type: multipart/mixed; boundary=b\r\n\r\nnothing")
    assert part.type == "multipart/mixed"


@pytest.mark.parametrize(
    "header", [b"multipart/mixed", b'multipart/mixed; boundary=""', b"multipart/mixed; boundary=" + b"x" * 300]
)
def test_a_multipart_without_usable_boundary_is_malformed(header: bytes) -> None:
    with pytest.raises(BadPartError):
        leaves(b"Content-Type: " + header + b"\r\n\r\n--x")


def test_depth_parts_and_size_are_bounded() -> None:
    nested = b"\r\nx"
    for level in range(12):
        nested = multipart(nested, boundary=b"b%d" % level)
    with pytest.raises(BadPartError, match="nested"):
        leaves(nested)
    with pytest.raises(BadPartError, match="too many"):
        leaves(multipart(*[b"\r\nx"] * 201))
    with pytest.raises(BadPartError, match="too many"):
        leaves(multipart(*[multipart(boundary=b"c")] * 201))
    with pytest.raises(BadPartError, match="octets"):
        leaves(b"\r\n" + bytes(100), Bounds(octets=100))


def test_delimiters_inside_a_very_long_line_do_not_cost_its_square() -> None:
    """Would run for hours if each of them looked for the end of the line."""
    raw = b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"-" * 15_000_000
    assert len(leaves(raw)) == 1


def test_every_transfer_encoding_is_decoded_and_an_unknown_one_is_malformed() -> None:
    assert decode_body(b"YW\r\nJj", "Base64 ") == b"abc"
    assert decode_body(b"a=C3=A4=\r\nb", "quoted-printable") == "aäb".encode()
    assert decode_body(b"abc", None) == decode_body(b"abc", "8BIT") == b"abc"
    with pytest.raises(BadPartError):
        decode_body(b"abc", "x-uuencode")


@pytest.mark.parametrize("body", [b"YWJ", b"YW*j", b"YWJj=", b"\xff\xff\xff\xff"])
def test_broken_base64_is_malformed(body: bytes) -> None:
    with pytest.raises(BadPartError):
        decode_base64(body)


@given(st.binary(max_size=500))
def test_base64_in_lines_comes_back(content: bytes) -> None:
    assert decode_base64(base64.encodebytes(content).replace(b"\n", b"\r\n")) == content


def names(parts: list[Part]) -> list[str | None]:
    return [part.name for part in parts]


def test_the_payload_is_found_by_its_description_whatever_its_name() -> None:
    assert names(payload_parts(leaves(client_mail(name="unknown.bin")), EAU)) == ["unknown.bin"]
    assert names(payload_parts(leaves(client_mail(description="EAU", name="unknown.bin")), EAU)) == ["unknown.bin"]


def test_the_payload_is_found_by_its_name_where_the_description_is_missing() -> None:
    assert names(payload_parts(leaves(client_mail(description=None, name="X.P7S")), EAU)) == ["X.P7S"]


def test_the_payload_is_found_by_its_type_where_all_else_is_missing() -> None:
    raw = multipart(b"\r\ntext", b"Content-Type: application/pkcs7-mime\r\n\r\nx")
    assert [part.body for part in payload_parts(leaves(raw), EAU)] == [b"x"]


def test_the_reports_that_a_clientmodul_attaches_are_passed_over() -> None:
    raw = client_mail(("Signaturpruefungsbericht_20260302.pdf", b"%PDF"), ("Pruefungsdetails_20260302.txt", b"x"))
    assert names(payload_parts(leaves(raw), EAU)) == ["EEAU0_x.p7s"]


def test_a_second_payload_is_visible_even_without_description() -> None:
    assert len(payload_parts(leaves(client_mail(("second.p7s", b"x"))), EAU)) == 2


def test_the_signature_of_the_mail_itself_is_no_payload() -> None:
    raw = multipart(b"\r\ntext", b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nx")
    assert payload_parts(leaves(raw), EAU) == []


@given(st.data())
def test_any_damage_to_a_mail_is_read_or_malformed(data: st.DataObject) -> None:
    octets = bytearray(client_mail())
    for _ in range(data.draw(st.integers(0, 8))):
        octets[data.draw(st.integers(0, 800))] = data.draw(st.sampled_from(b'\r\n:;="- b\xff') | st.integers(0, 255))
    try:
        for part in payload_parts(leaves(bytes(octets)), EAU):
            part.decode()
    except MalformedError:
        pass
