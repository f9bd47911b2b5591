"""Reading data sources: the select with all that is shown, its filters and sorts, and the rendering."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import Field
from sqlalchemy import ColumnElement, Row, Subquery, Text, case, cast, exists, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from headwater.access.rows import Member
from headwater.connectors import registry
from headwater.data_sources.rows import SEARCHED, DataSource, DataSourceTotals, DataSourceVersion
from headwater.errors import NotFound
from headwater.vault.rows import SealedCredential
from headwater_api import pagination
from headwater_api.data_sources.schemas import CredentialField, DataSourceRead, LastTest, Status
from headwater_api.pagination import Cursors, PageQuery, Selection, SortKey
from headwater_api.wire import MemberId, Person

_Creator = aliased(Member)
_Updater = aliased(Member)

_STATUS: Final = case(
    (
        col(DataSourceTotals.status_access_revision) == col(DataSource.access_revision),
        func.coalesce(col(DataSourceTotals.status), "untested"),
    ),
    else_="untested",
)

SORT_KEYS: Final = {
    "name": SortKey(col(DataSource.name).collate("C")),
    "type": SortKey(col(DataSource.type).collate("C")),
    "env": SortKey(col(DataSource.env).collate("C")),
    "created_at": SortKey(col(DataSource.created_at), pagination.parse_moment),
    "updated_at": SortKey(col(DataSource.updated_at), pagination.parse_moment),
    "last_sync_at": SortKey(col(DataSourceTotals.last_sync_at), pagination.parse_moment, nullable=True),
    "item_count": SortKey(col(DataSourceTotals.item_count)),
    "error_count": SortKey(col(DataSourceTotals.error_count)),
}
_OF_TOTALS: Final = frozenset({"last_sync_at", "item_count", "error_count"})


# With version, totals and people.
_SHOWN: Final = (
    select(DataSource, DataSourceVersion, DataSourceTotals, _Creator, _Updater)
    .join(
        DataSourceVersion,
        (col(DataSourceVersion.data_source_id) == DataSource.id)
        & (col(DataSourceVersion.version) == DataSource.version),
    )
    .join(DataSourceTotals, col(DataSourceTotals.data_source_id) == DataSource.id)
    .join(_Creator, col(DataSource.created_by) == _Creator.id, isouter=True)
    .join(_Updater, col(DataSource.updated_by) == _Updater.id, isouter=True)
)


class DataSourceQuery(PageQuery):
    """Which data sources, in which order. A filter that is given more than once takes any of its values."""

    sort: str = Field(default="-created_at", max_length=200, description=f"Fields: {', '.join(SORT_KEYS)}.")
    type: list[str] = Field(default_factory=list, max_length=50)
    env: list[str] = Field(default_factory=list, max_length=50)
    status: list[Status] = Field(default_factory=list, max_length=3)
    tag: list[str] = Field(default_factory=list, max_length=50, description="Given more than once, all must be there.")
    owner: list[MemberId] = Field(default_factory=list, max_length=50)
    is_active: bool | None = None
    q: str | None = Field(
        default=None, min_length=1, max_length=200, description="Part of the name or description, in any case."
    )

    def filters(self) -> list[ColumnElement[bool]]:
        """What a data source has to be."""
        found: list[ColumnElement[bool]] = [
            column.in_(values)
            for column, values in (
                (col(DataSource.type), self.type),
                (col(DataSource.env), self.env),
                (_STATUS, self.status),
                (col(DataSource.owner_id), self.owner),
            )
            if values
        ]
        if self.tag:
            found.append(col(DataSource.tags).op("@>")(cast(self.tag, ARRAY(Text))))
        if self.is_active is not None:
            found.append(col(DataSource.is_active).is_(self.is_active))
        if self.q is not None:
            # Lowered once, and not for each source.
            part = select(func.lower(self.q)).scalar_subquery()
            found.append(or_(*(func.strpos(column.collate("C"), part) > 0 for column in SEARCHED)))
        return found


def page(
    session: Session, organization_id: UUID, query: DataSourceQuery, *within: ColumnElement[bool], cursors: Cursors
) -> tuple[list[DataSourceRead], str | None]:
    """One page of an organization's live data sources, of those that are `within`, and the cursor of the next page."""
    filters = [*within, *query.filters()]
    if not filters and query.sort.removeprefix("-") in _OF_TOTALS:
        statement, identity = _by_totals(organization_id), col(DataSourceTotals.data_source_id)
    else:
        statement, identity = _found(organization_id, query).where(*filters), col(DataSource.id)
    orders = pagination.sort_orders(query.sort, SORT_KEYS, identity)
    rows, next_cursor = pagination.fetch(session, statement, orders=orders, query=query, cursors=cursors, shown=_shown)
    return render(session, rows), next_cursor


