"""What every process of the suite loads first: names of its own, and a hard stop before any dial beyond loopback.

Whatever the code under test decides, nothing leaves the machine; and each dial is written down, also one that finds
nobody listening.
"""

import itertools
import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_NAMES = "HEADWATER_ATTACKS_NAMES"
_DIALLED = "HEADWATER_ATTACKS_DIALLED"


class HardStop(BaseException):
    """No process of the suite may leave loopback, whatever the policy under test says."""


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or arguments[0].family == socket.AF_UNIX:
        return
    host = str(arguments[1][0])
    with Path(dialled_file).open("a", encoding="ascii") as dialled:
        dialled.write(f"{host}\n")
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise HardStop(f"a process was about to leave loopback for {host}")


def _name_server(answers: dict[str, list[list[str]]]) -> Any:
    """`socket.getaddrinfo` that knows these names alone; their answers come in turn, again and again."""
    turns = {name: itertools.cycle(each) for name, each in answers.items()}
    asked = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in turns:
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in next(turns[host])
            ]
        try:
            ip_address(host or "127.0.0.1")
        except ValueError:
            if host != "localhost":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        return asked(host, port, *arguments, **options)

    return getaddrinfo


if _NAMES in os.environ:
    # Now: a worker takes our variables out of its environment.
    dialled_file = os.environ[_DIALLED]
    sys.addaudithook(_on_event)
    socket.getaddrinfo = _name_server(json.loads(os.environ[_NAMES]))
