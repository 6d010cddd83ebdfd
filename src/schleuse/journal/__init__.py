"""What happened, provably: an append-only log per insurer and year that outsiders can check without trusting us.

The `journal` role is the only writer; the vault appends before it opens anything (design.md § 2), witnesses at the
insurers cosign what is published, and anybody verifies with files alone. Reading order:

- `hashing`, `tree`, `proof`: the Merkle tree (RFC 6962). `tiles`, `tile_reader`: how it is served and read (C2SP
  tlog-tiles).
- `entry`: the leaf JE1. `admission`: which entries are taken. `opening`: what its commitments stand for.
- `note`, `checkpoint`, `cosignature`, `policy`: who signs for which tree, and whom to believe.
  `witness_request`: how a log asks for a cosignature.
- `proof_file`: all of it in one text for one entry. `text`: Base64 and numbers in their only spelling.

All of these are pure: bytes and values in, values out. Durability, publishing and the socket stand beside them.
"""
