"""What a manifest as a whole is held to: references, pairs, bounds, what is stored, and how it is all reported."""

import time

import msgspec
import pytest
import yaml

from sked_core.errors import InvalidManifest
from sked_core.model.codec import encode
from sked_core.model.manifest import StoredConfig, report
from sked_core.model.resolve import derived_bounds, normalise
from sked_core.model.types import Check, Cluster, Container, Service, TaskDefinition
from sked_core.model.validate import MAX_DECLARED_BYTES, validate
from sked_core.model.yaml_source import parse
from sked_core.plugin import Problem, check_spec


class DockerSpec(msgspec.Struct):
    image: str
    container_port: int = 0
    ports: list[int] = []


class Docker:
    """An executor as far as manifests need one."""

    def validate(self, spec):
        return check_spec(spec, DockerSpec)

    def ports(self, spec, port):
        return frozenset(spec.get("ports", ()))


def check(*texts, stored=None, executors=None, schedulers=("default",), names=("hello.yml", "b.yml", "c.yml")):
    sources = [parse(text.encode(), name) for text, name in zip(texts, names, strict=False)]
    return validate(sources, stored=stored, executors=executors or {"docker": Docker()}, schedulers=schedulers)


def refused(*texts, stored=StoredConfig(), **options):  # noqa: B008  frozen
    with pytest.raises(InvalidManifest) as caught:
        check(*texts, stored=stored, **options)
    return [str(problem) for problem in caught.value.problems]


def applied(*texts, stored=StoredConfig(), **options):  # noqa: B008  frozen
    return check(*texts, stored=stored, **options)


def definition(name="web", version=1, **more):
    containers = [{"name": name, "type": "docker", "executor": {"image": "hello"}}]
    return {"name": name, "version": version, "containers": containers, **more}


def service(name="web", **more):
    return {"name": name, "task_name": "web", "task_version": 1, **more}


def manifest(*, clusters=({"name": "default", "services": ["web"]},), services=(), definitions=()):
    return yaml.safe_dump(
        {"clusters": list(clusters), "services": list(services), "task_definitions": list(definitions)},
        sort_keys=False,
    )


def whole(**service_fields):
    return manifest(services=[service(**service_fields)], definitions=[definition()])


EXAMPLE = """\
clusters:
  - {name: default, services: [helloworld]}
services:
  - name: helloworld
    task_name: helloworld
    task_version: 2
    scheduler: default
    desired: four
    mni: 3
    max: 4
task_definitions:
  - name: helloworld
    version: 2
    provide_port: true
    containers:
      - {name: helloworld, type: docker,
         executor: {image: "example.org/w1", container_port: http}}
"""


def test_the_report_is_that_of_the_manual_byte_for_byte():
    with pytest.raises(InvalidManifest) as caught:
        check(EXAMPLE, stored=StoredConfig())
    assert report(caught.value.problems) == (
        'hello.yml:8:14: services[0].desired: expected a whole number, got "four"\n'
        'hello.yml:9:5: services[0].mni: unknown field, did you mean "min"?\n'
        "hello.yml:17:62: task_definitions[0].containers[0].executor.container_port (docker):"
        ' expected a whole number, got "http"\n'
        "3 errors in 1 file"
    )


def test_a_report_counts_errors_and_files_and_not_warnings():
    problems = [Problem("a", "x", "f", 1, 1), Problem("b", "y", "g", 1, 1), Problem("c", "z", "h", 1, 1, warning=True)]
    assert report(problems).splitlines()[-1] == "2 errors in 2 files"
    assert report(problems[:1]).splitlines()[-1] == "1 error in 1 file"
    assert report(problems[2:]) == "h:1:1: warning: c: z"
    assert report([]) == ""


