"""Routes that are asked all day, found by one look.

FastAPI tries the routes of a router one after another, and those of the router that has it once more.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound, compile_path
from starlette.types import Receive, Scope, Send

from headwater_api.guard import GuardedRoute


class DirectRoutes(BaseRoute):
    """The routes of `routers` whose rule has a plain answer, before all others, for requests without a query."""

    def __init__(self, prefix: str, routers: Iterable[APIRouter]) -> None:
        self._known = [
            (method, compile_path(prefix + route.path)[0], route)
            for router in routers
            for route in router.routes
            if isinstance(route, GuardedRoute) and route.rule.plain is not None
            for method in route.methods or ()
        ]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """What Starlette asks of a route."""
        if scope["type"] != "http" or scope["query_string"] or scope["root_path"]:
            return Match.NONE, {}
        for method, pattern, route in self._known:
            if scope["method"] == method and (found := pattern.match(scope["path"])):
                return Match.FULL, {"route": route, "endpoint": route.endpoint, "path_params": found.groupdict()}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the route itself does."""
        await scope["route"].app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Theirs to say, where they are included."""
        raise NoMatchFound(name, path_params)
