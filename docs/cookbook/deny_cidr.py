"""Denies callers by the network that they call from."""

from ipaddress import IPv4Network, IPv6Network, ip_address

from tidegate.api import AddonConfig, Denial, ErrorCode, Exchange, Plugin, hook

type Network = IPv4Network | IPv6Network
DENIED = ErrorCode("address_denied", 403, "Calls from this address are not accepted.")


class Options(AddonConfig):
    """Networks in CIDR form. `allow` wins: a hole in what `deny` names."""

    deny: tuple[Network, ...]
    allow: tuple[Network, ...] = ()


class DenyCidr(Plugin[Options]):
    """Not an `authenticate` hook: one that is listed makes its scope ask for credentials."""

    Config = Options
    codes = (DENIED,)

    @hook
    def authorize(self, exchange: Exchange) -> Denial | None:
        """`client.address` is what a trusted proxy reported, else the peer's own."""
        address = ip_address(exchange.client.address)
        mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:192.0.2.1 is 192.0.2.1
        address = mapped or address
        denied = any(address in network for network in self.config.deny)
        if denied and not any(address in network for network in self.config.allow):
            return DENIED.denial()
        return None
