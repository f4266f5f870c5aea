"""What becomes of each thing that stands in a compose file, and what is said of what does not become anything."""

from __future__ import annotations

import contextlib
import json
import re

import msgspec
import pytest
import yaml

from sked_compose import plugin, shape
from sked_core.testing.commands import run_command

SHOP = """\
name: Shop
x-logging: &logs
  logging: {driver: json-file, options: {max-size: 10m}}
services:
  web_front:
    <<: *logs
    image: nginx:${TAG:-1.27}
    command: ["nginx", "-g", "daemon off; # costs $$5"]
    ports: ["8080:80", "127.0.0.1:9000-9001:9000-9001/udp", 443]
    environment: {LANG: C.UTF-8, DEBUG: true, RATE: 1e3, EMPTY: , GIVEN: }
    volumes: ["./www:/usr/share/nginx/html:ro", "cache:/var/cache", "/scratch"]
    deploy:
      replicas: "3"
      resources: {limits: {memory: 1.5g, cpus: "0.5", pids: 100}}
      update_config: {parallelism: 2, failure_action: rollback, monitor: 10s}
    healthcheck: {test: curl -f http://localhost/x?y=1 || exit 1, interval: 5s, start_period: 10s}
    read_only: ${RO:-true}
    cap_drop: [ALL]
    ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 64}
  db:
    image: postgres:16
    environment: ["A=b=c"]
    volumes:
      - {type: volume, source: data, target: /var/lib/postgresql/data, volume: {nocopy: true}}
      - {type: bind, source: /etc/db.conf, target: /etc/db.conf, read_only: true, bind: {create_host_path: false}}
      - {type: tmpfs, target: /run, tmpfs: {size: 64m}}
    deploy:
      placement:
        constraints: [node.labels.zone==a, node.hostname != h-1]
        preferences: [{spread: node.labels.rack}]
        max_replicas_per_node: 1
volumes: {cache: , data: {external: true, name: pgdata}}
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """``imported(text, *options, code=0)``: the manifest, and the lines that were said about it."""
    for name in ("TAG", "RO", "NOPE", "EMPTY", "COMPOSE_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIVEN", "from the shell")
    folder = tmp_path / "shop"
    folder.mkdir()

    def run(text: str, *options: str, code: int = 0):
        (folder / "compose.yml").write_text(text)
        ran = run_command(plugin, "compose", "import", str(folder / "compose.yml"), *options)
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err
        return yaml.safe_load(ran.out), ran.err.replace(f"{folder}/", "").splitlines()

    run.folder = folder
    return run


@pytest.fixture
def one(imported):
    """``one("ports: [80]")``: a service with this line: it, its definition, its executor, and what was said."""

    def run(*lines: str, more: str = "", options: tuple[str, ...] = (), code: int = 0):
        body = "".join(f"    {line}\n" for line in ("image: busybox", "mem_limit: 64m", *lines))
        found, said = imported(f"services:\n  web:\n{body}{more}", *options, code=code)
        if code:
            return None, None, None, said
        (service,), (definition,) = found["services"], found["task_definitions"]
        return service, definition, definition["containers"][0], said

    return run


def _valid(manifest, tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("SKED_BACKEND", f"sqlite://{tmp_path / 'sked.db'}")
    ran = run_command(plugin, "validate", "-f", "-", stdin=json.dumps(manifest))
    assert ran.code == 0, ran.err
    return ran.err


def test_a_whole_file_becomes_manifests_that_are_valid(imported, tmp_path, monkeypatch):
    found, said = imported(SHOP)
    assert found["clusters"] == [{"name": "shop", "services": ["web-front", "db"]}]
    web, db = found["services"]
    update = {"on_failure": "rollback", "healthy_for": "10s"}
    front = {"name": "web-front", "task_name": "web-front", "task_version": 1}
    assert web == front | {"desired": 3, "min": 1, "max": 3, "update": update}
    assert db["placement"] == {
        "require": ["zone = a", "host.name != h-1"],
        "spread": [{"over": "rack"}],
        "at_most": [{"count": 1}],
    }
    first, second = found["task_definitions"]
    folder = imported.folder
    assert {key: first[key] for key in ("port", "memory", "cpu_units", "grace_period")} == {
        "port": 8080, "memory": 1536, "cpu_units": 512, "grace_period": "25s",
    }  # fmt: skip
    assert first["containers"][0]["checks"] == [{"http": "http://127.0.0.1:$PROVIDED_PORT/x?y=1", "interval": "5s"}]
    assert first["containers"][0]["executor"] == {
        "image": "nginx:1.27",
        "cmd": ["nginx", "-g", "daemon off; # costs $5"],
        "container_port": 80,
        "ports": ["127.0.0.1:9000:9000/udp", "127.0.0.1:9001:9001/udp"],
        "env": {"LANG": "C.UTF-8", "DEBUG": "true", "RATE": "1000", "GIVEN": "from the shell"},
        "volumes": [f"{folder}/www:/usr/share/nginx/html:ro", "shop_cache:/var/cache"],
        "flags": [
            "--cap-drop=ALL", "--read-only", "--ulimit=nofile=1024:2048", "--ulimit=nproc=64:64",
            "--log-driver=json-file", "--log-opt=max-size=10m", "--mount=type=volume,target=/scratch",
            "--pids-limit=100",
        ],
    }  # fmt: skip
    assert second["containers"][0]["executor"] == {
        "image": "postgres:16",
        "env": {"A": "b=c"},
        "volumes": ["pgdata:/var/lib/postgresql/data:nocopy", "/etc/db.conf:/etc/db.conf:ro"],
        "flags": ["--mount=type=tmpfs,target=/run,tmpfs-size=64m"],
    }
    losses = [line for line in said if "warning: " in line]
    assert [line.split(": ", 3)[2] for line in losses] == [
        "services.web_front.ports[2]",
        "services.web_front.environment.EMPTY",
    ]
    _valid(found, tmp_path, monkeypatch)


def test_every_field_of_compose_is_carried_over_or_named(imported):
    """What nobody has thought of is refused, so nothing is dropped in silence."""
    fields = [*shape.LEFT, *shape.FLAGS]
    services = "".join(f"  s{index}: {{image: x, {field}: {_value(field)}}}\n" for index, field in enumerate(fields))
    found, said = imported(f"services:\n{services}")
    for index, field in enumerate(fields):
        flags = found["task_definitions"][index]["containers"][0]["executor"].get("flags", [])
        if field in shape.LEFT:
            assert any(f"warning: services.s{index}.{field}: left out: " in line for line in said), field
        else:
            assert [flag.partition("=")[0] for flag in flags] == [f"--{shape.FLAGS[field][0]}"], field


def _value(field: str) -> str:
    """One that the field takes."""
    for value in ("true", "[x]", "1", "x", "{x: y}"):
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(yaml.safe_load(value), {**shape.LEFT, **shape.FLAGS}[field][1])
            return value
    raise AssertionError(f"{field} takes nothing")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("privileged: true", r"left out: .*--privileged"),
        ("depends_on: [db]", "left out: tasks start in any order"),
        ("build: .", "left out: Sked builds no images"),
        ("networks: [back]", "left out: Sked makes no networks"),
        ('restart: "no"', "left out: Sked starts again whatever ends"),
        ("restart: on-failure:3", "changed: after so many starts"),
        ("stop_grace_period: 1m", "left out: a task that is to stop has ten seconds"),
        ("network_mode: service:db", "left out: put both into one task definition"),
        ("deploy: {mode: global}", "changed: one task, and no two on one host"),
        ("deploy: {placement: {constraints: [node.role==manager]}}", "left out: give the hosts a tag"),
        ("healthcheck: {test: pg_isready}", "left out: it runs in the container"),
        ("entrypoint: []", "left out: the image's own"),
        ("environment: {SKED_HOST: x}", "left out: Sked sets it itself"),
        ("configs: [app]", "left out: Sked hands out no files"),
        ("secrets: [pw]", r"left out: .*\{secret: shop/pw\}"),
    ],
)
def test_what_is_lost_is_named_with_its_line_and_strict_refuses_it(one, line, message):
    field = line.partition(":")[0]
    *_, said = one(line)
    (lost,) = [text for text in said if "warning: " in text]
    assert re.match(rf"compose\.yml:5:\d+: warning: services\.web\.{field}[\w.\[\]]*: {message}", lost)
    *_, said = one(line, options=("--strict",), code=3)
    assert any(lost.partition("warning: ")[2] in text for text in said)


def test_strict_takes_a_file_of_which_nothing_is_lost(one):
    service, *_ = one('ports: ["8080:80"]', "restart: always", options=("--strict",))
    assert service["desired"] == 1


@pytest.mark.parametrize(
    ("ports", "fields", "fixed"),
    [
        ('["8080:80"]', {"port": 8080}, None),
        ("[80]", {"provide_port": True}, None),
        ('["127.0.0.1:8080:80"]', {}, ["127.0.0.1:8080:80"]),
        ('["53:53/udp", "8080:80"]', {"port": 8080}, ["53:53/udp"]),
        ('["[::1]:8080:80", "0.0.0.0:81:80"]', {"port": 81}, ["[::1]:8080:80"]),
        ("[{target: 80, published: 8080, host_ip: 10.0.0.1, protocol: tcp}]", {}, ["10.0.0.1:8080:80"]),
    ],
)
def test_one_port_becomes_the_tasks_own_and_the_others_are_fixed(one, ports, fields, fixed):
    _, definition, container, _ = one(f"ports: {ports}")
    assert {name: definition[name] for name in ("port", "provide_port") if name in definition} == fields
    assert container["executor"].get("ports") == fixed
    assert container["executor"].get("container_port") == (80 if fields else None)


def test_hosts_pick_ports_if_that_is_asked_for(one):
    service, definition, _, _ = one('ports: ["8080:80"]', "scale: 3", options=("--provide-ports",))
    assert (definition["provide_port"], service) == (True, service | {"desired": 3})
    assert "min" not in service, "such tasks can be beside one another"


@pytest.mark.parametrize(
    ("test", "check"),
    [
        ('["CMD", "curl", "-f", "http://localhost"]', {"http": "http://127.0.0.1:$PROVIDED_PORT/"}),
        ('["CMD-SHELL", "wget -qO- http://127.0.0.1:80/up || exit 1"]', {"http": "http://127.0.0.1:$PROVIDED_PORT/up"}),
        ('["CMD", "wget", "-q", "-T", "5", "--spider", "localhost:80"]', {"http": "http://127.0.0.1:$PROVIDED_PORT/"}),
        ('"nc -z localhost 80"', {"tcp": "127.0.0.1:$PROVIDED_PORT"}),
        ('"curl -f http://localhost:81/"', None),
        ('["CMD", "curl", "-f", "-H", "Authorization: x", "http://localhost/"]', None),
        ('["CMD", "wget", "--post-data=x", "http://localhost/"]', None),
        ('"curl -f http://localhost/ | grep ok"', None),
    ],
)
def test_commands_that_ask_the_port_become_checks_and_others_a_look_at_it(one, test, check):
    *_, container, said = one("ports: [80]", f"healthcheck: {{test: {test}, timeout: 3s}}")
    assert container["checks"] == [(check or {"tcp": "127.0.0.1:$PROVIDED_PORT"}) | {"timeout": "3s"}]
    assert any("healthcheck.test: changed" in line for line in said) == (check is None)


def test_curl_that_takes_any_status_is_told_from_a_check_that_does_not(one):
    *_, container, said = one("ports: [80]", "healthcheck: {test: curl -sS http://localhost/}")
    assert container["checks"] == [{"http": "http://127.0.0.1:$PROVIDED_PORT/"}]
    assert any("changed: curl without -f passes whatever the status is" in line for line in said)


def test_what_variables_leave_empty_is_not_said(one):
    check = "healthcheck: {test: 'curl -f http://localhost', interval: $NOPE, retries: $NOPE}"
    *_, container, said = one("platform: ${NOPE}", "hostname: ${NOPE}", check, "ports: [80]")
    assert "flags" not in container["executor"]
    assert container["checks"] == [{"http": "http://127.0.0.1:$PROVIDED_PORT/"}]
    assert len([line for line in said if "NOPE is not set" in line]) == 1, "each variable is named once"


def test_a_port_that_only_other_services_reach_is_noticed(one):
    *_, said = one('expose: ["6379"]')
    assert any("expose: no port of the host leads there" in line for line in said)


def test_a_disabled_check_is_none(one):
    *_, container, _ = one("ports: [80]", "healthcheck: {disable: true}")
    assert "checks" not in container


def test_files_of_variables_are_read_as_compose_reads_them(one, imported):
    (imported.folder / ".env").write_text("WHO=world\nGIVEN=from the file\n")
    (imported.folder / "web.env").write_text(
        '# a comment\nexport A=1 # one\nB=\'it is $WHO\'\nC="two\\nlines $WHO \\$5"\nGIVEN\nD=${A}2\nE="x\ny"\n'
    )
    lines = ("env_file: [web.env, {path: gone.env, required: false}]", "environment: {HELLO: $WHO, D: own}")
    *_, container, _ = one(*lines)
    assert container["executor"]["env"] == {
        "A": "1", "B": "it is $WHO", "C": "two\nlines world $5", "GIVEN": "from the shell", "D": "own", "E": "x\ny",
        "HELLO": "world",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A-d}", "d"), ("${E-d}", ""), ("${E:-d}", "d"), ("${F:+r}", "r"), ("${A+r}", ""),
        ("${A:-${F}-${B:-x}}", "f-x"),
        ("$$A ${F}", "$A f"), ("$F.txt", "f.txt"), ("${A:-{}}", "{}"),
    ],
)  # fmt: skip
def test_variables_are_filled_in_as_compose_does(one, monkeypatch, text, value):
    monkeypatch.setenv("E", "")
    monkeypatch.setenv("F", "f")
    *_, container, _ = one(f'environment: {{X: "{text}"}}')
    assert container["executor"]["env"] == {"X": value}


def test_a_variable_that_nobody_set_is_named(one):
    *_, said = one("hostname: h-$NOPE")
    assert "compose.yml:5:15: note: services.web.hostname: the variable NOPE is not set: taken for empty" in said


def test_files_of_secrets_become_secrets_of_sked(one):
    *_, container, said = one("secrets: [pw]", "environment: {DB_PASSWORD_FILE: /run/secrets/pw, API_TOKEN: abc}")
    assert container["executor"]["env"] == {"DB_PASSWORD": {"secret": "shop/pw"}, "API_TOKEN": "abc"}
    assert any("DB_PASSWORD holds the secret shop/pw" in line for line in said)
    assert any("API_TOKEN: will stand in the store in clear" in line for line in said)


def test_a_file_of_variables_from_elsewhere_is_noticed(imported):
    (imported.folder.parent / "other.env").write_text("TOKEN=t\n")
    (imported.folder / "own.env").write_text("A=1\n")
    _, said = imported("services:\n  a: {image: x, env_file: [own.env, ../other.env]}\n")
    assert [line for line in said if "env_file" in line] == [
        "compose.yml:2:37: note: services.a.env_file[1]: it is outside of the project's folder: all that it says is in"
        " the manifest now"
    ]


def test_what_others_wait_for_to_be_through_is_said_to_be_started_again(imported):
    needs = "depends_on: {migrate: {condition: service_completed_successfully}, cache: {condition: service_healthy}}"
    text = f"services:\n  a: {{image: x, {needs}}}\n  migrate: {{image: m}}\n  cache: {{image: redis}}\n"
    _, said = imported(text)
    assert [line for line in said if "to run once" in line] == [
        "compose.yml:3:3: warning: services.migrate: changed: it is to run once: Sked starts again whatever ends, with"
        " growing delays"
    ]


def test_other_services_in_variables_are_noticed(imported):
    text = (
        "services:\n  a: {image: x, environment: {URL: 'redis://cache:6379/0', P: precache}}\n  cache: {image: redis}\n"
    )
    _, said = imported(text)
    assert [line for line in said if "address of the service" in line] == [
        'compose.yml:2:31: note: services.a.environment.URL: it may be the address of the service "cache", a name that'
        " only compose's network knows"
    ]


def test_profiles_are_left_out_unless_they_are_asked_for(imported):
    text = "services:\n  web: {image: x}\n  debug: {image: y, profiles: [dev]}\n"
    found, said = imported(text)
    assert [service["name"] for service in found["services"]] == ["web"]
    assert any("services.debug: left out: it is of the profile dev" in line for line in said)
    found, _ = imported(text, "--profile", "dev", "--cluster", "Test", "--task-version", "7")
    assert found["clusters"] == [{"name": "test", "services": ["web", "debug"]}]
    assert {definition["version"] for definition in found["task_definitions"]} == {7}


def test_it_is_written_to_a_file_and_read_from_a_pipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run_command(plugin, "compose", "import", "-", "-o", "out.yml", stdin="services: {web: {image: x}}")
    assert (ran.code, ran.out) == (0, "")
    assert yaml.safe_load((tmp_path / "out.yml").read_text())["services"][0]["name"] == "web"


BOMB = "a: &a [" + "x, " * 50 + "]\n" + "".join(
    f"{n}: &{n} [{', '.join(['*' + m] * 50)}]\n" for m, n in zip("abcdefg", "bcdefgh", strict=True)
)  # fmt: skip
CHAIN = "x-a: &a {v: 1}\n" + "".join(
    f"x-{n}: &{n} {{<<: [{', '.join(['*' + m] * 40)}]}}\n" for m, n in zip("abcdefg", "bcdefgh", strict=True)
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: [", "YAML syntax"),
        ("[]", "must be a mapping with services"),
        ("services: {}\n", "there is no service"),
        ("services: {web: 5}", "services.web: expected a mapping, got 5"),
        ("services: {web: {}}", "neither image nor build"),
        ("services: {web: {image: x, imgae: y}}", "compose.yml:1:28: services.web.imgae: unknown field, did you"),
        ("services: {web: {image: [x]}}", "compose.yml:1:18: services.web.image: expected text"),
        ("services: {web: {image: x, ports: ['a:b']}}", 'expected a port such as "8080:80", got "a:b"'),
        ("services: {web: {image: x, ports: [1-60000]}}", "a range of more than 100 ports"),
        ("services: {web: {image: x, ports: [{published: 80}]}}", "target: required"),
        ("services: {web: {image: x, environment: [5]}}", "services.web.environment"),
        ("services: {web: {image: x, volumes: ['nope:/x']}}", 'there is no volume "nope"'),
        ("services: {web: {image: x, deploy: {replicas: many}}}", "expected a whole number"),
        ("services: {web: {image: x, deploy: {replicas: 99999999999}}}", "expected a whole number"),
        ("services: {web: {image: x, mem_limit: lots}}", "expected an amount such as 512m"),
        ("services: {web: {image: x, healthcheck: {test: [curl]}}}", "expected CMD, CMD-SHELL or NONE first"),
        ("services: {web: {image: x, env_file: gone.env}}", "there is no file gone.env"),
        ("services: {web: {image: x, env_file: /dev/zero}}", "it is no file"),
        ("services: {web: {image: '${X:?say which}'}}", "the variable X has to be set: say which"),
        ("services: {web: {image: '${X'}}", "is no variable"),
        ("services: {web: {extends: {service: a}, image: x}}", "docker compose config"),
        ("include: [a.yml]\nservices: {web: {image: x}}", "docker compose config"),
        ("services: {a_b: {image: x}, a-b: {image: y}}", 'several services would be called "a-b"'),
        ("services: {web: {image: x, ports: !reset []}}", "tag not allowed"),
        ("services: {" + ", ".join(f"s{n}: {{image: x}}" for n in range(1001)) + "}", "services: more than 1000"),
        (BOMB, "aliases expand too far"),
        (CHAIN, "aliases expand too far"),
        ("services: {web: {image: x, hostname: '" + "${A:-" * 40 + "}" * 40 + "'}}", "nested deeper"),
        ("x: " + "[" * 200, "nested deeper"),
        ("x: " + "y" * 2_000_000, "larger than"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_what_can_not_be_is_refused_with_its_place(imported, text, message):
    found, said = imported(text, code=3)
    assert found is None
    assert any(message in line for line in said), said


def test_variables_can_not_make_a_file_grow_without_end(imported, monkeypatch):
    monkeypatch.setenv("BIG", "x" * 100_000)
    _, said = imported("services:\n  web:\n    image: x\n    command: '" + "$BIG" * 1000 + "'\n", code=3)
    assert any("the file is larger than" in line for line in said)


def test_names_of_strangers_drive_no_terminal(imported):
    _, said = imported('services: {web: {image: x, "\\x1b[31m": y}}', code=3)
    assert "\x1b" not in "".join(said)


@pytest.mark.parametrize("name", ["compose.yml", "../shop/compose.yml"])
def test_the_compose_file_is_not_written_over(imported, name):
    text = "services: {web: {image: x}}"
    _, said = imported(text, "-o", str(imported.folder / name), code=2)
    assert "is the compose file itself" in said[0]
    assert (imported.folder / "compose.yml").read_text() == text
