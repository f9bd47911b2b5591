"""Pages by keyset: an opaque, signed cursor says behind which row the next page begins.

A cursor holds the sort values of the last row that was given. It is bound to the organization, the projects that a key
is limited to, the path and every query parameter but the page's own; with any other it is refused. Whatever the sort, a
unique key breaks the ties, and rows without a value come last: a row that is there throughout, and whose sort values
stay, appears exactly once.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Integer, Row, Select, Subquery, and_, bindparam, false, literal, or_, tuple_
from sqlmodel import Session
from starlette.requests import Request

from headwater.errors import FieldError, InvalidRequest
from headwater_api import services
from headwater_api.actor import Actor

Entry = TypeVar("Entry")
Selection: TypeAlias = Select[*tuple[Any, ...]]

DEFAULT_PAGE_SIZE: Final = 25
LARGEST_PAGE_SIZE: Final = 200
_UNBOUND: Final = frozenset({"cursor", "page", "page_size"})
_MAC_BYTES: Final = 16
_LABEL: Final = b"headwater cursor 1"
_LONGEST_SORT: Final = 5


class CursorQuery(BaseModel):
    """What every list takes."""

    page_size: int = Field(default=DEFAULT_PAGE_SIZE, ge=1, le=LARGEST_PAGE_SIZE, description="Entries on a page.")
    cursor: str | None = Field(
        default=None,
        max_length=8192,
        description="`next_cursor` of the page before, with the same sort and filters.",
        # In the document only: what is no cursor of ours is refused as one, whatever it looks like.
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]+$"},
    )


class PageQuery(CursorQuery):
    """A list that can also be paged by number."""

    page: int | None = Field(default=None, ge=0, le=1_000_000, description="Page number from 0, instead of a cursor.")


class Page(BaseModel, Generic[Entry]):
    """One page of a list."""

    data: list[Entry]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last one.")
    has_more: bool


@dataclass(frozen=True)
class Cursors:
    """Writes and reads the cursors of one list. `binding` is what they are bound to."""

    key: bytes
    binding: bytes

    def write(self, values: Sequence[Any]) -> str:
        """The cursor behind the row with these sort values; moments and UUIDs become text."""
        payload = json.dumps(list(values), default=_as_text, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(payload) + payload).decode().rstrip("=")

    def read(self, text: str) -> list[Any]:
        """The values that `write` was given, as JSON has them. Raises `InvalidRequest` (`invalid_cursor`)."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _invalid_cursor() from None
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise _invalid_cursor()
        values: list[Any] = json.loads(payload)
        return values

    def _mac(self, payload: bytes) -> bytes:
        message = len(self.binding).to_bytes(4, "big") + self.binding + payload
        return hmac.digest(self.key, message, hashlib.sha256)[:_MAC_BYTES]


def cursors(request: Request) -> Cursors:
    """The cursors of the list that `request` asks for."""
    actor: Actor = request.state.actor
    bound = [pair for pair in sorted(request.query_params.multi_items()) if pair[0] not in _UNBOUND]
    limited_to = None if actor.project_ids is None else sorted(map(str, actor.project_ids))
    return Cursors(
        key=hmac.digest(services.of(request).pepper, _LABEL, hashlib.sha256),
        binding=json.dumps([str(actor.organization_id), request.url.path, bound, limited_to]).encode(),
    )


@dataclass(frozen=True)
class SortKey:
    """One field that a list can be sorted by: a column or an expression of columns.

    `parse` makes its value from the cursor's JSON.
    """

    column: Any
    parse: Callable[[Any], Any] = lambda value: value
    nullable: bool = False


@dataclass(frozen=True)
class Order:
    """One field of a sort, and its direction."""

    key: SortKey
    descending: bool

    def clause(self, column: Any = None) -> ColumnElement[Any]:
        """For ORDER BY, of its own column or one that holds its values. Rows without a value come last either way."""
        column = self.key.column if column is None else column
        ordered: ColumnElement[Any] = column.desc() if self.descending else column.asc()
        return ordered.nulls_last() if self.key.nullable else ordered

    def behind(self, value: Any) -> ColumnElement[bool]:
        """Rows that come after `value`."""
        column = self.key.column
        if value is None:
            return false()
        later: ColumnElement[bool] = column < value if self.descending else column > value
        return or_(later, column.is_(None)) if self.key.nullable else later

    def level(self, value: Any) -> ColumnElement[bool]:
        """Rows that tie with `value`."""
        tie: ColumnElement[bool] = self.key.column.is_(None) if value is None else self.key.column == value
        return tie


