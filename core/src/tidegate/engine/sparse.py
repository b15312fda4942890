"""A logger for what others can cause at will: a few lines a second, and how many were left out."""

from __future__ import annotations

import logging
import time
from typing import Final

PER_SECOND: Final = 5.0
BURST: Final = 20.0


class Sparse:
    """Wraps a logger. What is left out is told with the next line that is not."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._left = BURST
        self._then = time.monotonic()
        self._omitted = 0

    def log(self, level: int, text: str, *args: object) -> None:
        """Log a line, unless there have been too many."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._then) * PER_SECOND)
        self._then = now
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        if self._omitted:
            text += f" (and {self._omitted} lines that were left out)"
            self._omitted = 0
        self._logger.log(level, text, *args)

    def warning(self, text: str, *args: object) -> None:
        """Log a warning."""
        self.log(logging.WARNING, text, *args)
