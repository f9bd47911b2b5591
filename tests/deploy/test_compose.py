"""docker-compose.yml keeps its promises: who holds which key, who is reached from where, how everything stops."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from headwater import __version__, settings
from headwater.settings import JobSettings, WebhookSettings
from headwater_cli import admin, home

OURS = ("migrate", "api", "worker-interactive", "worker-bulk", "scheduler", "deliverer", "flower", "admin")
LASTING = ("postgres", "redis", "api", "worker-interactive", "worker-bulk", "scheduler", "deliverer", "flower")
WATCHING = ("prometheus", "grafana")
AFTER_MIGRATIONS = ("api", "worker-interactive", "worker-bulk", "scheduler", "deliverer")


def known_variables() -> set[str]:
    """Every variable that a settings group reads."""
    groups = [group for group in vars(settings).values() if isinstance(group, type) and issubclass(group, BaseSettings)]
    return {f"HEADWATER_{name.upper()}" for group in groups for name in group.model_fields}


def holders(compose: dict[str, Any], secret: str) -> set[str]:
    """The services that a secret is mounted into."""
    return {name for name, service in compose["services"].items() if secret in service.get("secrets", ())}


def test_the_services_are_those_of_the_design(compose: dict[str, Any]) -> None:
    """One service for each process, a place for operators' commands, and who watches."""
    assert set(compose["services"]) == {*OURS, *LASTING, *WATCHING}


def test_every_variable_that_a_service_gets_is_read_by_a_settings_group(compose: dict[str, Any]) -> None:
    """A misspelled one would be ignored without a word."""
    given = {
        name
        for service in compose["services"].values()
        for name in service.get("environment", {})
        if name.startswith("HEADWATER_")
    }
    assert given - known_variables() == set()


def test_requests_of_a_key_are_limited(compose: dict[str, Any]) -> None:
    """To what the settings page says."""
    assert compose["services"]["api"]["environment"]["HEADWATER_RATE_LIMIT"] == 1000


def test_the_environment_that_init_writes_fills_every_required_place(
    interpolated: dict[str, bool], tmp_path: Path
) -> None:
    """`docker compose up` after `headwater admin init` asks for nothing."""
    admin.init(tmp_path)
    written = {line.partition("=")[0] for line in (tmp_path / ".env").read_text().splitlines()}
    required = {name for name, is_required in interpolated.items() if is_required}
    assert required - written == set()


def test_every_variable_that_init_writes_is_used(interpolated: dict[str, bool], tmp_path: Path) -> None:
    """Nothing in `.env` is there for nobody."""
    admin.init(tmp_path)
    written = {line.partition("=")[0] for line in (tmp_path / ".env").read_text().splitlines()}
    assert written - interpolated.keys() == set()


def test_the_key_files_of_init_are_the_ones_that_are_mounted(compose: dict[str, Any], tmp_path: Path) -> None:
    """Both sides name the files on their own."""
    admin.init(tmp_path)
    mounted = {secret["file"] for secret in compose["secrets"].values() if "file" in secret}
    assert mounted == {f"./keys/{path.name}" for path in (tmp_path / "keys").iterdir()}


def test_only_the_workers_side_and_admin_hold_the_master_key(compose: dict[str, Any]) -> None:
    """The API can seal and never open."""
    told = {
        name
        for name, service in compose["services"].items()
        if "HEADWATER_MASTER_KEY_FILE" in service.get("environment", {})
    }
    assert holders(compose, "master_key") == told == {"worker-interactive", "worker-bulk", "deliverer", "admin"}


def test_only_api_and_admin_hold_the_pepper(compose: dict[str, Any]) -> None:
    """A worker has no use for it."""
    told = {
        name
        for name, service in compose["services"].items()
        if "HEADWATER_PEPPER_FILE" in service.get("environment", {})
    }
    assert holders(compose, "pepper") == told == {"api", "admin"}


def test_no_key_enters_a_container_through_a_volume(compose: dict[str, Any]) -> None:
    """Keys come as the secret that a service lists, one by one."""
    mounted = [volume for name in OURS for volume in compose["services"][name].get("volumes", ())]
    assert {volume.partition(":")[0] for volume in mounted if ":" in volume} == {"uploads"}


