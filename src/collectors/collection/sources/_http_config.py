"""Settings of the http source: requests, paging, logins, the incremental cursor, endpoints and their parents."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from collectors.collection.sources._http_marks import CursorType, parse_cursor
from collectors.settings import Duration, Name, Settings

__all__ = [
    "CursorPaging",
    "EndpointConfig",
    "IncrementalConfig",
    "LinkPaging",
    "NextUrlPaging",
    "OffsetPaging",
    "PagePaging",
    "Paging",
    "RequestConfig",
    "Scalar",
    "placeholders",
]

Scalar = str | int | float | bool
Count = Annotated[int, Field(ge=1)]


def placeholders(text: str) -> list[str]:
    """Return the fields that stand in braces in a text: `users/{id}/posts` has `id`."""
    return re.findall(r"\{([^{}]+)\}", text)


class PagePaging(Settings):
    """Pages have numbers."""

    type: Literal["page"]
    param: str = "page"
    """The parameter that has the number of the page."""
    start: int = 1
    """The number of the first page."""
    total: str | None = None
    """Path to the number of pages in the response; without it the first page that has no records ends the reading."""
    more: str | None = None
    """Path to what says whether there is another page: true or false."""


class OffsetPaging(Settings):
    """Pages begin at the n-th record."""

    type: Literal["offset"]
    limit: Count
    """So many records are asked for at once."""
    param: str = "offset"
    """The parameter that has the number of the first record."""
    limit_param: str = "limit"
    """The parameter that has the limit."""
    start: int = 0
    """The number of the very first record."""
    total: str | None = None
    """Path to the number of all records; without it the first page that has no records ends the reading."""
    more: str | None = None
    """Path to what says whether there is another page: true or false."""


class CursorPaging(Settings):
    """Each response says with which cursor to go on."""

    type: Literal["cursor"]
    param: str
    """The parameter that has the cursor."""
    field: str | None = None
    """Path to the cursor in the response, for example `meta.next_cursor`."""
    header: str | None = None
    """The header of the response that has the cursor; in place of `field`."""
    record: str | None = None
    """Path to the cursor in the last record of a page, for example `id`; in place of `field`."""
    more: str | None = None
    """Path to what says whether there is another page: true or false."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(each is not None for each in (self.field, self.header, self.record)) != 1:
            raise ValueError("expected one of `field`, `header` and `record`: where the cursor is")
        return self


class LinkPaging(Settings):
    """The header `Link` has the address of the next page (RFC 8288)."""

    type: Literal["link"]
    rel: str = "next"
    """The relation of that link."""


class NextUrlPaging(Settings):
    """The response has the address of the next page."""

    type: Literal["next_url"]
    field: str = "next"
    """Path to the address."""


Paging = Annotated[
    PagePaging | OffsetPaging | CursorPaging | LinkPaging | NextUrlPaging, Field(discriminator="type")
]


class IncrementalConfig(Settings):
    """Ask only for what is new since the last reading."""

    cursor: str
    """Path to the field of a record that grows: when it was changed, or a number that counts up."""
    param: str | None = None
    """The parameter that says from where on; without it all is asked for, and what was there before is left out."""
    type: CursorType = "time"
    """What the cursor is: `time` (ISO 8601), `unix` or `unix_ms` (since 1970), or `number`: an id that counts up, by which
    the API has to sort."""
    start: str | int | None = None
    """Where the very first reading begins; everything when left out."""
    lag: Duration | None = None
    """Ask again for the last part of what was read, for records that appear late: `1m` when left out, for numbers 0, in
    their unit. What comes again unchanged is left out."""
    format: str | None = None
    """How a time is written in the parameter, as for `strftime`, in UTC: `%Y-%m-%d`."""

    @field_validator("start", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, (date, datetime)) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start is not None:
            try:
                parse_cursor(self.type, self.start)
            except ValueError as error:
                raise ValueError(f"start: {error}") from None
        if self.format is not None and self.type != "time":
            raise ValueError("format: is for `type: time`")
        return self


class RequestConfig(Settings):
    """What is asked for, and where the records are in the responses."""

    method: Literal["GET", "POST"] | None = None
    """The method of the requests; when left out POST where there is a `body`, else GET."""
    params: dict[str, Scalar | list[Scalar]] = {}
    """The parameters of the query."""
    body: dict[str, Any] | None = None
    """What a POST sends, as JSON. The parameters of `paging` and `incremental` then go there; dots in their names lead
    into it."""
    records: str | None = None
    """Path to the records, for example `data.items`: a list, or one record. The whole response when left out."""
    paging: Paging | None = None
    """How to come to the next page; when left out there is one."""
    incremental: IncrementalConfig | None = None
    """Ask only for what is new since the last reading."""

    @model_validator(mode="after")
    def _check_body(self) -> Self:
        if self.body is not None and self.method == "GET":
            raise ValueError("body: set `method: POST`")
        return self


class EndpointConfig(RequestConfig):
    """One of several things to ask for; of `params` it has those of the source too."""

    name: Name
    """Its name; its records have it in `_endpoint`."""
    path: str
    """Where it is, behind the `url`. Of one with a `parent`, `{field}` is that field of each of the parent's records."""
    parent: Name | None = None
    """The endpoint, further up, for each of whose records this one is read."""
    include: dict[str, str] = {}
    """Columns that its records get from the parent's record: name to path."""
    selected: bool = True
    """Hand its records on; `false` for one that is there for its children only."""

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if any(sign in value for sign in ("://", "?", "#")) or {".", ".."} & set(value.split("/")):
            raise ValueError(
                "expected a path below `url`, for example `users/{id}/posts`; a query goes to `params`"
            )
        return value

    @property
    def fields(self) -> list[str]:
        """The fields of the parent's records that stand in its path and parameters."""
        texts = [self.path, *(each for each in self.params.values() if isinstance(each, str))]
        return list(dict.fromkeys(field for text in texts for field in placeholders(text)))

    @model_validator(mode="after")
    def _check_parent(self) -> Self:
        if self.parent is None and self.include:
            raise ValueError("include: set `parent`")
        if self.parent is None and placeholders(self.path):
            raise ValueError(f"path: {{{placeholders(self.path)[0]}}} is a field of a parent; set `parent`")
        if self.parent is not None and not self.fields:
            raise ValueError(
                f"path: expected a field of '{self.parent}' in braces, for example `users/{{id}}/posts`"
            )
        if self.parent is not None and self.incremental is not None and self.incremental.type == "number":
            raise ValueError(
                "incremental: with a `parent` the cursor must be a time; numbers of different parents do not "
                "say what was there when"
            )
        return self