def _live(organization_id: UUID) -> Selection:
    return select(col(DataSource.id)).where(
        col(DataSource.organization_id) == organization_id, col(DataSource.deleted_at).is_(None)
    )


def _found(organization_id: UUID, query: DataSourceQuery) -> Selection:
    """The ids of an organization's live data sources, with what `query` filters and sorts them by."""
    statement = _live(organization_id)
    if not query.status and not any(name.removeprefix("-") in _OF_TOTALS for name in query.sort.split(",")):
        return statement
    return statement.join(DataSourceTotals, col(DataSourceTotals.data_source_id) == DataSource.id).where(
        col(DataSourceTotals.organization_id) == organization_id
    )


def _by_totals(organization_id: UUID) -> Selection:
    """The same ids, walked in an order of the totals.

    `offset 0` keeps it a look for each. As a join, a plan for any organization takes the two tables for independent,
    expects few rows, and reads both from end to end.
    """
    source = _live(organization_id).where(col(DataSource.id) == DataSourceTotals.data_source_id)
    source = source.correlate(DataSourceTotals).offset(literal_column("0"))
    return select(col(DataSourceTotals.data_source_id).label("id")).where(
        col(DataSourceTotals.organization_id) == organization_id, exists(source)
    )


def _shown(page: Subquery) -> Selection:
    """The data sources of a page of ids, as `render` takes them."""
    return _SHOWN.join(page, page.c.id == DataSource.id)


def get(
    session: Session, organization_id: UUID, *, project_id: UUID, data_source_id: UUID
) -> tuple[DataSourceRead, int]:
    """A data source and its revision. Raises `NotFound`."""
    statement = _SHOWN.where(
        col(DataSource.organization_id) == organization_id,
        col(DataSource.deleted_at).is_(None),
        col(DataSource.project_id) == project_id,
        col(DataSource.id) == data_source_id,
    )
    rows = session.execute(statement).all()
    if not rows:
        raise NotFound
    return render(session, rows)[0], rows[0][0].revision


def render(session: Session, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[DataSourceRead]:
    """Rows of `_SHOWN` as they go out; one more look for all their credentials."""
    sealed = _sealed_fields(session, [row[0] for row in rows])
    return [_render(row, sealed[row[0].id]) for row in rows]


def credentials(session: Session, source: DataSource) -> dict[str, CredentialField]:
    """Which secret fields of a source are set."""
    return _credentials(source.type, _sealed_fields(session, [source])[source.id])


def _render(row: Row[*tuple[Any, ...]], sealed: Mapping[str, CredentialField]) -> DataSourceRead:
    source, version, totals, creator, updater = row[:5]
    judged = totals.status is not None and totals.status_access_revision == source.access_revision
    verdict = {
        "status": totals.status if judged else "untested",
        "status_reason": totals.status_reason if judged else None,
        "last_test": None if totals.last_test_at is None else _last_test(totals),
    }
    people = {
        "created_by": None if creator is None else Person.model_validate(creator, from_attributes=True),
        "updated_by": None if updater is None else Person.model_validate(updater, from_attributes=True),
    }
    return DataSourceRead(
        **source.model_dump(include=_OWN),
        **version.model_dump(include={"config", "validation", "reading"}),
        **totals.model_dump(include={"item_count", "error_count", "last_sync_at"}),
        credentials=_credentials(source.type, sealed),
        **verdict,
        **people,
    )


def _last_test(totals: DataSourceTotals) -> LastTest:
    values = {"success": totals.last_test_success, "job_id": totals.last_test_job_id, "at": totals.last_test_at}
    return LastTest.model_validate(values)


_OWN: Final = DataSource.model_fields.keys() & DataSourceRead.model_fields.keys() - {"created_by", "updated_by"}


def _credentials(type_: str, sealed: Mapping[str, CredentialField]) -> dict[str, CredentialField]:
    spec = registry.specs().get(type_)
    names: Iterable[str] = sealed if spec is None else spec.credentials.model_fields
    return {name: sealed.get(name) or CredentialField(set=False, updated_at=None) for name in names}


def _sealed_fields(session: Session, sources: Sequence[DataSource]) -> Mapping[UUID, dict[str, CredentialField]]:
    """The secret fields of each source that are set. The ciphertext is not for this process to read."""
    by_source: defaultdict[UUID, dict[str, CredentialField]] = defaultdict(dict)
    statement = select(
        col(SealedCredential.subject_id),
        col(SealedCredential.field),
        col(SealedCredential.created_at),
        col(SealedCredential.reference),
    ).where(
        col(SealedCredential.subject_id).in_([source.id for source in sources]),
        col(SealedCredential.organization_id).in_({source.organization_id for source in sources}),
    )
    for source_id, field, created_at, reference in session.execute(statement):
        by_source[source_id][field] = CredentialField(set=True, updated_at=created_at, reference=reference)
    return by_source