def parse_moment(value: str | None) -> datetime | None:
    """For `SortKey.parse` of a column of moments."""
    return None if value is None else datetime.fromisoformat(value)


def sort_orders(sort: str, keys: Mapping[str, SortKey], identity: Any) -> list[Order]:
    """`-updated_at,name` as orders, with the unique column `identity` last. Raises `InvalidRequest` naming `sort`."""
    names = sort.split(",")
    fields = [name.removeprefix("-") for name in names]
    if len(names) > _LONGEST_SORT or len(set(fields)) < len(fields) or not set(fields) <= keys.keys():
        detail = f"Use up to {_LONGEST_SORT} of these, each once, with a leading - to descend: {', '.join(keys)}."
        raise InvalidRequest(errors=[FieldError("sort", "invalid_sort", detail)])
    orders = [Order(keys[field], name.startswith("-")) for name, field in zip(names, fields, strict=True)]
    return [*orders, Order(SortKey(identity, UUID), orders[-1].descending)]


def fetch(
    session: Session,
    statement: Selection,
    *,
    orders: Sequence[Order],
    query: CursorQuery,
    cursors: Cursors,
    shown: Callable[[Subquery], Selection] | None = None,
) -> tuple[list[Row[*tuple[Any, ...]]], str | None]:
    """One page of `statement` in these orders, and the cursor of the next page if there is one.

    `shown` makes the rows from the page, where `statement` only finds them: what hangs on a row need not be joined to
    all that are sorted.
    """
    page = getattr(query, "page", None)
    if page is not None and query.cursor is not None:
        detail = "Give either `cursor` or `page`."
        raise InvalidRequest(errors=[FieldError("page", "page_with_cursor", detail)])
    if query.cursor is not None:
        statement = statement.where(_behind(orders, cursors.read(query.cursor)))
    if page is not None:
        statement = statement.offset(page * query.page_size)
    width = len(statement.column_descriptions)
    names = [f"sort_{number}" for number, _ in enumerate(orders)]
    statement = statement.add_columns(
        *(order.key.column.label(name) for order, name in zip(orders, names, strict=True))
    )
    statement = statement.order_by(*(order.clause() for order in orders)).limit(query.page_size + 1)
    if shown is not None:
        page = statement.limit(_stated(query.page_size + 1)).subquery("page")
        statement = shown(page)
        width = len(statement.column_descriptions)
        values = [page.c[name] for name in names]
        statement = statement.add_columns(*values).order_by(*map(Order.clause, orders, values))
    rows = list(session.execute(statement))
    if len(rows) <= query.page_size:
        return rows, None
    rows = rows[: query.page_size]
    return rows, cursors.write(rows[-1][width:])


def page_of(entries: list[Entry], next_cursor: str | None) -> Page[Entry]:
    """The answer of a list."""
    return Page(data=entries, next_cursor=next_cursor, has_more=next_cursor is not None)


def _stated(rows: int) -> ColumnElement[int]:
    """A number that stands in the text: a plan for any values has to know how few rows it joins to."""
    return bindparam(None, rows, Integer, literal_execute=True)


def _behind(orders: Sequence[Order], values: Sequence[Any]) -> ColumnElement[bool]:
    parsed = [order.key.parse(value) for order, value in zip(orders, values, strict=True)]
    if len({order.descending for order in orders}) == 1 and not any(order.key.nullable for order in orders):
        # One comparison of rows, which an index answers by itself.
        row = tuple_(*(order.key.column for order in orders))
        last = tuple_(*(literal(value, order.key.column.type) for order, value in zip(orders, parsed, strict=True)))
        return row < last if orders[0].descending else row > last
    alternatives: list[ColumnElement[bool]] = []
    ties: list[ColumnElement[bool]] = []
    for order, value in zip(orders, parsed, strict=True):
        alternatives.append(and_(*ties, order.behind(value)))
        ties.append(order.level(value))
    return or_(*alternatives)


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)


def _invalid_cursor() -> InvalidRequest:
    detail = "Give the `next_cursor` of the page before, with the same sort and filters."
    return InvalidRequest(errors=[FieldError("cursor", "invalid_cursor", detail)], code="invalid_cursor")
