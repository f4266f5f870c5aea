"""What stands under examples/monitoring: every figure in it exists, every rule fires, and each is explained."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from rigs.needs import program
from sked_core.runtime import metrics
from sked_core.surface.cli import cli
from sked_web.watched import CATALOG

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "monitoring"
RULES = FOLDER / "sked.rules.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PAGE = (ROOT / "docs" / "alerts.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
EXIST = metrics.catalog() | CATALOG
FOREIGN = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Figures that are not ours: Prometheus's own, and those that its client adds to every process."""
SPARE = {"sked_scheduler_blocked", "sked_scheduler_issued_tasks", "sked_scheduler_due_services"}
"""Figures that the dashboard leaves out: for those who ask."""

FIRES = {
    "SkedProcessDown": {'up{job="sked-agent", instance="a"}': "0x20"},
    "SkedNoScheduler": {"sked_scheduler_services": "0x20"},
    "SkedLoopHangs": {'sked_loop_late_seconds{loop="agent"}': "61+15x20"},
    "SkedStoreUnreachable": {'sked_store_answered_timestamp_seconds{instance="a"}': "1x40"},
    "SkedPageStale": {"sked_web_stale_seconds": "0+15x40"},
    "SkedStoreErrors": {'sked_store_errors_total{operation="read", error="Unavailable"}': "0+15x100"},
    "SkedStoreSlow": {
        'sked_store_call_duration_seconds_bucket{operation="read", le="1"}': "0x100",
        'sked_store_call_duration_seconds_bucket{operation="read", le="2.5"}': "0+10x100",
        'sked_store_call_duration_seconds_bucket{operation="read", le="+Inf"}': "0+10x100",
    },
    "SkedLeaseLost": {"sked_lease_losses_total": "0x10 1x40"},
    "SkedUnreadableKeys": {"sked_scheduler_unreadable_keys": "1x100"},
    "SkedHostDown": {'sked_scheduler_hosts{state="down"}': "1x100"},
    "SkedHostLost": {'sked_scheduler_hosts{state="lost"}': "1x100"},
    "SkedDrainTakesLong": {'sked_scheduler_hosts{state="draining"}': "1x600"},
    "SkedAgentFrozen": {"sked_agent_frozen": "1x100"},
    "SkedAgentDeaf": {"sked_agent_store_look_age_seconds": "0+15x100"},
    "SkedExecutorDown": {'sked_agent_executor_up{executor="docker"}': "0x100"},
    "SkedSchedulerFails": {"sked_scheduler_failing_rounds": "1+1x100"},
    "SkedSchedulerBehind": {"sked_scheduler_lag_seconds": "0+15x100"},
    "SkedServiceShort": {
        'sked_scheduler_desired_tasks{service="web"}': "3x100",
        'sked_agent_tasks{service="web", state="running", health="healthy"}': "2x100",
    },
    "SkedTasksWait": {'sked_scheduler_waiting_tasks{service="web"}': "1x100"},
    "SkedServiceBlocked": {'sked_scheduler_blocked{service="web"}': "1x100"},
    "SkedTasksFail": {'sked_agent_task_failures_total{service="web"}': "0+1x100"},
    "SkedTasksRejected": {'sked_scheduler_rejected_tasks{service="web"}': "1x100"},
    "SkedTasksUnhealthy": {'sked_agent_tasks{service="web", state="running", health="unhealthy"}': "1x100"},
    "SkedRolloutFailed": {'sked_scheduler_rollouts{state="failed"}': "1x100"},
    "SkedRolloutPaused": {'sked_scheduler_rollouts{state="paused"}': "1x1200"},
}
"""Series that make each alert fire at last, as promtool writes them, one value every 15 s."""
WELL = {
    'up{job="sked-agent", instance="a"}': "1x1200",
    "sked_scheduler_processes": "2x1200",
    'sked_loop_late_seconds{loop="scheduler"}': "0.2x1200",
    "sked_store_answered_timestamp_seconds": "0+15x1200",
    'sked_store_errors_total{operation="commit", error="Conflict"}': "0+50x1200",
    'sked_store_call_duration_seconds_bucket{operation="read", le="0.01"}': "0+10x1200",
    'sked_store_call_duration_seconds_bucket{operation="read", le="+Inf"}': "0+10x1200",
    "sked_web_stale_seconds": "0x1200",
    "sked_lease_losses_total": "1x1200",
    "sked_scheduler_unreadable_keys": "0x1200",
    'sked_scheduler_hosts{state="ready"}': "5x1200",
    'sked_scheduler_hosts{state="down"}': "0x1200",
    'sked_scheduler_hosts{state="lost"}': "0x1200",
    "sked_agent_frozen": "0x1200",
    "sked_agent_store_look_age_seconds": "55x1200",
    'sked_agent_executor_up{executor="docker"}': "1x1200",
    "sked_scheduler_failing_rounds": "0x1200",
    "sked_scheduler_lag_seconds": "1x1200",
    'sked_scheduler_desired_tasks{service="web"}': "3x1200",
    'sked_scheduler_desired_tasks{service="off"}': "0x1200",
    'sked_agent_tasks{service="web", state="running", health="healthy", instance="a"}': "2x1200",
    'sked_agent_tasks{service="web", state="running", health="unknown", instance="b"}': "1x1200",
    'sked_scheduler_waiting_tasks{service="web"}': "0x1200",
    'sked_scheduler_blocked{service="web"}': "0x1200",
    'sked_agent_task_failures_total{service="web"}': "3x1200",
    'sked_scheduler_rejected_tasks{service="web"}': "0x1200",
    'sked_scheduler_rollouts{state="failed"}': "0x1200",
    'sked_scheduler_rollouts{state="paused"}': "0x1200",
}


