"""What stores of objects have in common: one request tells of identity, target and rights."""

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from headwater import masking
from headwater.errors import ConnectorError, Permanent
from headwater_worker import environment
from headwater_worker.connectors import meaning
from headwater_worker.connectors.base import CheckWarning, FileConnector, FileEntry, Opening, Skipped, Step
from headwater_worker.connectors.ladder import Origin, Way

PROBE_KEYS: Final = 10  # a folder's own marker may come first
SAMPLE_BYTES: Final = 1024

# Of the variables by which a platform tells who a process is.
_SECRET: Final = frozenset({"AWS_CONTAINER_AUTHORIZATION_TOKEN", "IDENTITY_HEADER"})
_PORTS: Final = {"http": 80, "https": 443}


class ObjectStoreConnector(FileConnector):
    """A bucket or container behind HTTP, or what starts with a prefix in it.

    A subclass says how its clients are made, where they go, and what a listing's first page is; which step of the
    ladder fails follows from the code of that one request.
    """

    def __init__(self, opening: Opening, *, tls: bool) -> None:
        super().__init__(opening)
        self._closing = ExitStack()
        self._way = Way(self._origin, tls=tls, policy=opening.policy)

    def steps(self) -> Sequence[Step]:
        return (
            Step("config", self._check_config),
            *self._way.steps(),
            Step("authenticate", self._check_identity),
            Step("target", self._check_target),
            Step("list", self._check_list),
            Step("read", self._check_read),
        )

    def close(self) -> None:
        self._way.close()
        self._closing.close()

    def _identity_variables(self, instead: str) -> Mapping[str, str]:
        """What the platform told the worker of its own identity. `instead` is what the user can use without leave.

        Raises `Permanent` (`ambient_credentials_not_allowed`).
        """
        if not self.opening.ambient_allowed:
            raise Permanent(
                "The operator does not let sources use the worker's own role.",
                code="ambient_credentials_not_allowed",
                hint=f"Use {instead}, or have the operator set HEADWATER_ALLOW_AMBIENT_CREDENTIALS.",
            )
        variables = environment.identity()
        self._closing.enter_context(masking.mask_for(variables[name] for name in _SECRET & variables.keys()))
        return variables

    @abstractmethod
    def _check_config(self) -> None:
        """Make the client for tests: proves that config and credentials fit together, and sends nothing."""

    @abstractmethod
    def _origin(self) -> Origin:
        """Where requests for files go."""

    @abstractmethod
    def _prove_identity(self) -> None:
        """Get what requests are signed with, where that takes a request. What fails in it is about the identity."""

    @abstractmethod
    def _first_page(self) -> Sequence[FileEntry]:
        """Up to `PROBE_KEYS` files of the config's scope, asked for once."""

    @abstractmethod
    def _read_sample(self, sample: FileEntry) -> None:
        """Read up to `SAMPLE_BYTES` of a file. An empty file has no range."""

    # One request tells of identity, target and rights: which step fails stands in its code.

    @functools.cached_property
    def _probe(self) -> Sequence[FileEntry] | ConnectorError:
        try:
            return self._first_page()
        except ConnectorError as error:
            return error

    def _check_identity(self) -> None:
        self._prove_identity()
        self._raise_probe(meaning.NO_CREDENTIALS | meaning.NO_WAY)

    def _check_target(self) -> None:
        self._raise_probe(meaning.NO_TARGET)

    def _raise_probe(self, codes: frozenset[str]) -> None:
        if isinstance(self._probe, ConnectorError) and self._probe.code in codes:
            raise self._probe

    def _check_list(self) -> CheckWarning | None:
        if isinstance(self._probe, ConnectorError):
            raise self._probe
        if self._sample is None:
            return CheckWarning(
                "empty_scope",
                "The connection works, but there are no files to see.",
                "Check the prefix, or come back when files have arrived.",
            )
        return None

    @property
    def _sample(self) -> FileEntry | None:
        assert not isinstance(self._probe, ConnectorError)
        return next((entry for entry in self._probe if not entry.path.endswith("/")), None)

    def _check_read(self) -> CheckWarning | Skipped | None:
        if self._sample is None:
            return Skipped()
        try:
            self._read_sample(self._sample)
        except Permanent as error:
            if error.code == "file_not_found":
                return Skipped()
            if error.code == "file_archived":
                return CheckWarning(error.code, "The first file is archived and cannot be read.", error.hint)
            raise
        return None


def narrower(scope: str, prefix: str) -> str | None:
    """The prefix that means both, or None if nothing can start with both."""
    if prefix.startswith(scope):
        return prefix
    return scope if scope.startswith(prefix) else None


def port_of(scheme: str, port: int | None) -> int:
    """`port`, or that of `scheme`."""
    return port or _PORTS[scheme]