def test_the_example_of_the_contract_is_stored_as_the_contract_shows_it():
    text = """
clusters:
  - {name: default, services: [helloworld]}
services:
  - {name: helloworld, task_name: helloworld, task_version: 2, scheduler: default, desired: 4, min: 3, max: 4}
task_definitions:
  - name: helloworld
    version: 2
    provide_port: true
    tags: [urlprefix-/helloworld]
    containers:
      - name: helloworld
        type: docker
        executor: {image: hello, container_port: 80}
        checks: [{http: "http://127.0.0.1:$PROVIDED_PORT", interval: 10s}]
"""
    found = applied(text)
    assert msgspec.json.decode(encode(found.task_definitions[0])) == {
        "name": "helloworld", "version": 2, "provide_port": True, "port": 0,
        "tags": ["urlprefix-/helloworld"], "memory": 0, "cpu_units": 0,
        "containers": [{
            "name": "helloworld", "type": "docker", "executor": {"container_port": 80, "image": "hello"}, "setup": None,
            "checks": [{"id": "", "name": "", "http": "http://127.0.0.1:$PROVIDED_PORT", "tcp": "", "script": "",
                        "interval": "10s", "timeout": "", "ttl": ""}],
            "memory": 0, "cpu_units": 0, "disk_use": 0,
        }],
        "grace_period": 60000000000, "max_attempts": 10,
    }  # fmt: skip
    assert msgspec.to_builtins(found.clusters[0]) == {
        "name": "default", "datacenter": "", "services": ["helloworld"], "hosts": None,
    }  # fmt: skip
    assert found.services == (
        Service(name="helloworld", task_name="helloworld", task_version=2, desired=4, min=3, max=4),
    )
    assert found.warnings == ()


