"""German for why a mail or its signature cannot be read, for practices and their vendors.

The English is written where the reason is found (`mail`, `kim`) and stays so in the logs. The set is closed: a test
reads those sources and looks for each phrase here.
"""

from __future__ import annotations

from typing import Final

from schleuse.fhir.german import Phrases

_SIGNATURE: Final = {
    "no signature": "keine Signatur",
    "signature in a wrong format": "Signatur in falschem Format",
    "content does not match the signature": "Inhalt passt nicht zur Signatur",
    "certificate not valid": "Zertifikat nicht gültig",
    "signature holds, status of the certificate not obtainable": "Signatur gültig, Zertifikatsstatus unbekannt",
    "signature holds, certificate valid": "Signatur gültig, Zertifikat gültig",
    "no trust anchors were given: certificate not checked": "Zertifikat nicht geprüft",
    "status unknown": "Status unbekannt",
    "data differ": "Daten abweichend",
    "certificate faulty": "Zertifikat fehlerhaft",
    "the content is not the one that was signed": "der Inhalt ist nicht der signierte",
    "the signature does not match the signed attributes": "die Signatur passt nicht zu den signierten Attributen",
    "the certificate is not the one that the signer named in the signed attributes": (
        "das Zertifikat ist nicht das in den signierten Attributen genannte"
    ),
    "{} (serial number {})": "{} (Seriennummer {})",
    "the certificate cannot be read": "das Zertifikat ist nicht lesbar",
    "the signer's certificate is not enclosed": "das Zertifikat des Signierenden liegt nicht bei",
    "no path leads from the certificate to a trust anchor": "vom Zertifikat führt kein Pfad zu einem Vertrauensanker",
    "the certificate or one above it was not valid at signing time": (
        "das Zertifikat oder eines darüber war beim Signieren nicht gültig"
    ),
    "the certificate is not meant for signing": "das Zertifikat ist nicht zum Signieren bestimmt",
    "the certificate or one above it was revoked at signing time": (
        "das Zertifikat oder eines darüber war beim Signieren gesperrt"
    ),
    "the certificate of a signer cannot be read": "das Zertifikat eines Signierenden ist nicht lesbar",
    "a certificate cannot be read": "ein Zertifikat ist nicht lesbar",
    "a certificate has too few fields": "ein Zertifikat hat zu wenige Felder",
    "the digest algorithm is none of SHA-256, SHA-384 and SHA-512": (
        "der Hash-Algorithmus ist keiner von SHA-256, SHA-384 und SHA-512"
    ),
    "the signature algorithm is neither RSA nor ECDSA with SHA-2": (
        "der Signaturalgorithmus ist weder RSA noch ECDSA mit SHA-2"
    ),
    "an algorithm identifier is empty": "eine Algorithmus-Angabe ist leer",
    "RSASSA-PSS without parameters means SHA-1, which is not accepted": (
        "RSASSA-PSS ohne Parameter bedeutet SHA-1; das wird nicht akzeptiert"
    ),
    "RSASSA-PSS with another mask generation function than MGF1": "RSASSA-PSS mit anderer Maskenfunktion als MGF1",
    "RSASSA-PSS with an impossible salt length": "RSASSA-PSS mit unmöglicher Salt-Länge",
    "the SignedData has too few fields": "SignedData hat zu wenige Felder",
    "the SignedData has no signer": "SignedData hat keinen Signierenden",
    "the SignedData has {} signers; exactly one is expected": (
        "SignedData hat {} Signierende; erwartet wird genau einer"
    ),
    "the CMS object is no ContentInfo": "das CMS-Objekt ist kein ContentInfo",
    "the CMS object is no SignedData": "das CMS-Objekt ist kein SignedData",
    "the ContentInfo has not exactly one content": "ContentInfo hat nicht genau einen Inhalt",
    "the signed content is not of the type id-data": "der signierte Inhalt ist nicht vom Typ id-data",
    "the SignedData does not hold its content (a detached signature)": (
        "SignedData enthält seinen Inhalt nicht (abgesetzte Signatur)"
    ),
    "the signed content is no octet string": "der signierte Inhalt ist kein OCTET STRING",
    "the SignedData has more than {} certificates": "SignedData hat mehr als {} Zertifikate",
    "the signer info has no signed attributes": "SignerInfo hat keine signierten Attribute",
    "the content type in the signed attributes is not id-data": (
        "der Inhaltstyp in den signierten Attributen ist nicht id-data"
    ),
    "a signed attribute is not a type and a set of values": "ein signiertes Attribut ist nicht Typ und Wertemenge",
    "a signed attribute occurs twice": "ein signiertes Attribut kommt doppelt vor",
    "a signed attribute that must be there is missing": "ein Pflichtattribut der Signatur fehlt",
    "a signed attribute has not exactly one value": "ein signiertes Attribut hat nicht genau einen Wert",
    "CMSAlgorithmProtection does not name a digest and a signature algorithm": (
        "CMSAlgorithmProtection nennt nicht Hash- und Signaturalgorithmus"
    ),
    "CMSAlgorithmProtection names other algorithms than the signer info": (
        "CMSAlgorithmProtection nennt andere Algorithmen als SignerInfo"
    ),
    "signingCertificateV2 names no certificate": "signingCertificateV2 nennt kein Zertifikat",
    "signingCertificateV2 has no hash": "signingCertificateV2 hat keinen Hash",
    "the signer identifier is neither issuer and serial nor a key identifier": (
        "der Signierende ist weder mit Aussteller und Seriennummer noch mit Schlüsselkennung angegeben"
    ),
    "the signing time is not written as RFC 5652 § 11.3 wants it": (
        "der Signaturzeitpunkt ist nicht nach RFC 5652 § 11.3 geschrieben"
    ),
    "the signing time does not exist": "den Signaturzeitpunkt gibt es nicht",
}

