"""Sets request fields by team, such as the account that an upstream bills."""

from collections.abc import Mapping

from tidegate.api import AddonConfig, Exchange, Plugin, hook


class Options(AddonConfig):
    """Per team, the fields to set and their values."""

    teams: Mapping[str, Mapping[str, str]]


class TeamHeader(Plugin[Options]):
    """A caller can't set the fields of another team: whatever comes in under them goes."""

    Config = Options

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        """Remove, then set: order matters."""
        headers = exchange.request.headers
        for fields in self.config.teams.values():
            for name in fields:
                headers.pop(name, None)
        team = exchange.principal.team if exchange.principal else ""
        for name, value in self.config.teams.get(team, {}).items():
            headers[name] = value
