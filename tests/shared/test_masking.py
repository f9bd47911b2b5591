"""Secrets are found in whatever spelling somebody gave them, and nothing else is."""

import base64
import contextvars
import html
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import masking

PEM = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(
    base64.b64encode(bytes(range(48 * n, 48 * n + 48))).decode() for n in range(4)
) + "\n-----END PRIVATE KEY-----\n"  # fmt: skip
SPELLINGS = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"a": secret})),
    "JSON with escaped slashes": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "a URL": lambda secret: quote(secret, safe=""),
    "a path": quote,
    "a form": quote_plus,
    "a URL in a URL": lambda secret: quote(quote(secret, safe=""), safe=""),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda secret: repr(secret.encode()),
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "hex with colons": lambda secret: secret.encode().hex(":"),
    "HEX with colons": lambda secret: secret.encode().hex(":").upper(),
    "hex with blanks": lambda secret: secret.encode().hex(" "),
    "HTML": html.escape,
    "a URL in small letters": lambda secret: re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "the userinfo of a URL": lambda secret: quote(secret, safe="/:@+="),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
}


def _is_hidden_by_a_mask(text: str) -> bool:
    """Not a part of the mask itself: its own words are among what is drawn."""
    return text.strip() == text and max(text) < "\ud800" and text not in masking.MASK


@settings(deadline=None, max_examples=25)
@given(st.text(min_size=6, max_size=40).filter(_is_hidden_by_a_mask))
@pytest.mark.parametrize("spelling", [pytest.param(spell, id=name) for name, spell in SPELLINGS.items()])
def test_every_spelling_is_masked(spelling: Any, secret: str) -> None:
    """Whatever characters the secret is made of."""
    with masking.mask_for([secret]):
        said = masking.masked(f"could not log in with <{spelling(secret)}>")
    assert masking.MASK in said
    assert spelling(secret) not in said


@pytest.mark.parametrize("spelling", [pytest.param(spell, id=name) for name, spell in SPELLINGS.items()])
def test_a_hard_secret_is_masked_in_every_spelling(spelling: Any) -> None:
    """One that each of them writes differently."""
    secret = "aä<b>&\"c'/+%20\\\\?~ï¿¾"
    with masking.mask_for([secret]):
        said = masking.masked(f"in <{spelling(secret)}>")
    assert masking.MASK in said
    assert spelling(secret) not in said


@pytest.mark.parametrize("user", ["", "u", "us", "use", "a longer user"])
def test_basic_authentication_is_masked(user: str) -> None:
    """Base64 of user and password, wherever in it the password begins: at most its edges are left."""
    secret = "correct/horse+battery"
    header = base64.b64encode(f"{user}:{secret}".encode()).decode()
    with masking.mask_for([secret]):
        left = masking.masked(f"Authorization: Basic {header}")
    kept = left.replace(masking.MASK, "")
    assert len("Authorization: Basic " + header) - len(kept) >= len(header) * len(secret) // (len(user) + 26)


ACCOUNT = json.dumps({"type": "service_account", "private_key": PEM, "private_key_id": "4fe1c2d3"})


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (PEM, PEM.splitlines()[2]),
        (PEM, PEM.replace("\n", "\\n")),
        (PEM, "".join(PEM.splitlines()[1:-1])),
        ("sv=2024-01-01&sp=rl&sig=aB3%2FdE5fG7hI9jK%3D", "aB3%2FdE5fG7hI9jK%3D"),
        ("AccountName=a;AccountKey=Zm9vYmFyYmF6cXV4MTIz;", "Zm9vYmFyYmF6cXV4MTIz"),
        (
            json.dumps({"type": "service_account", "private_key": PEM, "private_key_id": "4fe1c2d3"}),
            PEM.splitlines()[1],
        ),
        (ACCOUNT, "4fe1c2d3"),
        ("Tr0ub4dor 3@host", "Tr0ub4dor"),
    ],
    ids=["line", "escaped", "body", "signature", "account key", "JSON", "member", "torn at the @"],
)
def test_what_a_driver_tears_out_is_masked(secret: str, said: str) -> None:
    """A line of a PEM, the signature in a token, a member of a document, what stands before an @."""
    with masking.mask_for([secret]):
        assert said not in masking.masked(f"the driver says: {said}, no more")


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("a banana for a user", "a banana for a user"),
        ("password=a", "password=[masked]"),
        ("{'password': 'a'}", "{'password': '[masked]'}"),
        ("postgresql://u:a@host", "postgresql://u:[masked]@host"),
    ],
)
def test_a_short_secret_is_masked_where_a_value_stands(said: str, masked: str) -> None:
    """Elsewhere it would mask innocent text, and say how short it is."""
    with masking.mask_for(["a"]):
        assert masking.masked(said) == masked


def test_words_of_a_passphrase_stay_words() -> None:
    """What everybody says is no part that tells of the secret."""
    with masking.mask_for(["correct horse battery staple"]):
        assert masking.masked("The battery is correct.") == "The battery is correct."


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("Authorization: Bearer ya29.a0AfH6SMBx-abc", "Authorization: Bearer [masked]"),
        ("GET /b?sv=1&sig=abc%3D&se=2", "GET /b?sv=1&sig=[masked]&se=2"),
        ("redis://:secret@host/0", "redis://:[masked]@host/0"),
    ],
)
def test_what_nobody_registers_is_masked_by_where_it_stands(said: str, masked: str) -> None:
    """Tokens that a source gave, signatures, passwords in URLs."""
    assert masking.masked(said) == masked


