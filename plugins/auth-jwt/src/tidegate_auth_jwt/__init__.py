"""JSON Web Tokens of issuers: who is calling."""

from .config import AuthJwtConfig, Claims, IssuerConfig
from .plugin import AuthJwt

__all__ = ["AuthJwt", "AuthJwtConfig", "Claims", "IssuerConfig"]