_ENCODING: Final = {
    "an ASN.1 element is cut off in its header": "ein ASN.1-Element ist im Kopf abgeschnitten",
    "an ASN.1 element is longer than what holds it": "ein ASN.1-Element ist länger als das umgebende",
    "an ASN.1 element has indefinite length": "ein ASN.1-Element hat unbestimmte Länge",
    "the length of an ASN.1 element cannot be read": "die Länge eines ASN.1-Elements ist nicht lesbar",
    "the tag of an ASN.1 element cannot be read": "das Tag eines ASN.1-Elements ist nicht lesbar",
    "an ASN.1 element is primitive where it must hold others": (
        "ein ASN.1-Element ist einfach, wo es andere enthalten muss"
    ),
    "a CMS object has {} octets; at most {} are read": "ein CMS-Objekt hat {} Oktette; gelesen werden höchstens {}",
    "an ASN.1 object is followed by other octets": "auf ein ASN.1-Objekt folgen weitere Oktette",
    "found the ASN.1 tag {} where {} was expected": "ASN.1-Tag {} gefunden, {} erwartet",
    "chunks of an octet string are nested too deep": "Stücke eines OCTET STRING sind zu tief geschachtelt",
    "a chunk of an octet string is no octet string": "ein Stück eines OCTET STRING ist kein OCTET STRING",
    "an INTEGER has no or too many octets": "ein INTEGER hat keine oder zu viele Oktette",
    "an ASN.1 object is nested too deep or has too many elements": (
        "ein ASN.1-Objekt ist zu tief geschachtelt oder hat zu viele Elemente"
    ),
    "a primitive ASN.1 element has indefinite length": "ein einfaches ASN.1-Element hat unbestimmte Länge",
    "an ASN.1 element of indefinite length has no end": "ein ASN.1-Element unbestimmter Länge hat kein Ende",
    "an ASN.1 object has too many elements": "ein ASN.1-Objekt hat zu viele Elemente",
    "a chunk of a string is of another type": "ein Stück einer Zeichenkette ist von anderem Typ",
}