def _expressions() -> dict[str, str]:
    found = {name: rule["expr"] for name, rule in ALERTS.items()}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["query"]["query"]
    return found


def _names(expression: str) -> set[str]:
    """The figures that an expression asks for, without what is in quotes, braces or after ``by``."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(by|on|without)\s*\([^)]*\)', " ", expression)
    return set(re.findall(r"\b(?:sked|process)_\w+|\bup\b", bare))


def _family(name: str) -> str:
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    return base if EXIST.get(base, ("",))[0] == "histogram" else name


@pytest.mark.parametrize(("where", "expression"), _expressions().items(), ids=_expressions())
def test_every_figure_and_label_that_is_asked_for_exists(where, expression):
    names = _names(expression)
    assert names, "it asks for nothing"
    assert {_family(name) for name in names} <= EXIST.keys() | FOREIGN
    known = {label for name in names for label in EXIST.get(_family(name), ("", (), ""))[1]}
    known |= {"instance", "job", "le"}
    asked = set(re.findall(r'[{,]\s*(\w+)\s*(?:=|!=|=~|!~)"', expression))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        asked |= set(re.split(r"[,\s]+", group.strip()))
    assert asked <= known


def test_the_dashboard_shows_every_figure():
    shown = {_family(name) for expression in _expressions().values() for name in _names(expression)}
    assert EXIST.keys() - shown <= SPARE


def test_panels_of_the_dashboard_do_not_lie_on_one_another():
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in places, panel["title"]
                places.add((x, y))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_alert_is_explained_with_what_to_do():
    assert list(SECTIONS) == list(ALERTS)
    for name, text in SECTIONS.items():
        assert "\nDo: " in text and "\n```\n" in text, name


def test_every_command_that_the_page_names_exists():
    commands = re.findall(r"^sked (.*)$", PAGE, re.MULTILINE)
    assert len(commands) > 20
    for line in commands:
        context, command, words = click.Context(cli), cli, line.split()
        while isinstance(command, click.Group):
            word = words.pop(0)
            found = command.get_command(context, word)
            assert found is not None, f"sked {line}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, f"sked {line}"


def test_rules_say_how_bad_it_is_and_for_whom():
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["annotations"]["summary"][0] in '"{ABCDEFGHIJKLMNOPQRSTUVWXYZ', name


def test_prometheus_takes_the_rules_and_the_configuration(tmp_path):
    promtool = program("promtool", "prometheus")
    for what, file in (("rules", RULES), ("config", FOLDER / "prometheus.yml")):
        options = ["--syntax-only"] if what == "config" else ["--lint-fatal"]  # its files for tokens are not here
        ran = subprocess.run([promtool, "check", what, *options, file], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def _evaluate(folder: Path, tests: list[dict]) -> None:
    (folder / "rules.yml").write_text(RULES.read_text())
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(content))
    promtool = program("promtool", "prometheus")
    ran = subprocess.run(
        [promtool, "test", "rules", "tests.yml"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_alert_fires_while_all_is_well(tmp_path):
    series = [{"series": name, "values": values} for name, values in WELL.items()]
    quiet = [{"eval_time": at, "alertname": name, "exp_alerts": []} for name in ALERTS for at in ("15m", "4h30m")]
    _evaluate(tmp_path, [{"interval": "15s", "input_series": series, "alert_rule_test": quiet}])


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_fires_when_what_it_is_for_has_lasted(name, tmp_path):
    series = [{"series": one, "values": values} for one, values in FIRES[name].items()]
    longest = max(int(values.rpartition("x")[2]) for values in FIRES[name].values())
    at = f"{longest * 15 - 15}s"
    query = {"expr": f'sum(ALERTS{{alertname="{name}", alertstate="firing"}})', "eval_time": at,
             "exp_samples": [{"labels": "{}", "value": 1}]}  # fmt: skip
    _evaluate(tmp_path, [{"interval": "15s", "input_series": series, "promql_expr_test": [query]}])