def test_values_are_masked_in_depth() -> None:
    """Dicts with their keys, lists, tuples, dataclasses; the types stay."""

    @dataclass(frozen=True)
    class Said:
        text: str
        more: tuple[Any, ...]

    with masking.mask_for(["s3cret!"]):
        assert masking.of(Said("a s3cret!", ({"s3cret!": ["s3cret!", 1, None]},))) == Said(
            "a [masked]", ({"[masked]": ["[masked]", 1, None]},)
        )


def test_a_secret_stays_masked_until_the_next_job() -> None:
    """Threads and finalisers speak behind the end of theirs."""
    with masking.masks_kept(), masking.mask_for(["s3cret!"]):
        pass
    assert masking.masked("s3cret!") == masking.MASK
    with masking.masks_kept():
        assert masking.masked("s3cret!") == "s3cret!"


def test_what_a_request_sent_is_masked_for_that_request_alone() -> None:
    """And for the threads that run in a copy of its context, until it ends."""
    others = contextvars.copy_context()
    with masking.masks_here():
        masking.mask_here(["s3cret!"])
        its = contextvars.copy_context()
        said = [masking.masked("s3cret!"), its.run(masking.masked, "s3cret!"), others.run(masking.masked, "s3cret!")]
    assert said == [masking.MASK, masking.MASK, "s3cret!"]
    assert [masking.masked("s3cret!"), its.run(masking.masked, "s3cret!")] == ["s3cret!", "s3cret!"]


def test_what_a_request_sent_is_spelt_out_within_bounds() -> None:
    """A megabyte of words would keep all other requests waiting."""
    sent = [" ".join(f"w{number:07}" for number in range(100 * n, 100 * n + 100)) for n in range(1000)]
    began = time.process_time()
    with masking.masks_here():
        masking.mask_here(sent)
        assert masking.masked(sent[0]) == masking.MASK
        assert masking.masked(sent[-1]) == sent[-1]
    assert time.process_time() - began < 1


PROGRAM = """
import logging, sys, threading, warnings
from headwater import log, masking

log.configure("test")
class Spiteful:
    def __str__(self): raise RuntimeError("s3cret!")
    __repr__ = __str__
with masking.masks_kept(), masking.mask_for(["s3cret!"]):
    logging.getLogger("theirs").warning("a %d", "s3cret!")
    logging.getLogger("theirs").warning("a %s", Spiteful())
    log.get("ours").info("said", value=Spiteful(), data={"a": b"s3cret!"}, error=ValueError("s3cret!"))
    warnings.warn("s3cret!")
    threading.Thread(target=lambda: 1 / 0 if not sys.stdout else exec("raise ValueError('s3cret!')")).start()
    try:
        raise ExceptionGroup("s3cret!", [ValueError("s3cret!")])
    except ExceptionGroup:
        logging.getLogger("theirs").exception("s3cret!")
    raise SystemError("s3cret!")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_that_a_process_says_gets_around_the_sink(form: str) -> None:
    """Arguments that do not fit, objects that cannot be shown, threads, groups, and the end of the process."""
    environment = {"HEADWATER_LOG_FORMAT": form, "HEADWATER_LOG_LEVEL": "debug"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    said = done.stdout + done.stderr
    assert "s3cret!" not in said
    assert done.returncode == 1
    for event in ("thread.fault", "process.fault", "ExceptionGroup", "SystemError", "could not be logged"):
        assert event in said, event


def test_a_secret_of_digits_leaves_numbers_alone() -> None:
    """A line stays JSON."""
    code = (
        "from headwater import log, masking\nlog.configure('x')\n"
        "with masking.mask_for(['2026']):\n    log.get('x').info('said', text='it is 2026', number=2026)\n"
    )
    environment = {"HEADWATER_LOG_FORMAT": "json"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    line = json.loads(done.stdout)
    assert (line["text"], line["number"]) == ("it is [masked]", 2026)


def test_a_line_is_json_whatever_a_value_is() -> None:
    """Half a surrogate pair, and a number that no 64 bits hold."""
    code = (
        "from headwater import log\nlog.configure('x')\n"
        "log.get('x').info('said', text='\\ud800', number=2**70, name='\u00fc')\n"
    )
    environment = {"HEADWATER_LOG_FORMAT": "json", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    line = json.loads(done.stdout)
    assert (line["text"], line["number"], line["name"]) == ("\ud800", 2**70, "\u00fc")


def test_a_library_that_logs_is_heard_only_through_the_sink() -> None:
    """No handler of its own stands beside ours."""
    code = (
        "import logging\nfrom headwater import log\nlog.configure('x')\n"
        "import botocore.session, urllib3, azure.storage.blob, google.auth, celery, kombu, uvicorn\n"
        "found = [name for name, logger in logging.root.manager.loggerDict.items() if getattr(logger, 'handlers', None)"
        " and any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
