"""Records exchanges as readable files, and answers from them: tests without the upstream."""

from .plugin import RecordCassette, RecordCassetteConfig

__all__ = ["RecordCassette", "RecordCassetteConfig"]
