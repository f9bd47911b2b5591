"""What Postgres can keep: asked of Postgres itself."""

import orjson
import psycopg
import pytest

from headwater_worker.sync import storable
from headwater_worker.sync.formats import json_value

TEXTS = [
    '"plain"', '"\\u0000"', '"\\\\u0000"', '{"\\u0000": 1}', '"\\ud800"', '"\\ud83d\\ude00"', "1e400", "1e131071",
    "1e131072", "1e-16383", "1e-16384", "1e200000", "1e99999999999", "0.5e-16383", "-1e131072", '"1e200000"',
    '{"a": [1e-20000]}',
    "9" * 131_072, "9" * 131_073, "0." + "1" * 16_383, "0." + "1" * 16_384, "[" * 500 + "]" * 500,
    '"e-mail"', "[1e-5, 2E-9999]",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_our_look_agrees_with_postgres(connection, text):
    """Exactly what Postgres refuses as jsonb has a problem, and the cheap look lets none of it pass."""
    raw = text.encode()
    try:
        value, suspect = orjson.loads(raw), storable.is_suspect(raw) or storable.is_odd(raw)
    except orjson.JSONDecodeError:
        found = json_value.second_look(raw, 1)
        assert isinstance(found, tuple)
        value, suspect = found[2], True
    try:
        connection.execute("select %s::text::jsonb", (text,))
        refused = False
    except psycopg.Error:
        refused = True
    assert (storable.problem(raw, value) is not None) == refused
    assert suspect or not refused


def test_depth_and_size_are_bounded():
    """More than 500 levels and more than 16 MiB are too much, brackets in strings aside."""
    deep = b"[" * 501 + b"]" * 501
    assert storable.problem(deep, orjson.loads(deep)) == storable.TOO_DEEP
    assert storable.problem(b'"' + b"[" * 600 + b'"', "") is None
    assert storable.problem(b" " * ((16 << 20) + 1), None) == storable.TOO_LARGE
