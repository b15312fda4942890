"""Closes an API outside business hours, by the clock of the business."""

from datetime import UTC, datetime, time
from typing import Literal
from zoneinfo import ZoneInfo

from tidegate.api import AddonConfig, Denial, ErrorCode, Exchange, Plugin, hook

type Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOSED = ErrorCode("closed", 403, "Closed outside business hours.")


class Options(AddonConfig):
    """`opens` and `closes` are times of `zone`; a day is one that the business works on."""

    zone: ZoneInfo = ZoneInfo("UTC")
    days: tuple[Day, ...] = DAYS[:5]
    opens: time = time(8)
    closes: time = time(18)


class BusinessHours(Plugin[Options]):
    """Denies what comes at another time."""

    Config = Options
    codes = (CLOSED,)

    @hook
    def authorize(self, exchange: Exchange) -> Denial | None:
        """The time is the exchange's: replayed traffic is judged as it was then."""
        here = datetime.fromtimestamp(exchange.now, UTC).astimezone(self.config.zone)
        works = DAYS[here.weekday()] in self.config.days
        if works and self.config.opens <= here.time() < self.config.closes:
            return None
        return CLOSED.denial(f"Open from {self.config.opens:%H:%M} ({self.config.zone}).")
