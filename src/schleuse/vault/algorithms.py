"""DER of the AlgorithmIdentifiers of KIM that both sides of a key use; no key is in this file."""

from __future__ import annotations

SHA256_ID = bytes.fromhex("300b0609608648016503040201")
_MGF1_SHA256_ID = bytes.fromhex("301806092a864886f70d010108") + SHA256_ID
#: id-RSAES-OAEP with SHA-256 and MGF1-SHA-256 written out (RFC 4055 § 4.1; kim.md § 7.2).
OAEP_SHA256_ALGORITHM = bytes.fromhex("303806092a864886f70d010107302b") + (
    b"\xa0\x0d" + SHA256_ID + b"\xa1\x1a" + _MGF1_SHA256_ID
)
#: id-RSASSA-PSS with SHA-256, MGF1-SHA-256 and salt 32 (RFC 4055 § 3.1; kim.md § 7.1).
PSS_SHA256_ALGORITHM = bytes.fromhex("303d06092a864886f70d01010a3030") + (
    b"\xa0\x0d" + SHA256_ID + b"\xa1\x1a" + _MGF1_SHA256_ID + bytes.fromhex("a203020120")
)
#: ecdsa-with-SHA256 (RFC 5758 § 3.2).
ECDSA_SHA256_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
OAEP_OID = bytes.fromhex("06092a864886f70d010107")


def is_oaep_sha256(algorithm: bytes) -> bool:
    """Whether an AlgorithmIdentifier (DER) names RSAES-OAEP with SHA-256 for both hashes, however it is written."""
    if OAEP_OID not in algorithm[:16]:
        return False
    return algorithm == OAEP_SHA256_ALGORITHM or algorithm.count(SHA256_ID[2:]) == 2
