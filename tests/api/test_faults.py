"""What a fault of ours looks like from outside."""

import asyncio

import httpx2

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
