"""What an S3 source takes."""

from typing import Any

import pytest
from pydantic import ValidationError

from headwater.connectors.s3 import S3Credentials

LINES = ["key\r\nX-Evil: 1", "key\r\n X-Folded: 1", "key\n", "key\0", "\tkey"]


@pytest.mark.parametrize("field", ["access_key_id", "session_token"])
@pytest.mark.parametrize("value", [*LINES, " key", "schlüssel", "key\x85"])
def test_what_goes_into_a_header_fits_one(field: str, value: str) -> None:
    """A folded line passes Python's own check of headers, and is a header of its own to some servers."""
    with pytest.raises(ValidationError):
        S3Credentials.model_validate({field: value})


@pytest.mark.parametrize("value", LINES)
def test_a_secret_is_one_line(value: str) -> None:
    """Whatever else it holds."""
    with pytest.raises(ValidationError):
        S3Credentials.model_validate({"secret_access_key": value})


@pytest.mark.parametrize(
    "secrets",
    [
        {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"},
        {"access_key_id": "minio key", "secret_access_key": ' 100% "of" it + schlüssel 密钥 '},
        {"session_token": "IQoJb3JpZ2luX2VjEJr//////////wEaDGV1LWNlbnRyYWwtMSJ=="},
    ],
)
def test_odd_keys_are_kept_as_they_are(secrets: dict[str, Any]) -> None:
    """Nothing is trimmed."""
    assert S3Credentials.model_validate(secrets).secrets() == secrets
