"""The base of every settings class, and the few value types that settings share."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
)

from collectors.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ByteSize",
    "ColumnType",
    "Duration",
    "LocalPath",
    "Name",
    "OneOrMore",
    "Settings",
    "Share",
    "check_settings",
    "column_type",
    "descriptions",
    "meant",
    "parse_duration",
    "parse_share",
    "parse_size",
    "settings_class",
]

_SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_MANY = 10
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Settings(BaseModel):
    """Settings of a component: unknown keys are refused, the docstring under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in descriptions(cls).items():
            properties[cls.model_fields[name].alias or name]["description"] = text
        return schema


def descriptions(cls: type[BaseModel]) -> dict[str, str]:
    """Return field → the text under it. Sources are read only when somebody asks: no run does (pydantic's own option would)."""
    import inspect
    import textwrap

    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):  # made by a program
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                texts.pop(field.target.id, None)
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    texts[field.target.id] = inspect.cleandoc(str(below.value.value))
    return {name: texts[name] for name in cls.model_fields if name in texts}


def parse_size(value: Any) -> int:
    """Return bytes from `4096` or text like `256 MiB`, `1GB`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= 0:
            return value
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)?\s*", value)
        unit = (match[2] or "b").lower() if match else ""
        if match and unit in _SIZE_UNITS:
            return int(float(match[1]) * _SIZE_UNITS[unit])
    raise ValueError("expected a size such as 64 KiB, 256 MiB or 1 GB")


def parse_duration(value: Any) -> float:
    """Return seconds from `5`, `0.5` or text like `500ms`, `5s`, `1h30m`. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value >= 0:
            return float(value)
    elif isinstance(value, str):
        text = value.replace(" ", "")
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", text):
            return sum(
                float(number) * _SECONDS[unit]
                for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
            )
    raise ValueError("expected a duration such as 500ms, 5s, 10m or 1h30m")


def parse_share(value: Any) -> float:
    """Return the fraction that text like `1%` or `0.5 %` says; a number needs no percent sign only if it is 0.

    Raises ValueError.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(value)) if not isinstance(value, bool) else None
    if match and float(match[1]) <= 100 and (match[2] or not float(match[1])):
        return float(match[1]) / 100
    raise ValueError("expected a share such as 1% or 0.5%, or 0")


def column_type(name: str) -> pa.DataType:
    """Return the Arrow type of a name as settings use it: bool, int, float, string, binary, date, timestamp,
    decimal(precision, scale). Raises ValueError.
    """
    import pyarrow as pa

    types = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "string": pa.string(),
        "binary": pa.binary(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    text = name.strip().lower()
    if text in types:
        return types[text]
    decimal = re.fullmatch(r"decimal\(\s*(\d{1,3})\s*(?:,\s*(\d{1,3})\s*)?\)", text)
    if decimal:
        precision, scale = int(decimal[1]), int(decimal[2] or 0)
        if 1 <= precision <= 38 and scale <= precision:
            return pa.decimal128(precision, scale)
        raise ValueError(f"'{name}': expected decimal(precision, scale) with 1 to 38 digits")
    near = difflib.get_close_matches(text, types, n=1)
    hint = (
        f"did you mean '{near[0]}'?" if near else f"expected {', '.join(types)} or decimal(precision, scale)"
    )
    raise ValueError(f"unknown type '{name}': {hint}")


def meant(name: str, names: Iterable[str]) -> str:
    """Return, to go on with a sentence, which of the names that there are may have been meant; some where none is near."""
    there = sorted(names)
    near = difflib.get_close_matches(name, there, n=1)
    if near:
        return f", did you mean '{near[0]}'?"
    some = ", ".join(there[:_MANY]) + (", …" if len(there) > _MANY else "")
    return f"; there are: {some}" if there else "; there are none"


def _name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", value):
        return value
    raise ValueError("expected a name of letters, digits, '_', '-' and '.', at most 100 long")


def _column_type(value: str) -> str:
    column_type(value)
    return value


def _local_path(value: str, info: ValidationInfo) -> str:
    if not value or "\0" in value:
        raise ValueError("expected a path")
    folder = (info.context or {}).get("folder", "")
    try:
        return str(Path(folder) / Path(value).expanduser())
    except RuntimeError:
        user = value.partition("/")[0]
        raise ValueError(
            f"there is no home directory '{user}'; write './{user}' for a file of that name"
        ) from None


ByteSize = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]
"""Bytes, written as a number or with a unit: `64 KiB`, `256 MiB`, `1 GB`."""

Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str)]
"""Seconds, written as a number or with units: `500ms`, `5s`, `1h30m`."""

Name = Annotated[str, BeforeValidator(_name, json_schema_input_type=str)]
"""A name that is safe in file names, tables and logs."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Item = TypeVar("Item")
OneOrMore = Annotated[list[Item], BeforeValidator(_as_list, json_schema_input_type=list[str] | str)]
"""Several texts; one alone needs no brackets."""

Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str)]
"""A share of all records, written in percent: `1%`; kept as a fraction."""

ColumnType = Annotated[str, AfterValidator(_column_type)]
"""The name of a column's type, see `column_type`."""

LocalPath = Annotated[str, AfterValidator(_local_path)]
"""A path; a relative one is relative to the pipeline file (outside of one: to the working directory)."""


SettingsT = TypeVar("SettingsT", bound=Settings)


def check_settings(cls: type[SettingsT], values: object) -> SettingsT:
    """Return the settings in a dict. Raises ConfigurationError that names everything wrong with them, in one line."""
    if not isinstance(values, dict):
        raise ConfigurationError(f"expected the settings as a dict, got {type(values).__name__}")
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        known = list(cls.model_fields)
        problems = [_problem(found, known) for found in error.errors(include_url=False)]
        raise ConfigurationError("; ".join(problems)) from None


def _problem(found: Any, known: list[str]) -> str:
    name = ".".join(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        return f"there is no setting {name!r}, {hint}"
    message, value = str(found["msg"]), repr(found["input"])
    return (
        f"{name}: {message[:1].lower()}{message[1:]}, got {value if len(value) <= 60 else value[:60] + '…'}"
    )


def settings_class(cls: type, base: type) -> type[Settings] | None:
    """Return `X` of a class that is declared as `class C(base[X])`; None when it does not say."""
    for declared in getattr(cls, "__orig_bases__", ()):
        if get_origin(declared) is base:
            (argument,) = get_args(declared)
            if isinstance(argument, type) and issubclass(argument, Settings):
                return argument
    return None