# Names: reliability cases A1 to A38.
BAD_NAMES = [
    "", " ", ".", "..", "../../config/clusters/x", "a/b", "/a", "a//b", "a%2Fb", "%2e%2e%2f", "a\nb", "a\r\nX: y",
    "a" * 64, "a" * 70_000, "Web", "-rf", "--privileged", "a.", "a-", "e\u0301", "\u00e9", "\u0430bc", "a\u202eb",
    "a\u200bb", "\ufeffa", "\U0001f600", "<script>alert(1)</script>", '"><img src=x>', "$(touch /tmp/x)", "`x`",
    ";touch x", "${HOME}", "{{7*7}}", "\x1b[2J", "\x1b]8;;http://x\x07y", "a\rb", '{"a":1}', "__class__", "' OR 1=1",
    "a_b", "a b", "a\tb", "a\n", 7, True, None, [], {}, 1.5,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_bad_name_is_refused_wherever_it_stands_and_shown_harmlessly(name):
    text = manifest(
        clusters=[{"name": name, "services": [name]}],
        services=[service(name)],
        definitions=[{"name": name, "version": 1, "containers": [{"name": name, "type": "docker", "executor": {}}]}],
    )
    lines = refused(text)
    for path in (
        "clusters[0].name",
        "clusters[0].services[0]",
        "services[0].name",
        "task_definitions[0].name",
        "task_definitions[0].containers[0].name",
    ):
        assert any(f" {path}: expected " in line for line in lines), path
    assert all(line.isprintable() and len(line) < 300 for line in lines)


@pytest.mark.parametrize("name", ["a", "0", "con", "tasks", "hosts", "meta", "null", "a-b--c", "a" * 63])
def test_a_good_name_is_a_good_name(name):
    text = manifest(clusters=[{"name": name, "services": [name]}], services=[service(name)], definitions=[definition()])
    assert applied(text).services[0].name == name


def test_a_hostile_field_name_is_shown_harmlessly():
    (line,) = refused(whole(**{"\x1b[2J": 1}))
    assert line.isprintable()
    assert r"services[0].\x1b[2J: unknown field" in line


def test_a_service_left_to_the_defaults_gets_one_task_and_room_for_one_more():
    (found,) = applied(whole()).services
    assert (found.desired, found.min, found.max, found.auto_bounds) == (1, 1, 2, True)


@pytest.mark.parametrize(
    ("desired", "bounds"), [(0, (0, 1)), (1, (1, 2)), (4, (4, 5)), (5, (5, 7)), (8, (8, 10)), (100, (100, 125))]
)
def test_bounds_that_are_left_out_follow_desired(desired, bounds):
    assert derived_bounds(desired) == bounds
    (found,) = applied(whole(desired=desired)).services
    assert (found.min, found.max, found.auto_bounds) == (*bounds, True)


def stored_service(**fields):
    return StoredConfig(
        services={"web": Service(name="web", task_name="web", task_version=1, **fields)},
        clusters={"default": Cluster(name="default", services=["web"])},
        task_definitions={("web", 1): TaskDefinition(name="web", version=1)},
    )


def test_a_service_applied_again_keeps_the_count_it_was_scaled_to():
    stored = stored_service(desired=7, min=7, max=9, auto_bounds=True)
    (found,) = applied(manifest(services=[service()]), stored=stored).services
    assert (found.desired, found.min, found.max, found.auto_bounds) == (7, 7, 9, True)
    (found,) = applied(manifest(services=[service(desired=2)]), stored=stored).services
    assert (found.desired, found.min, found.max) == (2, 2, 3)


def test_bounds_that_the_kept_count_does_not_meet_are_refused_with_that_count():
    stored = stored_service(desired=7, min=7, max=9, auto_bounds=True)
    (line,) = refused(manifest(services=[service(max=5)]), stored=stored)
    assert line.endswith("services[0].max: expected no less than the current count of 7, got 5")


def test_one_given_bound_pins_the_other():
    (found,) = applied(whole(desired=2, max=6)).services
    assert (found.min, found.max, found.auto_bounds) == (2, 6, False)
    (found,) = applied(whole(desired=4, min=2)).services
    assert (found.min, found.max, found.auto_bounds) == (2, 5, False)


def test_a_service_as_it_is_stored_can_be_applied_again():
    (found,) = applied(whole(desired=4)).services
    again = msgspec.to_builtins(found)
    assert applied(manifest(services=[again], definitions=[definition()])).services == (found,)


def test_no_room_to_replace_a_task_is_a_warning():
    (warning,) = applied(whole(desired=2, min=2, max=2)).warnings
    assert warning.path == "services[0].max"
    assert "no room to replace a task" in str(warning)
    assert applied(whole(desired=0, min=0, max=0)).warnings == ()


def test_what_an_object_refers_to_may_be_stored_already():
    stored = stored_service()
    assert applied(manifest(services=[service()]), stored=stored).services[0].name == "web"
    assert applied("clusters: [{name: other, services: [web]}]", stored=stored).clusters[0].name == "other"


def test_what_is_in_neither_is_missing_with_the_nearest_name():
    lines = refused(manifest(clusters=[{"name": "c", "services": ["wbe"]}], services=[service(task_name="wep")]),
                    stored=stored_service())  # fmt: skip
    assert any('clusters[0].services[0]: no service "wbe", did you mean "web"?' in line for line in lines)
    assert any('services[0].task_name: no task definition wep, did you mean "web"?' in line for line in lines)


def test_thousands_of_objects_are_checked_in_one_go():
    names = [f"s{number}" for number in range(2000)]
    text = manifest(
        clusters=[{"name": "default", "services": names}],
        services=[service(name, task_name=f"t-{name}") for name in names],
        definitions=[definition(name) for name in names],
    )
    began = time.monotonic()
    lines = refused(text)
    assert time.monotonic() - began < 30  # under a second on an idle machine; a quadratic check takes minutes
    assert len(lines) == len(names)


def test_a_missing_version_names_those_that_exist():
    (line,) = refused(manifest(services=[service(task_version=3)]), stored=stored_service())
    assert line.endswith("services[0].task_version: no version 3 of web; there is 1")


def test_without_a_store_what_is_missing_is_only_a_warning():
    found = check("clusters: [{name: c, services: [web]}]\n", manifest(clusters=(), services=[service()]), stored=None)
    (warning,) = found.warnings
    assert "no task definition web in these files (no store was asked)" in str(warning)


def test_references_are_not_judged_while_a_file_can_not_be_read():
    lines = refused(manifest(services=[service()]), "task_definitions: [")
    assert len(lines) == 1
    assert lines[0].startswith("b.yml:")


def test_a_misspelt_name_is_one_problem_and_not_two():
    lines = refused(manifest(clusters=[{"name": "default", "services": ["web"]}], services=[service("We_b")]))
    assert not any("no service" in line for line in lines)


def test_files_and_documents_are_one_apply_and_each_name_stands_once():
    one = "clusters: [{name: default, services: [web]}]\n---\n" + manifest(clusters=(), services=[service()])
    two = manifest(clusters=(), services=[service()], definitions=[definition()])
    (line,) = refused(one, two)
    assert line == 'b.yml:3:9: services[0].name: "web" is declared already at hello.yml:5:9'


def test_versions_of_one_definition_are_different_objects():
    text = manifest(services=[service()], definitions=[definition(version=1), definition(version=2)])
    assert [d.version for d in applied(text).task_definitions] == [1, 2]


def collision(first, second):
    return (
        f"two (cluster, service) pairs with one task id: {first} and {second} would both be"
        " a-b-c-<version>-<instance>; rename one of them"
    )


def test_pairs_with_one_task_id_are_refused_across_files():
    services = manifest(clusters=(), services=[service("b-c"), service("c")], definitions=[definition()])
    (line,) = refused("clusters: [{name: a, services: [b-c]}]", "clusters: [{name: a-b, services: [c]}]", services)
    assert line == "b.yml:1:35: clusters[0].services[0]: " + collision("(a, b-c)", "(a-b, c)")


def test_pairs_with_one_task_id_are_refused_across_the_store():
    stored = StoredConfig(
        clusters={"a": Cluster(name="a", services=["b-c"])},
        task_definitions={("web", 1): TaskDefinition(name="web", version=1)},
    )
    text = manifest(clusters=[{"name": "a-b", "services": ["c"]}], services=[service("c")])
    (line,) = refused(text, stored=stored)
    assert line.endswith("clusters[0].services[0]: " + collision("(a, b-c)", "(a-b, c)"))
    gone = "---\nclusters: [{name: a, services: []}]\n"
    assert len(applied(text + gone, stored=stored).clusters) == 2


def test_one_service_in_several_clusters_is_fine():
    clusters = [{"name": "a", "services": ["web"]}, {"name": "b", "services": ["web"]}]
    assert len(applied(manifest(clusters=clusters, services=[service()], definitions=[definition()])).clusters) == 2


def test_a_cluster_that_drops_a_service_is_a_warning():
    text = manifest(clusters=[{"name": "default", "services": ["new"]}], services=[service("new")])
    (warning,) = applied(text, stored=stored_service()).warnings
    assert str(warning) == (
        "hello.yml:4:3: warning: clusters[0].services: no longer lists web: tasks of it in this cluster will be stopped"
    )


def test_hosts_that_leave_none_are_a_warning():
    text = manifest(clusters=[{"name": "default", "services": ["web"], "hosts": []}], services=[service()],
                    definitions=[definition()])  # fmt: skip
    (warning,) = applied(text).warnings
    assert warning.path == "clusters[0].hosts"


def stored_definition(text):
    found = applied(text).task_definitions[0]
    return StoredConfig(task_definitions={(found.name, found.version): found})


def test_a_definition_with_other_content_is_refused_with_the_difference_and_the_next_version():
    stored = stored_definition(manifest(clusters=(), definitions=[definition()]))
    other = definition(memory=64)
    other["containers"][0]["executor"]["image"] = "hello:2"
    (line,) = refused(manifest(clusters=(), definitions=[other]), stored=stored)
    assert line.startswith(
        "hello.yml:5:12: task_definitions[0].version: version 1 of web is applied already with other"
    )
    assert '(memory: 0 -> 64; containers[0].executor.image: "hello" -> "hello:2")' in line
    assert line.endswith("task definitions are immutable: raise the version to 2")


def test_the_advised_version_is_above_the_newest():
    stored = StoredConfig(
        task_definitions={("web", v): TaskDefinition(name="web", version=v) for v in (1, 2, 8)},
    )
    (line,) = refused(manifest(clusters=(), definitions=[definition()]), stored=stored)
    assert line.endswith("raise the version to 9")


@pytest.mark.parametrize(
    "said",
    [{}, {"grace_period": "60s"}, {"grace_period": "1m"}, {"grace_period": 60_000_000_000}, {"tags": []},
     {"tags": None}, {"max_attempts": 10}, {"port": 0}],
)  # fmt: skip
def test_the_same_content_said_otherwise_is_no_change(said):
    stored = stored_definition(manifest(clusters=(), definitions=[definition()]))
    assert applied(manifest(clusters=(), definitions=[definition(**said)]), stored=stored).task_definitions


def test_one_and_true_are_not_the_same_content():
    one, true = definition(), definition()
    one["containers"][0]["executor"]["container_port"] = 1
    stored = stored_definition(manifest(clusters=(), definitions=[one]))
    true["containers"][0]["executor"]["container_port"] = 2
    assert len(refused(manifest(clusters=(), definitions=[true]), stored=stored)) == 1


def test_a_long_difference_is_cut():
    old, new = definition(), definition(tags=[f"tag-{n}" for n in range(20)])
    stored = stored_definition(manifest(clusters=(), definitions=[old]))
    (line,) = refused(manifest(clusters=(), definitions=[new]), stored=stored)
    assert "; and 16 more)" in line
    assert len(line) < 500


def test_a_stored_definition_that_can_not_be_read_is_not_overwritten():
    stored = StoredConfig.from_values({"config/task_definitions/web/1": b"{"})
    (line,) = refused(manifest(clusters=(), definitions=[definition()]), stored=stored)
    assert "version 1 of web is stored already and can't be read" in line


def test_durations_and_lists_are_stored_in_one_form():
    raw = TaskDefinition(
        name="web", version=1, tags=None, grace_period="1m30s",
        containers=[Container(name="web", type="docker", setup=[], checks=[Check(tcp="a:1", interval=1_500_000_000)])],
    )  # fmt: skip
    found = normalise(raw)
    assert (found.grace_period, found.tags) == (90_000_000_000, [])
    assert found.containers[0].setup is None
    assert found.containers[0].checks == [Check(tcp="a:1", interval="1s500ms")]
    assert normalise(found) == found


def test_an_executor_that_is_not_installed_ends_in_the_pip_install():
    (line,) = refused(whole(), executors={"paper": Docker()})
    assert 'containers[0].type: executor "docker" is not installed: pip install sked-docker' in line


class Broken:
    def __init__(self, answer, ports=(80,)):
        self.answer, self.taken = answer, ports

    def validate(self, spec):
        spec["image"] = "changed"
        spec.setdefault("env", []).append("x")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def ports(self, spec, port):
        return frozenset(self.taken)


@pytest.mark.parametrize("answer", [RuntimeError("boom\x1b"), None, 7, ["text"]])
def test_an_executor_that_fails_to_validate_is_one_problem_at_its_place(answer):
    (line,) = refused(whole(), executors={"docker": Broken(answer)})
    assert "task_definitions[0].containers[0].executor (docker): the executor could not check this" in line
    assert line.startswith("hello.yml:16:7:")
    assert line.isprintable()


@pytest.mark.parametrize("port", ["80", 0, 65536, -1, 80.0, None])
def test_an_executor_that_tells_of_ports_that_can_not_be_is_one_problem_at_its_place(port):
    (line,) = refused(whole(), executors={"docker": Broken([], [port])})
    assert "(docker): the executor could not check this: InvalidValue: expected a port from 1 to 65535" in line


def test_an_executor_can_not_change_what_is_stored():
    found = applied(whole(), executors={"docker": Broken([])})
    assert found.task_definitions[0].containers[0].executor == {"image": "hello"}


def test_what_an_executor_warns_of_stays_a_warning():
    warned = Broken([Problem("image", "no tag: latest is taken", warning=True)])
    (warning,) = applied(whole(), executors={"docker": warned}).warnings
    assert warning.path == "task_definitions[0].containers[0].executor.image (docker)"


def test_two_containers_of_a_task_can_not_take_one_port():
    both = definition()
    both["containers"] = [
        {"name": name, "type": "docker", "executor": {"image": "x", "ports": [80]}} for name in ("a", "b")
    ]
    (line,) = refused(manifest(services=[service()], definitions=[both]))
    assert line.endswith("containers[1].executor (docker): port 80 is taken by containers[0] already")


def test_a_definition_that_would_not_fit_into_the_store_is_refused():
    big = definition(tags=["x" * 1000] * (MAX_DECLARED_BYTES // 1000 + 1))
    (line,) = refused(manifest(services=[service()], definitions=[big]))
    assert f"more than the {MAX_DECLARED_BYTES} that fit into the store" in line


def test_stored_config_sets_aside_what_it_can_not_read():
    stored = StoredConfig.from_values({
        "config/services/web": encode(Service(name="web", task_name="web", task_version=1)),
        "config/services/other": encode(Service(name="web", task_name="web", task_version=1)),
        "config/clusters/default": b"null",
        "config/clusters/c": b'{"name": "c", "unknown": 1}',
        "config/task_definitions/web/1": encode(TaskDefinition(name="web", version=1)),
        "config/task_definitions/web/x": encode(TaskDefinition(name="web", version=1)),
        "config/task_definitions/web": b"[" * 100_000,
        "config/hosts/h": b"",
    })  # fmt: skip
    assert set(stored.services) == {"web"}
    assert set(stored.clusters) == {"c"}
    assert set(stored.task_definitions) == {("web", 1)}
    assert set(stored.broken) == {
        "config/services/other", "config/clusters/default", "config/task_definitions/web/x",
        "config/task_definitions/web",
    }  # fmt: skip
