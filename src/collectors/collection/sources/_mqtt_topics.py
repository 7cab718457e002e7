"""Topic filters whose levels may have names: `sensors/{site}/+/{device}` subscribes to `sensors/+/+/+`."""

from __future__ import annotations

from msgspec import Struct

from collectors.collection.sources._mqtt_packets import MOST_BYTES

__all__ = ["Filter", "parse_filter"]

_SHARE = "$share/"


class Filter(Struct, frozen=True):
    """A filter as the broker gets it, and its levels, with what those are named that have a name."""

    text: str
    levels: tuple[str, ...]
    names: tuple[tuple[int, str], ...]

    @property
    def shared(self) -> bool:
        """Whether the messages are shared with other subscribers of the same group."""
        return self.text.startswith(_SHARE)

    def named(self, topic: str) -> dict[str, str] | None:
        """Return the levels of a topic that have a name; None when it does not match the filter."""
        levels = topic.split("/")
        if self.levels[-1] == "#":
            if len(levels) < len(self.levels) - 1:
                return None
        elif len(levels) != len(self.levels):
            return None
        for wanted, level in zip(self.levels, levels, strict=False):
            if wanted == "#":
                break
            if wanted not in {"+", level}:
                return None
        return {name: levels[place] for place, name in self.names}


def parse_filter(text: str) -> Filter:
    """Return the filter. Raises ValueError that says what is wrong with it."""
    group, rest = "", text
    if text.startswith(_SHARE):
        name, slash, rest = text.removeprefix(_SHARE).partition("/")
        if not name or not slash or any(sign in name for sign in "+#{"):
            raise ValueError(
                f"{text!r}: expected $share/GROUP/FILTER, for example $share/collectors/sensors/#"
            )
        group = f"{_SHARE}{name}/"
    if not rest or "\0" in rest or len(text.encode()) > MOST_BYTES:
        raise ValueError(f"{text[:60]!r}: expected a topic filter, for example sensors/+/temperature")
    levels = rest.split("/")
    names: list[tuple[int, str]] = []
    for place, level in enumerate(levels):
        if level == "#" and place < len(levels) - 1:
            raise ValueError(f"{text!r}: # stands for all levels that follow, so it can only be the last one")
        if level.startswith("{") and level.endswith("}") and level[1:-1].isidentifier():
            names.append((place, level[1:-1]))
            levels[place] = "+"
        elif level not in {"+", "#"} and any(sign in level for sign in "+#{}"):
            raise ValueError(
                f"{text!r}: +, # and a name in braces take a whole level between slashes, got {level!r}"
            )
    if len({name for _, name in names}) < len(names):
        raise ValueError(f"{text!r}: two levels have the same name")
    return Filter(group + "/".join(levels), tuple(levels), tuple(names))
