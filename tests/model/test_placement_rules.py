"""Where a service may run: what manifests may say of it, what is wrong in itself, and what today's hosts can't do."""

import pytest
import yaml

from sked_core.errors import InvalidManifest
from sked_core.model.codec import decode, encode
from sked_core.model.manifest import StoredConfig
from sked_core.model.types import ANYWHERE, Cluster, Host, Neighbour, Placement, Service
from sked_core.model.validate import validate
from sked_core.model.yaml_source import parse


class Anything:
    """An executor that takes what it is given, and the port that it is told to take."""

    def validate(self, spec):
        return []

    def ports(self, spec, port):
        return frozenset({spec["port"]} if "port" in spec else ())


def text_of(placement=None, *, definition=None, hosts=None, others=(), **service):
    web = {"name": "web", "task_name": "web", "task_version": 1, "desired": 4, **service}
    if placement is not None:
        web["placement"] = placement
    names = ["web", *(other["name"] for other in others)]
    objects = {
        "clusters": [{"name": "default", "services": names} | ({"hosts": hosts} if hosts else {})],
        "services": [
            web,
            *({"task_name": "web", "task_version": 1, **other} for other in others),
        ],
        "task_definitions": [
            {"name": "web", "version": 1, "containers": [{"name": "web", "type": "bash"}], **(definition or {})}
        ],
    }
    return yaml.safe_dump(objects, sort_keys=False)


def check(text, stored=None):
    return validate(
        [parse(text.encode(), "web.yml")], stored=stored, executors={"bash": Anything()}, schedulers=("default",)
    )


def problems(placement, stored=StoredConfig(), **more):  # noqa: B008  frozen
    text = text_of(placement, **more)
    try:
        found = check(text, stored).warnings
    except InvalidManifest as error:
        found = error.problems
    return [str(problem).partition(": ")[2] for problem in found]


def wrong(placement, **more):
    """What is wrong with it, each without the path of the service."""
    found = [line for line in problems(placement, **more) if not line.startswith("warning: ")]
    return [line.removeprefix("services[0].placement.") for line in found]


def test_a_service_without_placement_is_stored_as_ever():
    (service,) = check(text_of()).services
    assert "placement" not in decode(encode(service), dict)
    assert service.placement_rules is ANYWHERE


