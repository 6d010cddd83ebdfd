"""S/MIME as KIM uses it: CMS AuthEnvelopedData and SignedData, and trust in certificates (kim.md § 7).

`envelope` opens and builds what is encrypted, `signed` what is signed, `trust` judges certificates, `judge` puts
signature and certificate into one verdict; `ber` reads and writes ASN.1 below them. Private keys stay behind the
vault's seam: opening takes a callable that unwraps one content key, signing takes a `Signer`.

Why by hand: no library on PyPI opens AuthEnvelopedData, and asn1crypto alone costs more than the cryptography it
frames (limits.md § 3). Keys, ciphers and certificates are `cryptography`'s. RFC 5652, 5083, 5084, 5035, 6211.
"""
