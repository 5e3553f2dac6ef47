"""The server's log: one JSON object a line on standard error, with `time`, `level`, `event` and its fields."""

import json
import logging
import time
import traceback
from typing import Any

LEVELS = ("debug", "info", "warning", "error")

_log = logging.getLogger("rt2_jax.serve")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, whoever wrote it."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(fields, default=str)


def log_as_json(level: str) -> None:
    """Has this process log in JSON from `level` on: our events, and what aiohttp and asyncio tell."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("rt2_jax.serve", "aiohttp", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(getattr(logging, level.upper()) if name == "rt2_jax.serve" else logging.WARNING)


def tell(event: str, level: str = "info", **fields: Any) -> None:
    """Logs an event, a word of its own, with its fields."""
    _log.log(getattr(logging, level.upper()), event, extra={"fields": fields})


def tell_fault(event: str, error: BaseException, **fields: Any) -> None:
    """Logs an error of ours with its traceback, which stays here."""
    _log.error(event, exc_info=error, extra={"fields": {"error": type(error).__name__} | fields})
