"""A message on its way to a POP3 client: cut for TOP, dots stuffed, in pieces (RFC 1939 § 3 and § 7)."""

from __future__ import annotations

from collections.abc import Iterator

#: Octets that are made at a time, so that a big mail takes one copy and no second (limits.md § 2).
PIECE = 65_536


def end_of_top(content: bytes, lines: int) -> int:
    """Where the answer to TOP ends: header, empty line and that many lines of the body."""
    if content.startswith(b"\r\n"):
        end = 2
    else:
        end = content.find(b"\r\n\r\n") + 4
        if end == 3:
            return len(content)
    # Whole blocks first: a mail of nothing but line ends must not hold up the loop.
    while end < len(content):
        there = content.count(b"\r\n", end, end + PIECE + 1)  # pairs that start in this block
        if there >= lines:
            break
        lines -= there
        end += PIECE
    if end >= len(content):
        return len(content)
    for _ in range(lines):
        end = content.find(b"\r\n", end) + 2
    return end


def multi_line(content: bytes, end: int) -> Iterator[bytes]:
    """content[:end] as the body of a multi-line reply, with the closing dot; pieces of about PIECE octets.

    Only CRLF ends a line, so only a dot after CRLF is doubled: the mail reads byte for byte as it was kept.
    """
    for start in range(0, end, PIECE):
        piece = content[start : min(start + PIECE, end)]
        before = content[max(start - 2, 0) : start]
        stuffed = piece.replace(b"\r\n.", b"\r\n..")
        if piece.startswith(b".") and before in {b"", b"\r\n"}:
            stuffed = b"." + stuffed
        elif piece.startswith(b"\n.") and before.endswith(b"\r"):
            stuffed = b"\n." + stuffed[1:]
        yield stuffed
    yield b".\r\n" if end == 0 or content[max(end - 2, 0) : end] == b"\r\n" else b"\r\n.\r\n"
