"""Encryption at rest under the deployment's secret."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class SealedValueError(ValueError):
    """A sealed value was not made under this secret for this context, or was changed."""


def new_secret() -> str:
    """Return a new deployment secret: 256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


class Vault:
    """Seals small values with AES-256-GCM; bound to a context, one can't be moved to another's place.

    Seals under one secret, and opens what was sealed under that or a previous one.
    """

    def __init__(self, secret: str, *, previous: str | None = None) -> None:
        secrets_in_order = [secret] if previous is None else [secret, previous]
        self._aeads = [AESGCM(_derive(each, b"latchstring/encryption/v1", 32)) for each in secrets_in_order]
        self.secret_id = _derive(secret, b"latchstring/secret-id/v1", 8).hex()
        """Names the secret without revealing it, so that a row can say which one sealed it."""

    def seal(self, plaintext: bytes, *, context: str) -> bytes:
        """Return nonce and ciphertext of `plaintext`, readable again only with the same `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aeads[0].encrypt(nonce, plaintext, context.encode())

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        """Return what was sealed.

        Raises:
            SealedValueError: another secret, another context, or a changed value.
        """
        for aead in self._aeads:
            try:
                return aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
            except (InvalidTag, ValueError):
                continue
        raise SealedValueError("the value was not sealed under this secret for this context")


def _derive(secret: str, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(secret.encode())
