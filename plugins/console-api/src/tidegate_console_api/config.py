"""The options."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Self

from pydantic import Field, model_validator

from tidegate.api import AddonConfig, ByteSize, Duration, Secret
from tidegate.api.config import Model


class Tls(Model):
    """Files in PEM, relative to the configuration."""

    cert: str
    key: str


class ConsoleApiConfig(AddonConfig):
    """The options.

    Attributes:
        listen: host and port; port 0: a free one.
        tls: what the console proves itself with.
        plain_http: serve on an address that others reach though there is no `tls`, because
            something before it encrypts.
        hosts: names that the console is called by, besides `localhost` and addresses.
        admin: name of the first administrator, who is made where there is no user yet.
        admin_password: his password; "" or none: one is made and shown once.
        idle: without a request for so long, a session ends.
        longest: a session ends at the latest then.
        body_limit: of a request.
    """

    listen: str = Field(default="127.0.0.1:8090", pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):\d+$")
    tls: Tls | None = None
    plain_http: bool = False
    hosts: tuple[str, ...] = ()
    admin: str = Field(default="admin", pattern=r"^[A-Za-z0-9._+@-]{1,254}$")
    admin_password: Secret | None = None
    idle: Duration = Field(default=3600.0, ge=60.0)
    longest: Duration = Field(default=43200.0, ge=60.0, le=30 * 86400.0)
    body_limit: ByteSize = Field(default=8 * 1024 * 1024, ge=1024)

    @property
    def host(self) -> str:
        """Of `listen`."""
        return self.listen.rpartition(":")[0].strip("[]")

    @model_validator(mode="after")
    def _private(self) -> Self:
        if self.tls is None and not self.plain_http and not is_loopback(self.host):
            raise ValueError(
                "others reach this address: give `tls`, or say `plain_http = true` where something"
                " before it encrypts"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
