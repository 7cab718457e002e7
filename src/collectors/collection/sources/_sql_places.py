"""What the settings of the sql source say about the place: a URL, a table's name, a query."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import sqlglot
from pydantic import SecretStr, ValidationInfo
from sqlglot import exp

from collectors.collection.sources._sql_database import Database, near
from collectors.errors import ConfigurationError

__all__ = ["check_query", "check_table", "check_url", "connect", "dialect_of"]

_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_EXPECTED = "expected sqlite:///path, postgresql://user:password@host:port/database or mysql://user:password@host:port/database"
_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_WRITES = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Create,
    exp.Drop,
    exp.Alter,
    exp.Command,
    exp.Into,
    exp.Lock,
)
_ANSI = re.compile("\x1b\\[[0-9;]*m")
_MARKS = (exp.Placeholder, exp.Parameter)


def dialect_of(url: SecretStr) -> str:
    """Return sqlite, postgres or mysql. Raises ValueError."""
    scheme = url.get_secret_value().partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise ValueError(_EXPECTED)
    return _SCHEMES[scheme]


def check_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    """Return the URL, a relative path in it as one from the pipeline's folder. Raises ValueError, without the URL in it."""
    dialect, text = dialect_of(url), url.get_secret_value()
    if dialect == "sqlite":
        path = re.fullmatch(r"sqlite:///([^\0]+)", text, re.IGNORECASE)
        if path is None:
            raise ValueError("expected sqlite:///path, for example sqlite:///out/shop.db")
        folder = (info.context or {}).get("folder", "")
        return SecretStr(f"sqlite:///{Path(folder) / Path(path[1])}")
    try:
        place = urlsplit(text)
        options = {
            key: values[-1] for key, values in parse_qs(place.query, strict_parsing=bool(place.query)).items()
        }
        known = bool(place.netloc) and (place.port or 1) > 0
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if not known:
        raise ValueError(_EXPECTED)
    if dialect == "mysql":
        if unknown := set(options) - {"ssl-mode", "ssl-ca"}:
            raise ValueError(f"no parameter '{min(unknown)}' is known here; there are: ssl-mode, ssl-ca")
        if options.get("ssl-mode", "preferred").lower() not in _MODES:
            raise ValueError(f"ssl-mode: expected one of {', '.join(_MODES)}")
    return url


def check_table(name: str) -> list[str]:
    """Return the parts of `table` or `schema.table`. Raises ValueError."""
    parts = name.split(".")
    if len(parts) > 2 or not all(parts) or any("\0" in part for part in parts):
        raise ValueError("expected a name as in orders or sales.orders")
    return parts


def check_query(query: str, dialect: str) -> str:
    """Return a query that is one SELECT and writes nothing. Raises ValueError."""
    try:
        statements = [each for each in sqlglot.parse(query, dialect=dialect) if each is not None]
    except sqlglot.errors.SqlglotError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"cannot be read: {_ANSI.sub('', first)}") from None
    if len(statements) != 1:
        raise ValueError(f"expected one SELECT, got {len(statements)} statements")
    (statement,) = statements
    if not isinstance(statement, exp.Query):
        raise ValueError(f"expected a SELECT, got {statement.key.upper()}")
    found = next(statement.find_all(*_WRITES), None)
    if found is not None:
        raise ValueError(f"expected a SELECT that only reads, but there is {found.key.upper()} in it")
    if next(statement.find_all(*_MARKS), None) is not None:
        raise ValueError("a placeholder has nothing to stand for; write the value")
    return query.rstrip().rstrip(";")


def connect(url: SecretStr, timeout: float) -> Database:
    """Return a new connection. Raises ConfigurationError, also where the driver is not installed, and TransientError."""
    dialect, text = dialect_of(url), url.get_secret_value()
    extra = {"postgres": "postgres", "mysql": "mysql"}.get(dialect)
    try:
        if dialect == "postgres":
            from collectors.collection.sources._sql_postgres import Postgres

            return Postgres(text, timeout)
        if dialect == "mysql":
            from collectors.collection.sources._sql_mysql import MySql

            return MySql(text, timeout)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"url: a {text.partition(':')[0]} database needs '{error.name}': pip install 'collectors-io[{extra}]'"
        ) from error
    from collectors.collection.sources._sql_sqlite import Sqlite

    return Sqlite(text.removeprefix("sqlite:///"))


def missing_table(database: Database, name: str) -> ConfigurationError:
    """Return what to raise for a table that is not there."""
    return ConfigurationError(f"table: there is no table '{name}'; {near(name, database.tables())}")
