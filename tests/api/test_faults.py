"""What a fault of ours looks like from outside."""

import asyncio
import traceback

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from headwater_api.main import create_app


def test_a_fault_is_a_problem_like_any_other() -> None:
    """500 with the request's id and the headers of every answer; nothing of the exception, and no second raise."""
    app = create_app()

    @app.get("/fault")
    def fault() -> None:
        raise ZeroDivisionError("s3cret")

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/fault", headers={"X-Request-Id": "mine"})

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "mine")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["request_id"]) == ("internal_error", "mine")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "s3cret" not in answer.text


def test_what_nobody_could_answer_reaches_the_server_without_its_words() -> None:
    """It logs whatever it is given, when the secrets of the request are forgotten."""
    app = create_app()

    @app.exception_handler(Exception)
    def fail_again(request: Request, error: Exception) -> Response:
        raise LookupError("s3cret") from error

    @app.post("/fault")
    def fault() -> None:
        raise ZeroDivisionError("s3cret")

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            await client.post("/fault")

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(ask())
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
