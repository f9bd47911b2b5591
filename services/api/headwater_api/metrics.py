"""What Prometheus reads, outside the versioned API: no tenant's route, with a token of the operator's."""

import hmac
from collections import defaultdict
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.responses import Response

from headwater import ids
from headwater.db import Row, Statement
from headwater.errors import NotFound, Unauthenticated
from headwater.measuring.families import BOUNDS, FAMILIES, MEASURED_AT, Family, expected
from headwater_api import services

router = APIRouter(include_in_schema=False)

# Both in one statement: of one moment.
_READ: Final = Statement(
    """
    select coalesce(extract(epoch from m.measured_at), 0)::float as measured_at, m.gauges,
           coalesce((select jsonb_agg(to_jsonb(t)) from tally t), '[]') as tallies
    from measurement m
    """
)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Everything that was measured, as Prometheus text or OpenMetrics, whichever is asked for."""
    held = services.of(request)
    _admit(request.headers.get("Authorization"), held.metrics_token)
    row = (await held.call(_READ))[0]
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    registry = CollectorRegistry()
    registry.register(_Measured(row))
    return Response(encode(registry), media_type=content_type)


def _admit(authorization: str | None, token: SecretStr | None) -> None:
    if token is None:
        raise NotFound
    scheme, _, sent = (authorization or "").partition(" ")
    # The bytes as they came, which Starlette reads as Latin-1.
    right = hmac.compare_digest(sent.strip().encode("latin-1"), token.get_secret_value().encode())
    if scheme.lower() != "bearer" or not right:
        raise Unauthenticated("This needs the token of HEADWATER_METRICS_TOKEN, as `Authorization: Bearer ...`.")


class _Measured(Collector):
    """The row of `_READ` as families of series."""

    def __init__(self, row: Row) -> None:
        self._measured_at: float = row["measured_at"]
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for sample in (*row["gauges"], *row["tallies"]):
            self._samples[sample["name"]].append((sample["labels"], sample["value"]))

    def collect(self) -> Iterator[Metric]:
        """Every family, those without a sample too."""
        yield GaugeMetricFamily(MEASURED_AT.name, MEASURED_AT.help, value=self._measured_at)
        for family in FAMILIES:
            match family.type:
                case "gauge":
                    yield self._filled(family, GaugeMetricFamily(family.name, family.help, labels=family.labels))
                case "counter":
                    yield self._filled(family, CounterMetricFamily(family.name, family.help, labels=family.labels))
                case "histogram":
                    yield self._histogram(family)

    def _filled(self, family: Family, metric: GaugeMetricFamily | CounterMetricFamily) -> Metric:
        values = self._values(family.name, family.labels)
        if family.type == "counter":
            values = dict.fromkeys(expected(family.labels), 0.0) | values
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric

    def _histogram(self, family: Family) -> Metric:
        metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        sums = dict.fromkeys(expected(family.labels), 0.0) | self._values(f"{family.name}_sum", family.labels)
        counts = self._values(f"{family.name}_bucket", (*family.labels, "le"))
        for labels, total in sums.items():
            metric.add_metric(labels, [(bound, counts.get((*labels, bound), 0.0)) for bound in BOUNDS], total)
        return metric

    def _values(self, name: str, labels: tuple[str, ...]) -> dict[tuple[str, ...], float]:
        """{values of the labels in this order: value} of the series `name`."""
        return {tuple(_shown(label, found[label]) for label in labels): value for found, value in self._samples[name]}


def _shown(label: str, value: str) -> str:
    return ids.encode("dsrc", UUID(value)) if label == "data_source" else value
