"""Hashes of the Merkle tree (RFC 6962 § 2.1), on which every statement of the journal rests."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

HASH_SIZE = 32  #: SHA-256

#: Root of the tree without entries: SHA-256 of nothing.
EMPTY_ROOT = sha256(b"").digest()

#: First byte of what is hashed; keeps a leaf from ever looking like a node (RFC 6962 § 2.1).
LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one entry, without the length that bundles and frames put before it."""
    return sha256(LEAF_PREFIX + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """`leaf_hash` of each entry; the form for whole batches."""
    return [sha256(LEAF_PREFIX + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash over two neighbours of 32 bytes each. Whoever has hashes from outside checks their length first."""
    return sha256(NODE_PREFIX + left + right).digest()


def fold_peaks(peaks: Iterable[bytes]) -> bytes:
    """Root over the complete subtrees of a tree, the smallest (rightmost) first; EMPTY_ROOT for none."""
    root: bytes | None = None
    for peak in peaks:
        root = peak if root is None else node_hash(peak, root)
    return EMPTY_ROOT if root is None else root
