"""Routes of data source types."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headwater.connectors import registry
from headwater.connectors.spec import ConnectorSpec
from headwater.errors import NotFound
from headwater_api.guard import GuardedRoute, allow

router = APIRouter(route_class=GuardedRoute, tags=["data source types"])


class DataSourceTypeRead(BaseModel):
    """A type of data source, and what it asks for."""

    type: str = Field(examples=["s3"])
    title: str = Field(examples=["Amazon S3"])
    description: str
    config_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of `config`.")
    credentials_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of `credentials`.")
    capabilities: list[str] = Field(description="What its sources can do.", examples=[["files", "sync", "test"]])


class DataSourceTypes(BaseModel):
    """Every type that this deployment knows."""

    data: list[DataSourceTypeRead]


@router.get("/data-source-types", summary="List the types of data sources")
@allow("data_source:read")
def list_data_source_types() -> DataSourceTypes:
    """Every type that can be registered, with JSON Schemas of config and credentials: enough to draw a form."""
    return DataSourceTypes(data=[_render(spec) for spec in registry.specs().values()])


@router.get("/data-source-types/{type}", summary="Read a type of data source")
@allow("data_source:read")
def get_data_source_type(type: str) -> DataSourceTypeRead:  # noqa: A002 - the contract's name of the path parameter
    """One type of data source."""
    spec = registry.specs().get(type)
    if spec is None:
        raise NotFound
    return _render(spec)


def _render(spec: ConnectorSpec) -> DataSourceTypeRead:
    return DataSourceTypeRead(
        type=spec.type,
        title=spec.title,
        description=spec.description,
        config_schema=spec.config.model_json_schema(),
        credentials_schema=spec.credentials.model_json_schema(),
        capabilities=sorted(spec.capabilities),
    )
