"""A JetStream stream and what is read of it: whether it is still the one of the position, and from which consumer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.models import Position
from collectors.nats_client import Connection

__all__ = [
    "Consumer",
    "Start",
    "StreamState",
    "add_durable",
    "add_reader",
    "begin_at",
    "find_durable",
    "look",
]

Start = Literal["all", "new"] | int | datetime
_NANO = 10**9
_INACTIVE_SECONDS = 300
_MOST_PENDING = 10_000
_TRY_LATER = {408, 423, 429, 500, 503, 504}


class StreamState(Struct, frozen=True):
    """A stream at the moment."""

    name: str
    created: str
    first: int
    last: int
    retention: str
    replaces: bool
    """Whether a message takes the place of an older one by design (a limit for each subject)."""

    def check(self, since: Position | None) -> None:
        """Raise FatalError unless the position is one of this stream."""
        if since is None:
            return
        advice = "give the source a new `id` to read it from `start` on"
        if since["stream"] != self.created:
            raise FatalError(
                f"stream '{self.name}' is not the one that was read before: that one was created at {since['stream']}, this "
                f"one at {self.created}; what it holds was never read. To read it, {advice}"
            )
        if since["seq"] > self.last:
            raise FatalError(
                f"stream '{self.name}' ends at message {self.last:,}, but message {since['seq']:,} was read before: the "
                f"server has lost messages, and new ones will have numbers that were read already; {advice}"
            )


class Consumer(Struct, frozen=True):
    """A durable consumer at the moment."""

    name: str
    floor: int
    """Everything up to here is acknowledged."""
    delivered: int


async def look(connection: Connection, name: str) -> StreamState:
    """Return the state of a stream. Raises FatalError when there is none."""
    answer = await connection.api(f"STREAM.INFO.{name}")
    _check(answer, f"stream '{name}'")
    config, state = answer["config"], answer["state"]
    return StreamState(
        name,
        answer["created"],
        state["first_seq"],
        state["last_seq"],
        config.get("retention", "limits"),
        config.get("max_msgs_per_subject", -1) > 0,
    )


async def add_reader(connection: Connection, stream: str, subjects: list[str], begin: dict[str, Any]) -> str:
    """Return the name of a new consumer without acknowledgements, which the server forgets when it is not used."""
    config = {
        **begin,
        **_filter(subjects),
        "ack_policy": "none",
        "inactive_threshold": _INACTIVE_SECONDS * _NANO,
        "mem_storage": True,
        "num_replicas": 1,
    }
    answer = await connection.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    _check(answer, f"stream '{stream}'")
    return str(answer["name"])


async def find_durable(
    connection: Connection, stream: str, name: str, subjects: list[str]
) -> Consumer | None:
    """Return the durable consumer, None when there is none. Raises FatalError when it is not one to pull from."""
    answer = await connection.api(f"CONSUMER.INFO.{stream}.{name}")
    if answer.get("error", {}).get("code") == 404:
        return None
    _check(answer, f"durable '{name}'")
    config = answer["config"]
    wrong = None
    has = config.get("filter_subjects") or (
        [config["filter_subject"]] if config.get("filter_subject") else []
    )
    if config.get("deliver_subject"):
        wrong = "pushes its messages; expected a pull consumer"
    elif config.get("ack_policy") == "none":
        wrong = "has no acknowledgements (ack_policy none); expected explicit ones"
    elif subjects and sorted(has) != sorted(subjects):
        wrong = f"is for the subjects {', '.join(has) or '>'}, not for {', '.join(subjects)}"
    if wrong is not None:
        raise FatalError(
            f"the durable consumer '{name}' of stream '{stream}' {wrong}; name another in `durable`"
        )
    return Consumer(name, answer["ack_floor"]["stream_seq"], answer["delivered"]["stream_seq"])


async def add_durable(
    connection: Connection, stream: str, name: str, subjects: list[str], begin: dict[str, Any]
) -> Consumer:
    """Return a new durable consumer."""
    config = {
        **begin,
        **_filter(subjects),
        "durable_name": name,
        "ack_policy": "explicit",
        "max_ack_pending": _MOST_PENDING,
    }
    answer = await connection.api(
        f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}
    )
    _check(answer, f"durable '{name}'")
    return Consumer(name, 0, 0)


def begin_at(start: Start) -> dict[str, Any]:
    """Return where a consumer is to begin, as JetStream has it."""
    if isinstance(start, int):
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    if isinstance(start, datetime):
        time = start.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return {"deliver_policy": "by_start_time", "opt_start_time": time}
    return {"deliver_policy": start}


def _filter(subjects: list[str]) -> dict[str, Any]:
    if len(subjects) == 1:  # servers before 2.10 know no other
        return {"filter_subject": subjects[0]}
    return {"filter_subjects": subjects} if subjects else {}


def _check(answer: dict[str, Any], what: str) -> None:
    """Raise the error that an answer of JetStream is, if it is one."""
    error = answer.get("error")
    if error is None:
        return
    code, said = int(error.get("code", 0)), error.get("description", "unknown error")
    kind: type[CollectorsError] = TransientError if code in _TRY_LATER else FatalError
    hint = "; is its name right, and is it in this account?" if code == 404 else ""
    raise kind(f"{what}: {said}{hint}")
