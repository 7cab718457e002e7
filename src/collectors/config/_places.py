"""Where in a YAML text each character of a scalar stands, whatever its quoting."""

from __future__ import annotations

import re

from collectors.config._yaml import Scalar

__all__ = ["character_place"]

Origins = list[tuple[str, int]]

_FOLD = re.compile(r"[ \t]*(\r?\n[ \t]*)+")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r?\n[ \t]*|.)", re.DOTALL)


def character_place(source: str, scalar: Scalar, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of the character at `offset` of the scalar's content.

    Falls back to the place of the scalar itself where the content cannot be retraced.
    """
    raw = source[scalar.start : scalar.end]
    origins = _block(raw, scalar) if scalar.style in {"|", ">"} else _flow(raw, scalar.style)
    retraced = "".join(text for text, _ in origins)
    if not retraced.startswith(scalar.text.rstrip("\n")) or not origins:
        return scalar.line, scalar.column
    places = [place for text, place in origins for _ in text]
    place = places[offset] if offset < len(places) else places[-1] + 1
    before = source[: scalar.start + place]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _flow(raw: str, style: str) -> Origins:
    """Retrace a plain or quoted scalar: quotes, escapes, and lines that are folded into one."""
    origins: Origins = []
    place, end = (1, len(raw) - 1) if style else (0, len(raw))
    while place < end:
        if style == '"' and raw[place] == "\\" and (match := _ESCAPE.match(raw, place)):
            folded = match[1][0] in "\r\n"
            # What the escape stands for does not matter, only that it is one character; "" for a joined line.
            origins.append(("" if folded else _unescape(match[1]), place))
            place = match.end()
        elif style == "'" and raw.startswith("''", place):
            origins.append(("'", place))
            place += 2
        elif match := _FOLD.match(raw, place):
            breaks = match[0].count("\n")
            origins.append((" " if breaks == 1 else "\n" * (breaks - 1), place))
            place = match.end()
        else:
            origins.append((raw[place], place))
            place += 1
    return origins


def _unescape(code: str) -> str:
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    simple = {
        "0": "\0",
        "a": "\a",
        "b": "\b",
        "t": "\t",
        "\t": "\t",
        "n": "\n",
        "v": "\v",
        "f": "\f",
        "r": "\r",
    }
    return (simple | {"e": "\x1b", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}).get(code, code)


def _block(raw: str, scalar: Scalar) -> Origins:
    """Retrace a literal or folded block: the header line goes, the indentation goes, `>` joins lines."""
    lines = raw.splitlines(keepends=True)[1:]
    place = raw.find("\n") + 1
    indent = next((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), 0)
    contents = [line.rstrip("\r\n")[indent:] for line in lines]
    ends = _folded_ends(contents) if scalar.style == ">" else ["\n"] * len(lines)
    origins: Origins = []
    for line, content, end in zip(lines, contents, ends, strict=True):
        origins += [(character, place + indent + column) for column, character in enumerate(content)]
        origins.append((end, place + len(line) - 1))
        place += len(line)
    return origins


def _folded_ends(contents: list[str]) -> list[str]:
    """Return what the end of each line becomes: a space, nothing before an empty line, or itself."""
    ends: list[str] = []
    after = ""
    for number in range(len(contents) - 1, -1, -1):
        here = contents[number]
        following = contents[number + 1] if number + 1 < len(contents) else ""
        if not here or not after or here[0] in " \t" or after[0] in " \t":
            ends.append("\n")
        else:
            ends.append(" " if following else "")
        after = here or after
    return ends[::-1]
