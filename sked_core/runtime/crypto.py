"""What Sked takes from ``cryptography``, which is installed only where records are signed. Import it on demand."""

from __future__ import annotations

from sked_core.errors import SkedError

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:
    raise SkedError("signing needs the package cryptography", hint='pip install "sked-core[signing]"') from None

__all__ = ["Ed25519PrivateKey", "Ed25519PublicKey", "InvalidSignature", "serialization"]
