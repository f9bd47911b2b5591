"""Projects on the wire."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from headwater_api.wire import Moment, Person, ProjectId

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Description = Annotated[str, StringConstraints(max_length=2000)]


class ProjectCreate(BaseModel):
    """A new project."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Marketing"}]})

    name: Name = Field(description="Unique in the organization.")
    description: Description = ""


class ProjectUpdate(BaseModel):
    """What to change; what is not sent stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"description": "Campaign data"}]})

    name: Name = Field(default_factory=str, description="Unique in the organization.")
    description: Description | None = Field(default=None, description="`null` empties it.")

    def changes(self) -> dict[str, str]:
        """The fields that were sent."""
        sent = self.model_dump(exclude_unset=True)
        return {name: "" if value is None else value for name, value in sent.items()}


class ProjectRead(BaseModel):
    """A folder of data sources."""

    id: ProjectId
    name: str
    description: str
    created_by: Person | None
    updated_by: Person | None
    created_at: Moment
    updated_at: Moment