def test_only_the_api_is_published_and_what_operators_look_at_on_loopback(compose: dict[str, Any]) -> None:
    """The stores and everybody who can reach customers' systems are reached by nobody."""
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {
        "api": ["8000:8000"],
        "flower": ["127.0.0.1:5555:5555"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_stores_stand_in_a_network_without_a_way_out(compose: dict[str, Any]) -> None:
    """Nothing else is in reach of Postgres and Redis, and they reach nothing."""
    assert compose["networks"]["stores"] == {"internal": True}
    assert [compose["services"][name]["networks"] for name in ("postgres", "redis")] == [["stores"], ["stores"]]


def test_only_the_workers_side_is_in_the_network_with_the_way_to_customers(compose: dict[str, Any]) -> None:
    """Only they have the egress policy."""
    inside = {name for name, service in compose["services"].items() if "outside" in service["networks"]}
    assert inside == {"worker-interactive", "worker-bulk", "deliverer"}


@pytest.mark.parametrize("name", AFTER_MIGRATIONS)
def test_services_wait_for_the_migrations(compose: dict[str, Any], name: str) -> None:
    """No process meets a schema that is not its own."""
    assert compose["services"][name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", OURS)
def test_every_service_is_one_process_in_exec_form(compose: dict[str, Any], name: str) -> None:
    """A list, so that SIGTERM reaches the process itself; its program is ours."""
    command = compose["services"][name].get("entrypoint") or compose["services"][name].get("command")
    if name == "api":  # the image's own, checked there
        assert command is None
        return
    assert isinstance(command, list)
    if command[0] == "python":
        assert command[1] == "-m"
        assert importlib.util.find_spec(command[2]) is not None
    else:
        assert command[:2] == ["headwater", "admin"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_that_they_do_not_need(compose: dict[str, Any], name: str) -> None:
    """No root, no capability, nothing to write to but what is named."""
    service = compose["services"][name]
    assert not service["user"].startswith("0")
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )


@pytest.mark.parametrize("name", [*LASTING, *WATCHING])
def test_what_lasts_is_started_again_watched_and_bounded(compose: dict[str, Any], name: str) -> None:
    """A dead process comes back; a sick one shows; none takes the machine or fills its disk with log."""
    service = compose["services"][name]
    limits = service["deploy"]["resources"]["limits"]
    assert service["restart"] == "unless-stopped"
    assert "test" in service["healthcheck"]
    assert set(limits) == {"cpus", "memory"}
    assert service["logging"]["options"]


@pytest.mark.parametrize("name", ["migrate", "admin"])
def test_what_runs_once_is_not_asked_whether_it_is_a_worker(compose: dict[str, Any], name: str) -> None:
    """The worker image's own check would call it sick."""
    service = compose["services"][name]
    assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})


@pytest.mark.parametrize("name", ["worker-interactive", "worker-bulk"])
def test_a_worker_has_time_to_hand_its_jobs_back(compose: dict[str, Any], name: str) -> None:
    """Drain and grace, and as much again to write the outcome down."""
    default = JobSettings()
    seconds = int(compose["services"][name]["stop_grace_period"].removesuffix("s"))
    assert seconds >= 2 * (default.drain_seconds + default.grace_seconds)


def test_a_deliverer_has_time_for_the_longest_request(compose: dict[str, Any]) -> None:
    """And to write down what came of it."""
    seconds = int(compose["services"]["deliverer"]["stop_grace_period"].removesuffix("s"))
    longest = next(
        each.le for each in WebhookSettings.model_fields["webhook_timeout_seconds"].metadata if hasattr(each, "le")
    )
    assert seconds >= longest + 5


@pytest.mark.parametrize("name", WATCHING)
def test_who_watches_is_there_only_when_wanted_and_reaches_no_store(compose: dict[str, Any], name: str) -> None:
    """A profile of its own; what it mounts of the checkout exists, and cannot be written to."""
    service = compose["services"][name]
    assert (service["profiles"], service["networks"]) == (["monitoring"], ["front"])
    mounted = [volume.split(":") for volume in service["volumes"] if volume.startswith(".")]
    assert mounted
    assert [(home.checkout() / path).exists() and mode == "ro" for path, _, mode in mounted] == [True] * len(mounted)


def test_prometheus_sends_the_token_that_the_api_expects(compose: dict[str, Any]) -> None:
    """Both have it from one variable."""
    assert compose["secrets"]["metrics_token"] == {"environment": "HEADWATER_METRICS_TOKEN"}
    assert "metrics_token" in compose["services"]["prometheus"]["secrets"]
    assert "HEADWATER_METRICS_TOKEN" in compose["services"]["api"]["environment"]
    config = yaml.safe_load((home.checkout() / "deploy/prometheus/prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
    assert scrape["static_configs"] == [{"targets": ["api:8000"]}]


def test_redis_keeps_what_it_is_told_and_shows_its_password_to_nobody(compose: dict[str, Any]) -> None:
    """It must not evict rings; arguments are read by everybody on the machine, so the password is not one."""
    program, flag, script = compose["services"]["redis"]["command"]
    first, *lines = script.splitlines()
    assert (program, flag, first) == ("sh", "-c", "exec redis-server - <<END")
    assert {"appendonly yes", "maxmemory-policy noeviction", "requirepass $$REDISCLI_AUTH"} <= set(lines)


def test_postgres_keeps_its_data_where_the_image_of_18_puts_it(compose: dict[str, Any]) -> None:
    """Mounted one folder deeper, as up to 17, its data would live in the container and die with it."""
    postgres = compose["services"]["postgres"]
    assert (postgres["image"], postgres["volumes"]) == ("postgres:18", ["postgres:/var/lib/postgresql"])


def test_images_carry_the_version_of_this_code(compose: dict[str, Any]) -> None:
    """So that an upgrade builds new ones."""
    images = {compose["services"][name]["image"] for name in OURS}
    assert images == {f"headwater-api:{__version__}", f"headwater-worker:{__version__}"}
