"""Client certificates (mutual TLS): who is calling."""

from .plugin import AuthMtls, AuthMtlsConfig, CertificateOf, Names

__all__ = ["AuthMtls", "AuthMtlsConfig", "CertificateOf", "Names"]
