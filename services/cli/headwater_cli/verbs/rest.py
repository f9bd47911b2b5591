"""`api` and `client`: the verbs that speak REST."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from headwater_cli import home, request, terminal, typescript
from headwater_cli.errors import Failure

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def api(
    method: Annotated[str, typer.Argument(help="GET, POST, PUT, PATCH or DELETE")],
    path: Annotated[str, typer.Argument(help="/jobs, '/data-sources?type=s3', /healthz ...")],
    body: Annotated[str | None, typer.Argument(help="a JSON text, @FILE, or - for standard input")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="'Name: value'; may be repeated")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the answer's bytes to this file.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print the answer's bytes as they come.")] = False,
    include: Annotated[bool, typer.Option("--include", "-i", help="Print status and headers too.")] = False,
) -> None:
    """One request to the API of the running stack, as curl would do it. Exit code 1 for a status of 400 or more.

    HEADWATER_API_URL and HEADWATER_API_KEY, where set, name another API.
    """
    target = _target()
    code = request.send(
        target,
        method=method,
        path=path,
        body=_body(body),
        headers=request.parse_headers(header or []),
        sink=request.Sink(output=output, raw=raw, include=include),
    )
    raise typer.Exit(code)


def _target() -> request.Target:
    url, key = os.environ.get("HEADWATER_API_URL"), os.environ.get("HEADWATER_API_KEY")
    stack = None if url and key else home.read_stack(home.find())
    if stack is not None:
        url, key = url or stack["api_url"], key or stack["api_key"]
    if not url:
        raise Failure("No stack is ready here.", hint="./dev up starts one, or set HEADWATER_API_URL.")
    return request.Target(url, key)


def _body(text: str | None) -> bytes | None:
    if text == "-":
        return sys.stdin.buffer.read()
    if text is not None and text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise Failure(f"Cannot read {text[1:]}: {error.strerror}.") from None
    return None if text is None else text.encode()


@app.command()
def client(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; none prints.")] = None,
    document: Annotated[Path | None, typer.Option(help="An OpenAPI document; none asks this checkout's API.")] = None,
) -> None:
    """Write TypeScript types from the OpenAPI document."""
    place = home.find()
    place.make()
    text = document.read_bytes() if document else typescript.openapi_document()
    types = typescript.types(text, cache=place.cache)
    if output is None:
        typer.echo(types, nl=False)
    else:
        output.write_text(types)
        terminal.plain(f"Wrote {output} ({len(types.splitlines()):,} lines).")
