"""How a service is to be changed: what a manifest may say of it, and in which form it is stored."""

import msgspec
import pytest
import yaml

from sked_core.errors import InvalidManifest
from sked_core.model.codec import decode, encode
from sked_core.model.manifest import StoredConfig
from sked_core.model.types import Service, TaskDefinition, UpdatePolicy
from sked_core.model.validate import validate
from sked_core.model.yaml_source import parse


class Anything:
    """An executor that takes what it is given."""

    def validate(self, spec):
        return []

    def ports(self, spec, port):
        return frozenset()


def check(update=None, definition=None, **service):
    text = yaml.safe_dump(
        {
            "clusters": [{"name": "default", "services": ["web"]}],
            "services": [
                {"name": "web", "task_name": "web", "task_version": 1, "desired": 4}
                | ({"update": update} if update is not None else {})
                | service
            ],
            "task_definitions": [
                {"name": "web", "version": 1, "containers": [{"name": "web", "type": "bash"}]} | (definition or {})
            ],
        },
        sort_keys=False,
    )
    return validate(
        [parse(text.encode(), "web.yml")],
        stored=StoredConfig(),
        executors={"bash": Anything()},
        schedulers=("default",),
    )


def refused(update=None, **more):
    with pytest.raises(InvalidManifest) as caught:
        check(update, **more)
    return [str(problem).partition(": ")[2] for problem in caught.value.problems if not problem.warning]


def test_without_a_policy_nothing_is_stored_and_the_default_counts():
    (service,) = check().services
    assert service.update is msgspec.UNSET
    assert "update" not in decode(encode(service), dict)
    assert service.update_policy == UpdatePolicy(on_failure="pause", progress_deadline="10m", canaries=0)


def test_what_a_policy_leaves_out_is_stored_as_its_default():
    (service,) = check({"on_failure": "rollback", "healthy_for": "10s"}).services
    assert decode(encode(service), dict)["update"] == {
        "on_failure": "rollback", "healthy_for": "10s", "progress_deadline": "10m", "canaries": 0, "promote_after": "",
    }  # fmt: skip
    assert decode(encode(service), Service) == service


@pytest.mark.parametrize(
    ("update", "problem"),
    [
        ({"on_failure": "undo"}, 'services[0].update.on_failure: expected "pause" or "rollback", got "undo"'),
        ({"onfailure": "pause"}, 'services[0].update.onfailure: unknown field, did you mean "on_failure"?'),
        ({"canaries": -1}, "services[0].update.canaries: expected a whole number >= 0, got -1"),
        ({"canaries": 5}, "services[0].update.canaries: expected no more than desired, which is 4, got 5"),
        ({"healthy_for": "soon"}, "services[0].update.healthy_for: expected a duration"),
        ({"healthy_for": 10}, 'services[0].update.healthy_for: 10 is 10 nanoseconds; write "10s" for seconds'),
        ({"promote_after": "-1s", "canaries": 1}, "services[0].update.promote_after: expected a duration"),
        ({"progress_deadline": ""}, "services[0].update.progress_deadline: expected a duration; leave it out"),
        ({"progress_deadline": "0s"}, "services[0].update.progress_deadline: expected at least 1ms"),
        (
            {"healthy_for": "20m"} | {"progress_deadline": "10m"},
            "services[0].update.healthy_for: longer than the progress_deadline",
        ),
        ({"healthy_for": "20m"}, "services[0].update.healthy_for: longer than the progress_deadline"),
        ("rollback", "services[0].update: expected a mapping"),
        ([], "services[0].update: expected a mapping"),
    ],
)
def test_a_policy_that_can_not_be_is_refused_at_its_place(update, problem):
    (found,) = refused(update)
    assert found.startswith(problem), found


def test_a_time_for_canaries_that_there_are_not_is_a_warning():
    (warning,) = [str(one) for one in check({"promote_after": "10m"}).warnings]
    assert warning.endswith("services[0].update.promote_after: says nothing without canaries")
    assert check({"promote_after": "10m", "canaries": 4}).warnings == ()


def test_a_shutdown_delay_is_stored_as_nanoseconds_and_only_where_it_was_given():
    (plain,) = check().task_definitions
    assert "shutdown_delay" not in decode(encode(plain), dict)
    (delayed,) = check(definition={"shutdown_delay": "5s"}).task_definitions
    assert decode(encode(delayed), dict)["shutdown_delay"] == 5_000_000_000
    assert decode(encode(delayed), TaskDefinition) == delayed


@pytest.mark.parametrize("delay", ["", "soon", 5, "-1s", "20000000h", "1us"])
def test_a_shutdown_delay_that_can_not_be_is_refused(delay):
    (found,) = refused(definition={"shutdown_delay": delay})
    assert found.startswith("task_definitions[0].shutdown_delay: ")


@pytest.mark.parametrize("none", [0, "0", "0s"])
def test_no_delay_can_be_said_too(none):
    (definition,) = check(definition={"shutdown_delay": none}).task_definitions
    assert definition.shutdown_delay == 0
    assert check({"healthy_for": none}).services[0].update_policy.healthy_for == none