def test_what_is_said_is_stored_with_its_defaults():
    (service, _) = check(
        text_of(
            {
                "require": ["zone in a, b"],
                "at_most": [{"count": 2}],
                "apart": [{"service": "batch", "per": "rack"}],
                "prefer": [{"host": "disk = ssd", "weight": 20}],
                "spread": [{"over": "zone", "shares": {"a": 2, "b": 1}}],
            },
            others=[{"name": "batch"}],
        )
    ).services
    assert decode(encode(service), Service) == service
    assert service.placement_rules.at_most[0].per == "host"
    assert service.placement_rules.apart == [Neighbour(service="batch", per="rack")]
    assert service.placement_rules.priority == 50


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ({"requires": ["zone = a"]}, 'requires: unknown field, did you mean "require"?'),
        ({"require": "zone = a"}, 'require: expected a list, got "zone = a"'),
        ({"require": ["zone == a"]}, 'require[0]: unknown operator "==", did you mean "="?'),
        ({"require": [{"zone": "a"}]}, "require[0]: expected text, got a mapping"),
        ({"require": ["a exists", "rack matches r["]}, "require[1]: "),
        ({"require": ["zone = a", "zone = b"]}, 'require[1]: "zone = b" can\'t hold together with "zone = a": no host'),
        ({"require": ["a < 2", "a > 3"]}, 'require[1]: "a > 3" can\'t hold together with "a < 2": no host'),
        ({"at_most": [{"per": "zone"}]}, "at_most[0].count: required, but missing"),
        ({"at_most": [{"count": 0}]}, "at_most[0].count: expected "),
        ({"at_most": [{"count": 1, "per": "the zone"}]}, "at_most[0].per: expected the name of a tag"),
        ({"at_most": [{"count": 1}, {"count": 2}]}, 'at_most[1].per: "host" is limited already, by placement'),
        (
            {"distinct_hosts": True, "at_most": [{"count": 2}]},
            'at_most[0].per: "host" is limited already, by placement.distinct_hosts',
        ),
        (
            {"require": ["zone in a, b"], "at_most": [{"count": 1, "per": "zone"}]},
            "at_most[0].count: 1 per zone allows 2 tasks on a, b, but 4 are desired",
        ),
        (
            {"require": ["host.name in h1, h2, h3"], "distinct_hosts": True},
            "distinct_hosts: 1 per host allows 3 tasks on h1, h2, h3, but 4 are desired",
        ),
        ({"near": [{"service": "web"}]}, "near[0].service: a service can't be near itself"),
        ({"apart": [{"service": "web"}]}, "apart[0].service: to keep its own tasks apart write distinct_hosts"),
        (
            {"apart": [{"service": "web", "per": "zone"}]},
            "apart[0].service: to keep its own tasks apart write at_most: [{count: 1, per: zone}]",
        ),
        ({"near": [{"service": "Batch"}]}, "near[0].service: expected 1 to 63 of a-z 0-9 -"),
        ({"near": [{"service": "bath"}]}, 'near[0].service: no service "bath", did you mean "batch"?'),
        ({"apart": [{"service": "bath"}]}, 'apart[0].service: no service "bath", did you mean "batch"?'),
        ({"prefer": [{"service": "bath"}]}, 'prefer[0].service: no service "bath", did you mean "batch"?'),
        (
            {"near": [{"service": "batch"}], "apart": [{"service": "batch"}]},
            "apart[0]: batch can't be near and apart at once: placement.near[0] says near",
        ),
        (
            {"near": [{"service": "batch"}], "apart": [{"service": "batch", "per": "zone"}]},
            "apart[0]: batch can't be near and apart at once: placement.near[0] says near",
        ),
        ({"leave_free": 100}, "leave_free: expected "),
        ({"prefer": [{"weight": 5}]}, "prefer[0]: exactly one of host and service, got none"),
        (
            {"prefer": [{"host": "a exists", "service": "batch"}]},
            "prefer[0]: exactly one of host and service, got both",
        ),
        ({"prefer": [{"host": "ssd"}]}, "prefer[0].host: expected a name, an operator"),
        ({"prefer": [{"host": "a exists", "weight": 0}]}, "prefer[0].weight: 0 makes no difference"),
        ({"prefer": [{"host": "a exists", "weight": 500}]}, "prefer[0].weight: expected "),
        ({"spread": [{"weight": 5}]}, "spread[0].over: required, but missing"),
        ({"spread": [{"over": ""}]}, "spread[0].over: expected the name of a tag"),
        ({"spread": [{"over": "zone"}, {"over": "zone"}]}, 'spread[1].over: "zone" is spread over already'),
        ({"spread": [{"over": "zone", "shares": {"a": "50%"}}]}, "spread[0].shares.a: expected a whole number, got"),
        ({"spread": [{"over": "zone", "shares": {"a": -1}}]}, "spread[0].shares.a: expected "),
        ({"spread": [{"over": "zone", "shares": {"a": 0}}]}, "spread[0].shares: expected at least one share above 0"),
        ({"priority": 101}, "priority: expected "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once_with_what_would_be_right(placement, said):
    found = wrong(placement, others=[{"name": "batch"}])
    assert len(found) == 1
    assert found[0].startswith(said)


def test_each_mistake_has_its_place_in_the_file():
    text = "\n".join([
        "clusters: [{name: default, services: [web]}]",
        "services:",
        "  - name: web",
        "    task_name: web",
        "    task_version: 1",
        "    placement:",
        "      require:",
        "        - zone in a, b",
        "        - kernel => 5",
        "      spread: [{over: zone, shares: {a: 0}}]",
        "task_definitions:",
        "  - {name: web, version: 1, containers: [{name: web, type: bash}]}",
    ])  # fmt: skip
    with pytest.raises(InvalidManifest) as caught:
        check(text)
    assert [str(problem) for problem in caught.value.problems] == [
        'web.yml:9:11: services[0].placement.require[1]: unknown operator "=>", did you mean ">="?',
        "web.yml:10:37: services[0].placement.spread[0].shares: expected at least one share above 0",
    ]


def test_a_name_that_no_agent_reports_is_a_warning():
    assert problems({"require": ["host.kernal >= 5"], "spread": [{"over": "host.archs"}]}) == [
        'warning: services[0].placement.require[0]: no agent says host.kernal, did you mean "host.kernel"?',
        'warning: services[0].placement.spread[0].over: no agent says host.archs, did you mean "host.arch"?',
    ]


def test_without_a_store_an_unknown_service_is_a_warning():
    (said,) = problems({"apart": [{"service": "batch"}]}, stored=None)
    assert said.startswith('warning: services[0].placement.apart[0].service: no service "batch" in these files')


def test_a_count_that_was_set_since_is_no_contradiction_of_the_manifest():
    text = text_of({"require": ["zone = a"], "at_most": [{"count": 1, "per": "zone"}]}).replace("  desired: 4\n", "")
    stored = StoredConfig(services={"web": Service(name="web", task_name="web", task_version=1, desired=3)})
    said = [str(problem) for problem in check(text, stored).warnings]
    assert any("1 per zone allows 1 task on a, but 3 are desired" in line for line in said)


def test_services_that_each_want_to_be_near_another_are_a_circle():
    cache = {"name": "cache", "placement": {"near": [{"service": "db", "per": "zone"}]}}
    db = {"name": "db", "placement": {"near": [{"service": "web"}]}}
    said = wrong({"near": [{"service": "cache"}]}, others=[cache, db])
    assert said[0] == "near: a circle, of which none can be the first to run: web near cache near db near web"
    assert len(said) == 3
    stored = StoredConfig(
        services={
            "cache": Service(
                name="cache", task_name="web", task_version=1, placement=Placement(near=[Neighbour(service="web")])
            )
        }
    )
    assert wrong({"near": [{"service": "cache"}]}, stored=stored) == [
        "near: a circle, of which none can be the first to run: web near cache near web"
    ]


def on(*hosts, **more):
    return StoredConfig(hosts={host.name: host for host in hosts}, **more)


def a_host(name, zone=None, **fields):
    facts = {"memory": 8000, "cpu_units": 4096, "disk": 10000, "executors": ["bash"], **fields}
    return Host(name=name, tags={"zone": zone} if zone else {}, **facts)


HOSTS = (a_host("h1", "a"), a_host("h2", "a", memory=4000), a_host("h3", "b"), a_host("h4"))
BIG = {"memory": 5000}


@pytest.mark.parametrize(
    ("placement", "more", "said"),
    [
        (
            {"require": ["disk exists", "zone = c"]}, {},
            "placement.require[0]: no host of today satisfies it (disk: not set on 4 hosts): tasks wait",
        ),
        (
            {"require": ["zone = c"]}, {},
            "placement.require[0]: no host of today satisfies it (zone: a on 2 hosts, b on 1 host, not set on 1 host)",
        ),
        ({"require": ["zone = b", "host.name = h1"]}, {}, "placement.require: no host of today satisfies all of it"),
        (
            None, {"definition": {"memory": 9000}},
            "task_name: no host of today has what one task needs (memory 9000 MB, the most is 8000 MB): tasks wait",
        ),
        (
            {"leave_free": 50}, {"definition": {"memory": 5000}},
            "task_name: no host of today has what one task needs (memory 5000 MB, the most is 4000 MB)",
        ),
        (
            {"require": ["zone = a"]}, {"definition": {"memory": 7000, "cpu_units": 5000}},
            "task_name: no host of today that satisfies placement.require has what one task needs (cpu 5000 units, the",
        ),
        (
            {"distinct_hosts": True}, {"desired": 5},
            "placement.distinct_hosts: 5 tasks are desired, there is room for 4 today (1 per host on 4 hosts)",
        ),
        (
            {"require": ["zone exists"], "at_most": [{"count": 1, "per": "zone"}]}, {},
            "placement.at_most[0]: 4 tasks are desired, there is room for 2 today (1 per zone on 3 hosts)",
        ),
        (
            {"at_most": [{"count": 9}, {"count": 1, "per": "zone"}]}, {"desired": 3, "min": 0},
            "placement.at_most[1]: 3 tasks are desired, there is room for 2 today (1 per zone on 4 hosts)",
        ),
        (
            {"at_most": [{"count": 9}]}, {"definition": BIG, "desired": 5},
            "desired: 5 tasks are desired, there is room for 3 today (they fill 3 hosts)",
        ),
        (
            None, {"definition": {"port": 80}, "desired": 5},
            "task_name: 5 tasks are desired, there is room for 4 today (its port is there once on each of 4 hosts)",
        ),
        (
            {"distinct_hosts": True}, {"desired": 4},
            "placement.distinct_hosts: with 1 per host on 4 hosts there is room for 4 tasks and min is 4: a",
        ),
        (
            {"distinct_hosts": True}, {"desired": 2, "hosts": ["h1", "h2", "h9"]},
            "placement.distinct_hosts: with 1 per host on 2 hosts there is room for 2 tasks and min is 2",
        ),
    ],
)  # fmt: skip
def test_what_the_hosts_of_today_can_not_do_is_said_with_numbers_and_no_error(placement, more, said):
    found = [line for line in problems(placement, stored=on(*HOSTS), **more) if "room to replace a task, a" not in line]
    assert len(found) == 1
    assert found[0].startswith(f"warning: services[0].{said}")


@pytest.mark.parametrize(
    ("placement", "more"),
    [
        (None, {}),
        ({"distinct_hosts": True}, {"desired": 4, "min": 3}),
        ({"require": ["zone exists"], "at_most": [{"count": 2, "per": "zone"}]}, {"desired": 4, "min": 1}),
        ({"leave_free": 10}, {"definition": {"memory": 1000}}),
    ],
)
def test_of_what_they_can_do_nothing_is_said(placement, more):
    assert problems(placement, stored=on(*HOSTS), **more) == []


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ({"spread": [{"over": "zon"}]}, 'placement.spread[0].over: no host of today has zon, did you mean "zone"?'),
        (
            {"prefer": [{"host": "kernel >= 5"}]},
            'prefer[0].host: no host of today has kernel, did you mean "host.kernel"?',
        ),
        ({"apart": [{"service": "batch", "per": "rack"}]}, "placement.apart[0].per: no host of today has rack"),
        ({"require": ["cores >= 2"]}, 'tasks wait until one joins that does, did you mean "host.cores"?'),
    ],
)
def test_a_tag_that_no_host_has_is_told_with_the_one_that_was_meant(placement, said):
    hosts = [a_host("h1", "a", attributes={"kernel": "6.1.0", "cores": "4"}), a_host("h2", "b")]
    (found,) = problems(placement, stored=on(*hosts), others=[{"name": "batch"}])
    assert found.startswith("warning: services[0].placement.")
    assert found.endswith(said)


def test_before_any_host_has_joined_nothing_is_said():
    assert problems({"require": ["zone = c"], "distinct_hosts": True}) == []


def test_each_cluster_is_held_to_its_own_hosts():
    other = Cluster(name="other", services=["web"], hosts=["h4"])
    (said,) = problems({"require": ["zone exists"]}, stored=on(*HOSTS, clusters={"other": other}))
    assert said.startswith(
        "warning: services[0].placement.require[0]: no host of today satisfies it (zone: not set on 1 host)"
    )
