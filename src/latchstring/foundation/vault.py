"""Encryption of stored values under the deployment's secret."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class SealedValueError(ValueError):
    """The value was not sealed under this secret and for this context, or it was changed."""


def new_secret() -> str:
    """Return a new deployment secret: 256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


class Vault:
    """Seals small values with AES-256-GCM, bound to a context, so that a value can't be moved to another row.

    Seals under one secret, and unseals values of that secret or a previous one.
    """

    def __init__(self, secret: str, *, previous: str | None = None) -> None:
        secrets_in_order = [secret] if previous is None else [secret, previous]
        self._aeads = [AESGCM(_derive(each, b"latchstring/encryption/v1", 32)) for each in secrets_in_order]
        self.secret_id = _derive(secret, b"latchstring/secret-id/v1", 8).hex()
        """Identifies the secret without revealing it, so that a row can name the secret that sealed it."""

    def seal(self, plaintext: bytes, *, context: str) -> bytes:
        """Return nonce and ciphertext of `plaintext`; `unseal` needs the same `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aeads[0].encrypt(nonce, plaintext, context.encode())

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        """Return the plaintext of a sealed value.

        Raises:
            SealedValueError: sealed under another secret or for another context, or changed since.
        """
        for aead in self._aeads:
            try:
                return aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
            except (InvalidTag, ValueError):
                continue
        raise SealedValueError("the value was not sealed under this secret for this context")


def _derive(secret: str, purpose: bytes, length: int) -> bytes:
    # A key for each purpose (RFC 5869, `info`): the secret's id, stored in the clear, reveals no encryption key.
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(secret.encode())
