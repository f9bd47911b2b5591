"""`python -m bench.hello`: FastAPI at its barest, on the product's own server; what the API is measured against."""

from fastapi import FastAPI

from headwater import log
from headwater.settings import ApiSettings
from headwater_api import server

app = FastAPI()


@app.get("/hello")
async def hello() -> dict[str, str]:
    """A small object."""
    return {"hello": "world"}


if __name__ == "__main__":
    log.configure("hello")
    server.make(app, ApiSettings()).run()
