"""How configs and credentials, which only their spec can check, look in the OpenAPI document."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Union

from pydantic import Discriminator, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from headwater.connectors import registry


@dataclass(frozen=True)
class DocumentedAs:
    """`Annotated[dict[str, Any], DocumentedAs(T)]`: taken as any map, shown with the schema of `T`."""

    type: Any

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self.type).core_schema)


def _configs() -> Any:
    classes = tuple(spec.config for spec in registry.specs().values())
    # pydantic wants two members at least for a discriminator.
    return Annotated[Union[classes], Discriminator("type")] if len(classes) > 1 else classes[0]  # noqa: UP007


def _credentials() -> Any:
    return Union[tuple(spec.credentials for spec in registry.specs().values())]  # noqa: UP007


ANY_CONFIG: Final = DocumentedAs(_configs())
ANY_CREDENTIALS: Final = DocumentedAs(_credentials())