_ENVELOPE: Final = {
    "the AuthEnvelopedData has too few fields": "AuthEnvelopedData hat zu wenige Felder",
    "the AuthEnvelopedData has no mac": "AuthEnvelopedData hat keinen mac",
    "the mac has {} octets instead of {}": "mac hat {} Oktette statt {}",
    "found EnvelopedData where AuthEnvelopedData was expected": "EnvelopedData gefunden, AuthEnvelopedData erwartet",
    "the CMS object is no AuthEnvelopedData": "das CMS-Objekt ist kein AuthEnvelopedData",
    "the envelope has {} recipients": "der Umschlag hat {} Empfänger",
    "a recipient is no KeyTransRecipientInfo; KIM knows no other kind, such as KeyAgree": (
        "ein Empfänger ist kein KeyTransRecipientInfo; KIM kennt keine andere Art, etwa KeyAgree"
    ),
    "a KeyTransRecipientInfo has not four fields": "ein KeyTransRecipientInfo hat nicht vier Felder",
    "the envelope has no encrypted content": "der Umschlag hat keinen verschlüsselten Inhalt",
    "the encrypted content is not of the type id-data": "der verschlüsselte Inhalt ist nicht vom Typ id-data",
    "the content is not encrypted with AES-256-GCM": "der Inhalt ist nicht mit AES-256-GCM verschlüsselt",
    "the parameters of AES-256-GCM lack the nonce": "in den Parametern von AES-256-GCM fehlt die Nonce",
    "the nonce has {} octets instead of {}": "die Nonce hat {} Oktette statt {}",
    "the ICV length is not {}": "die Länge des ICV ist nicht {}",
    "something else than unauthenticated attributes follows the mac": (
        "auf mac folgt anderes als nicht authentisierte Attribute"
    ),
    "the envelope has recipient-emails twice": "der Umschlag hat recipient-emails doppelt",
    "the certificate of a recipient cannot be read": "das Zertifikat eines Empfängers ist nicht lesbar",
    "the certificate of a recipient has no RSA key; EC recipients (TI ECIES) are not supported yet": (
        "das Zertifikat eines Empfängers hat keinen RSA-Schlüssel; EC (TI ECIES) wird noch nicht unterstützt"
    ),
    "recipient-emails has more than {} pairs": "recipient-emails hat mehr als {} Paare",
    "a pair of recipient-emails is not an address and a recipient identifier": (
        "ein Paar in recipient-emails ist nicht Adresse und Empfängerkennung"
    ),
    "the content type of the KIM mail is not application/pkcs7-mime": (
        "der Inhaltstyp der KIM-Nachricht ist nicht application/pkcs7-mime"
    ),
    "the envelope has no recipient-emails": "der Umschlag hat kein recipient-emails",
    "the envelope binds none of our certificates to this address": (
        "der Umschlag bindet keines unserer Zertifikate an diese Adresse"
    ),
    "the content key is transported by TI ECIES, which is not supported yet": (
        "der Inhaltsschlüssel ist mit TI ECIES verschlüsselt, was noch nicht unterstützt wird"
    ),
    "the content key is not transported by RSAES-OAEP with SHA-256 to an RSA key": (
        "der Inhaltsschlüssel ist nicht mit RSAES-OAEP und SHA-256 für einen RSA-Schlüssel verschlüsselt"
    ),
    "no KIM mail: it has no X-KOM-LE-Version": "keine KIM-Nachricht: X-KOM-LE-Version fehlt",
    "the mail is clear-signed; KIM signs opaquely": "die Nachricht ist abgesetzt signiert (multipart/signed)",
    "the decrypted content is not signed": "der entschlüsselte Inhalt ist nicht signiert",
    "the signed content is no mail": "der signierte Inhalt ist keine Nachricht",
    "outer and inner header differ in {}": "äußerer und innerer Kopf unterscheiden sich in {}",
    "recipient-emails of envelope and signature, or the recipients of the envelope, differ": (
        "recipient-emails von Umschlag und Signatur oder die Empfänger des Umschlags unterscheiden sich"
    ),
}

_MIME: Final = {
    "a part has an unknown Content-Transfer-Encoding": "ein Teil hat eine unbekannte Content-Transfer-Encoding",
    "a base64 body cannot be decoded": "ein Base64-Inhalt ist nicht dekodierbar",
    "a mail has {} octets; at most {} are read": "die Nachricht hat {} Oktette; gelesen werden höchstens {}",
    "parts of a mail are nested too deep": "Teile der Nachricht sind zu tief geschachtelt",
    "a multipart has no usable boundary": "ein multipart hat keine brauchbare Grenze (boundary)",
    "a mail has too many parts": "die Nachricht hat zu viele Teile",
    "a header block has more than {} octets": "ein Kopf hat mehr als {} Oktette",
    "a header block has more than {} fields": "ein Kopf hat mehr als {} Felder",
    "a header block has a line that is no field": "ein Kopf hat eine Zeile, die kein Feld ist",
    "an address field has more than {} characters": "ein Adressfeld hat mehr als {} Zeichen",
    "a field has more than {} parameters": "ein Feld hat mehr als {} Parameter",
    "{} .p7s found, exactly 1 expected": "{} .p7s gefunden, genau 1 erwartet",
}

_DECISION: Final = {
    "version": "Version",
    "unique": "Eindeutigkeit",
    "version {} may no longer be sent": "die Version {} darf nicht mehr gesendet werden",
    "this Dokumenten-ID was used for another content": "diese Dokumenten-ID trägt schon ein anderer Inhalt",
}

PHRASES: Final = Phrases({**_SIGNATURE, **_ENCODING, **_ENVELOPE, **_MIME, **_DECISION})


def in_german(reasons: str) -> str:
    """The German of one reason, or of several with "; " between them; what is none of ours stays."""
    whole = PHRASES.translate(reasons)
    return whole if whole != reasons else "; ".join(map(PHRASES.translate, reasons.split("; ")))
