"""Writes the corpus of hostile input: ``python tests/hostile/make.py``. What it holds is said here, once; the files are
what tests read, and what people can try by hand. A test compares the two.

A case is a manifest whose first line says what is expected, or a record of the store or any other bytes with that in a
file beside it (``.expect``), which also names its ``key``. Expected is ``reject:`` with the fields that an apply names,
or with ``policy`` and the gate that an agent names; ``normalised:`` with a field and the JSON that is stored; or
``isolate``: it is left alone, and so is everything beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Files = dict[str, bytes]

NAMES: dict[str, Any] = {
    "A01-empty": "", "A02-space": " ", "A03-dot": ".", "A04-dotdot": "..", "A05-traversal": "../../config/clusters/x",
    "A06-slash": "a/b", "A07-leading-slash": "/a", "A08-double-slash": "a//b", "A09-encoded-slash": "a%2Fb",
    "A10-encoded-dots": "%2e%2e%2f", "A11-nul": "a\0b", "A12-newline": "a\nb", "A13-header": "a\r\nX-Evil: 1",
    "A14-64-characters": "a" * 64, "A14-5000-characters": "a" * 5000, "A15-upper-case": "Web", "A16-dash": "-rf",
    "A17-flag": "--privileged", "A18-trailing-dash": "web-", "A18-trailing-dot": "web.", "A19-nfc": "caf\u00e9",
    "A19-nfd": "cafe\u0301", "A20-homoglyph": "w\u0435b", "A21-override": "a\u202eb", "A21-zero-width": "a\u200bb",
    "A21-bom": "\ufeffa", "A22-surrogate": "\ud800", "A23-emoji": "\U0001f4a3", "A24-script": "<script>alert(1)</script>",
    "A25-image": '"><img src=x onerror=alert(1)>', "A26-substitution": "$(touch canary)", "A27-backticks": "`touch canary`",
    "A28-semicolon": ";touch canary", "A29-variable": "${HOME}", "A30-template": "{{7*7}}", "A31-clear": "\x1b[2Ja",
    "A31-link": "\x1b]8;;http://evil\x07a", "A31-return": "good\rbad", "A34-json": '{"a":1}', "A35-number": 7,
    "A35-bool": True, "A35-null": None, "A35-list": ["a"], "A37-class": "__class__", "A37-proto": "__proto__",
    "A38-quote": "a' OR '1'='1", "A38-ldap": "*)(uid=*",
}  # fmt: skip
FINE_FOR_HOSTS = {
    "A14-64-characters", "A15-upper-case", "A16-dash", "A17-flag", "A18-trailing-dash", "A18-trailing-dot", "A37-class",
    "A37-proto",
}  # fmt: skip
"""Host names are those of machines, which come as they are."""
GOOD_NAMES = {
    "A33-device": "con", "A36-tasks": "tasks", "A36-hosts": "hosts", "A36-meta": "meta", "A36-state": "state",
    "A36-services": "services", "A36-null": "null",
}  # fmt: skip
TASK_ID = "default-{case}-1-0"
EVERYWHERE = (
    "config/clusters/{case}", "config/services/{case}", "config/task_definitions/{case}/1", "config/hosts/{case}",
    "state/tasks/" + TASK_ID, "state/hosts/{host}/" + TASK_ID, "hosts/marks/{case}", "health/{host}/" + TASK_ID,
    "status/services/{case}", "scheduling/rollouts/{case}", "scheduling/moves/{case}", "rollouts/{case}/1",
    "decisions/{case}/0", "failures/" + TASK_ID, "endings/{host}/9", "events/00000000000001-{case}-1", "agents/{case}",
    "reports/{host}/" + TASK_ID, "scheduling/schedulers/{case}", "scheduling/changed/{case}", "locks/services/{case}",
    "hosts/live/{case}",
)  # fmt: skip
"""Keys of every kind, for values that are wrong under any of them."""


def definition(name: str = "hostile", /, **container: Any) -> dict[str, Any]:
    """A task definition with one bash container, with ``container``'s fields for its own."""
    own = {"name": "web", "type": "bash", "executor": {"start": "exec sleep 1000"}}
    return {"name": name, "version": 1, "containers": [{**own, **container}]}


def manifest(**changes: Any) -> dict[str, Any]:
    """One that applies, but for ``changes``: of the lists, or ``service`` and ``task`` for fields of the only one."""
    service = {"name": "hostile", "task_name": "hostile", "task_version": 1, **changes.pop("service", {})}
    task = {**definition(), **changes.pop("task", {})}
    lists = {"clusters": [{"name": "default", "services": ["hostile"]}], "services": [service]}
    return {**lists, "task_definitions": [task], **changes}


def record(case: str, **changes: Any) -> dict[str, Any]:
    """A task as it would stand in the store, for a type that no host has, but for ``changes``."""
    task = {**definition(type="none"), "name": case.lower()}
    own = {"cluster": {"name": "default", "services": []}, "task_definition": task, "service": case.lower()}
    return {**own, "instance": 0, "scheduled": True, **changes}


class Corpus:
    def __init__(self) -> None:
        self.files: Files = {}

    def text(self, case: str, expect: str, body: str | bytes) -> None:
        """A manifest as it is written."""
        body = body.encode() if isinstance(body, str) else body
        self.files[f"{case[0]}/{case}.yml"] = f"# expect: {expect}\n".encode() + body

    def yml(self, case: str, expect: str, **changes: Any) -> None:
        """A manifest with each list on a line of its own."""
        lists = manifest(**changes)
        self.text(case, expect, "".join(f"{name}: {json.dumps(value)}\n" for name, value in lists.items()))

    def value(self, case: str, key: str, value: bytes, expect: str = "isolate", kind: str = "json") -> None:
        """What stands under ``key`` of the store."""
        self.files[f"{case[0]}/{case}.{kind}"] = value
        self.files[f"{case[0]}/{case}.{kind}.expect"] = f"expect: {expect}\nkey: {key}\n".encode()

    def task(self, case: str, **changes: Any) -> None:
        value = json.dumps(record(case, **changes)).encode()
        self.value(case, "state/hosts/{host}/" + TASK_ID, value)


def names(corpus: Corpus) -> None:
    fields = (
        "clusters[0].name", "services[0].name", "services[0].task_name", "task_definitions[0].name",
        "task_definitions[0].containers[0].name",
    )  # fmt: skip
    for case, name in NAMES.items():
        task = {
            "name": name,
            "version": 1,
            "containers": [{"name": name, "type": "bash", "executor": {"start": "true"}}],
        }
        corpus.yml(
            case,
            "reject:" + " ".join(fields),
            clusters=[{"name": name, "services": []}],
            services=[{"name": name, "task_name": name, "task_version": 1}],
            task_definitions=[task],
        )
        corpus.yml(case + "-type", "reject:task_definitions[0].containers[0].type", task=definition(type=name))
        hosts = [{"name": "default", "services": ["hostile"], "hosts": [name]}]
        if case not in FINE_FOR_HOSTS:
            corpus.yml(case + "-host", "reject:clusters[0].hosts", clusters=hosts)
        kept = name[:1000] if isinstance(name, str) else name
        corpus.task(f"{case}-record", service=kept)
        corpus.task(f"{case}-cluster", cluster={"name": kept, "services": []})
        corpus.task(f"{case}-container", task_definition={**definition(case.lower(), name=kept, type="none")})
    for case, name in GOOD_NAMES.items():
        lists = manifest(service={"name": name})
        lists["clusters"] = [{"name": "default", "services": [name]}]
        body = "".join(f"{key}: {json.dumps(value)}\n" for key, value in lists.items())
        corpus.text(case, f"normalised:name={json.dumps(name)}", body)
    corpus.yml(
        "A32-collision",
        "reject:services",
        clusters=[{"name": "a", "services": ["b-c"]}, {"name": "a-b", "services": ["c"]}],
        services=[{"name": one, "task_name": "hostile", "task_version": 1} for one in ("b-c", "c")],
    )


def structures(corpus: Corpus) -> None:
    every = "{every}"
    whole = json.dumps(record("x")).encode()
    for case, value in {
        "B01-empty": b"", "B02-null": b"null", "B03-list": b"[]", "B04-zero": b"0", "B05-text": b'"x"',
        "B06-truncated": whole[:-9], "B07-trailing": whole + b" x", "B08-bom": b"\xef\xbb\xbf" + whole,
        "B09-utf-16": whole.decode().encode("utf-16"), "B10-bad-utf-8": b'{"name": "\xff\xfe"}',
        "B11-deep": b"[" * 100_000, "B11-deep-mapping": b'{"a":' * 20_000, "B12-long-number": b'{"instance": ' + b"9" * 5000 + b"}",
        "B13-nan": b'{"port": NaN}', "B13-infinity": b'{"memory": -Infinity}', "B13-huge": b'{"port": 1e400}',
        "B14-duplicate": b'{"name": "a", "name": "b"}', "B25-gzip": b"\x1f\x8b\x08\x00" + bytes(200),
        "B34-html": b"<html><script>alert(1)</script>", "B35-escape": b'{"name": "\\u001b[2J"}', "B36-nul": b"\0" * 64,
    }.items():  # fmt: skip
        corpus.value(case, every, value, kind="bin")
    corpus.task("B17-other-task", service="somebody-else")
    corpus.task("B18-other-host", host="somewhere-else")
    corpus.task("B19-newer", schema=99, task_definition={**definition("b19-newer"), "version": "2"})
    corpus.task("B22-unknown-field", privileged=True, executor="os.system")
    good = json.dumps(record("b23")).encode()
    for case, key in {
        "B23-folder": "state/hosts/{host}/", "B24-deeper": "state/hosts/{host}/default-b24-1-0/extra",
        "B27-elsewhere": "state/hosts/elsewhere/default-b27-1-0", "B28-only-tasks": "state/tasks/default-b28-1-0",
        "B31-newline": "state/hosts/{host}/default-b31\n-1-0", "B31-nul": "state/hosts/{host}/a\0b",
        "B31-dots": "state/hosts/{host}/../../config/services/b31", "B31-space": "config/services/b 31",
        "B31-unicode": "config/clusters/b\u202e31", "B31-root": "config", "B31-slashes": "config//services//b31",
        "B37-no-kind": "config/nonsense/b37", "B37-no-prefix": "sked/b37", "B37-state": "state/b37",
    }.items():  # fmt: skip
        corpus.value(case, json.dumps(key), good)
    corpus.value("B29-lock", "locks/services/b29", b'{"holder": 1}')
    for number, version in enumerate(("2", 2.5, -1, 2**63, True, None, [])):
        case = f"B32-version-{number}"
        corpus.task(case, task_definition={**definition(case.lower(), type="none"), "version": version})


def numbers(corpus: Corpus) -> None:
    service, task = "services[0].", "task_definitions[0]."
    for case, (field, value) in {
        "C01-negative": ("desired", -1), "C02-thousand-million": ("desired", 10**9), "C02-float": ("desired", 1.5),
        "C02-text": ("desired", "3"), "C03-max-negative": ("max", -1), "C16-version-text": ("task_version", "2"),
        "C16-version-float": ("task_version", 2.0), "C16-version-negative": ("task_version", -1),
        "C16-version-2-63": ("task_version", 2**63), "C16-version-bool": ("task_version", True),
    }.items():  # fmt: skip
        corpus.yml(case, f"reject:{service}{field}", service={field: value})
    for case, bounds in {
        "C03-min-above": (5, 3, 9),
        "C03-max-below": (1, 3, 2),
        "C03-min-above-max": (9, 3, 1),
    }.items():
        low, desired, high = bounds
        corpus.yml(case, "reject:services[0].m", service={"min": low, "desired": desired, "max": high})
    for case, (field, value) in {
        "C05-port-negative": ("port", -1), "C05-port-65536": ("port", 65536), "C05-port-70000": ("port", 70_000),
        "C05-port-text": ("port", "80"), "C05-port-float": ("port", 80.5), "C08-memory-negative": ("memory", -1),
        "C08-memory-2-63": ("memory", 2**63), "C08-memory-text": ("memory", "1g"), "C08-cpu-list": ("cpu_units", [1]),
        "C09-grace-zero": ("grace_period", 0), "C09-grace-negative": ("grace_period", -1),
        "C09-grace-seconds": ("grace_period", 60), "C09-grace-word": ("grace_period", "soon"),
        "C09-grace-long": ("grace_period", "1h" * 1000), "C11-attempts-zero": ("max_attempts", 0),
        "C11-attempts-negative": ("max_attempts", -1), "C11-attempts-huge": ("max_attempts", 10**9),
        "C17-delay-negative": ("shutdown_delay", "-1s"), "C17-delay-list": ("shutdown_delay", []),
    }.items():  # fmt: skip
        corpus.yml(case, f"reject:{task}{field}", task={field: value})
    for case, check in {
        "C10-1ms": {"interval": "1ms"}, "C10-0s": {"interval": "0s"}, "C10-10": {"interval": "10"},
        "C10-10x": {"interval": "10x"}, "C10-long": {"interval": "1h" * 1000}, "C10-integer": {"timeout": 10},
    }.items():  # fmt: skip
        checked = definition(checks=[{"script": "true", **check}])
        corpus.yml(case, f"reject:{task}containers[0].checks[0].{next(iter(check))}", task=checked)
    corpus.text(
        "C08-1e400", "reject:task_definitions[0].memory", "task_definitions: [{name: a, version: 1, memory: 1e400}]\n"
    )
    same = [{"name": one, "type": "docker", "executor": {"image": "a", "ports": ["80:80"]}} for one in ("a", "b")]
    corpus.yml("C06-equal-ports", f"reject:{task}containers[1].executor", task={"containers": same})
    corpus.yml("C09-grace-text", "normalised:grace_period=60000000000", task={"grace_period": "60s"})
    corpus.yml(
        "C14-timeout-above-interval",
        'normalised:timeout="20s"',
        task=definition(checks=[{"script": "true", "interval": "10s", "timeout": "20s"}]),
    )
    for case, field, value in (
        ("C18-record-port", "port", 70_000), ("C18-record-negative", "instance", -1), ("C18-record-huge", "instance", 2**70),
        ("C18-record-restarts", "restarts", 1e300),
    ):  # fmt: skip
        corpus.task(case, **{field: value})
    for case, changes in {
        "C19-grace": {"grace_period": "soon"}, "C19-grace-negative": {"grace_period": -5}, "C19-delay": {"shutdown_delay": "1y"},
        "C19-attempts": {"max_attempts": 0}, "C19-grace-digits": {"grace_period": 10**4000},
    }.items():  # fmt: skip
        corpus.task(case, task_definition={**definition(case.lower(), type="none"), **changes})
    for case, update in {
        "C20-deadline": {"progress_deadline": "never"}, "C20-healthy-for": {"healthy_for": "x"}, "C20-promote": {"canaries": 1, "promote_after": -1},
    }.items():  # fmt: skip
        value = {
            "name": case.lower(),
            "task_name": case.lower(),
            "task_version": 1,
            "desired": 1,
            "min": 1,
            "max": 2,
            "update": update,
        }
        corpus.value(case, "config/services/{case}", json.dumps(value).encode())
    for case, rules in {
        "C21-require": {"require": ["\x1b[2J ~~ nonsense"]}, "C21-per": {"at_most": [{"count": 1, "per": "../x"}]},
        "C21-prefer": {"prefer": [{"host": "zone in", "service": "../x"}]}, "C21-near-itself": {"near": [{"service": "c21-near-itself"}]},
        "C21-shares": {"spread": [{"over": "\n", "shares": {"a": 0}}]}, "C21-regex": {"require": ["zone matches (a+)+$"]},
    }.items():  # fmt: skip
        value = {
            "name": case.lower(),
            "task_name": case.lower(),
            "task_version": 1,
            "desired": 1,
            "min": 1,
            "max": 2,
            "placement": rules,
        }
        corpus.value(case, "config/services/{case}", json.dumps(value).encode())


def sources(corpus: Corpus) -> None:
    good = "".join(f"{name}: {json.dumps(value)}\n" for name, value in manifest().items())
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    for case, (expect, body) in {
        "D01-alias-bomb": ("reject:aliases", bomb), "D02-cycle": ("reject:alias", "clusters: &a [*a]\n"),
        "D03-python": ("reject:tag", 'clusters: !!python/object/apply:os.system ["touch canary"]\n'),
        "D04-binary": ("reject:tag", "services: [{name: !!binary YQ==}]\n"), "D04-set": ("reject:tag", "services: !!set {a}\n"),
        "D05-duplicate": ("reject:duplicate", "services: [{name: a, name: b}]\n"),
        "D06-sexagesimal": ("reject:ports[0]", good + "---\ntask_definitions: [{name: p, version: 1, containers: [{name: p, type: docker, executor: {image: a, ports: [2222]}}]}]\n"),
        "D10-tabs": ("reject:tabs", "clusters:\n\t- name: a\n"), "D12-nested": ("reject:nested", "clusters: " + "[" * 10_000 + "\n"),
        "D12-nested-blocks": ("reject:nested", "".join(f"{' ' * n}a:\n" for n in range(1, 400))),
        "D13-latin-1": ("reject:UTF-8", b"clusters: [{name: caf\xe9}]\n"), "D14-merge": ("reject:merge", "a: &a {privileged: true}\nclusters: [{<<: *a}]\n"),
        "D15-comments": ("reject://", "{\n // comment\n \"clusters\": []}\n"), "D17-plural": ("reject:service", "service: [{name: a}]\n"),
        "D17-other-tool": ("reject:kind", "kind: Pod\nspec: {}\n"), "D18-missing-service": ("reject:clusters[0].services[0]", "clusters: [{name: a, services: [nowhere]}]\n"),
        "D18-missing-task": ("reject:services[0].task_name", "services: [{name: a, task_name: nowhere, task_version: 1}]\n"),
        "D18-missing-version": ("reject:task_version", good.replace('"task_version": 1', '"task_version": 7')),
        "D19-escape": ("reject:U+001B", b"clusters: [{name: \x1b[2J}]\n"), "D19-nul": ("reject:U+0000", b"clusters: [{name: a\0}]\n"),
        "D20-number-key": ("reject:key", "clusters: [{1: a}]\n"), "D20-list-key": ("reject:key", "clusters: [{[a]: b}]\n"),
        "D21-long-number": ("reject:number", "services: [{name: a, desired: " + "9" * 5000 + "}]\n"),
        "D21-infinite": ("reject:number", "services: [{name: a, desired: .inf}]\n"), "D22-unclosed": ("reject:YAML", "clusters: [{name: a\n"),
        "D23-directive": ("reject:YAML", "%YAML 9.9\n%TAG ! tag:evil,2000:\nclusters: []\n"), "D24-scalar": ("reject:mapping", "just text\n"),
        "D25-many-problems": ("reject:unknown", "services: [" + "{nmae: a}," * 2000 + "]\n"),
    }.items():  # fmt: skip
        corpus.text(case, expect, body)
    named = good.replace('"hostile"', '"no"').replace("task_definitions", "task_definitions")
    corpus.text("D07-no", 'normalised:name="no"', named.replace('"no"', "no"))
    corpus.text(
        "D08-octal",
        "normalised:version=10",
        good.replace('_version": 1', '_version": 010').replace('"version": 1', '"version": 010'),
    )
    corpus.text(
        "D09-documents",
        'normalised:name="second"',
        good + "---\n" + good.replace("hostile", "second").replace('"default"', '"other"'),
    )
    corpus.text("D13-crlf", 'normalised:name="hostile"', good.replace("\n", "\r\n"))


def docker(corpus: Corpus) -> None:
    at = "reject:task_definitions[0].containers[0].executor"

    def case(name: str, expect: str, /, **executor: Any) -> None:
        corpus.yml(name, expect, task=definition(type="docker", executor={"image": "busybox:1", **executor}))

    for number, image in enumerate(
        (
            "--privileged",
            "-v=/:/h",
            "a b",
            "a\nb",
            "a;b",
            "",
            ":latest",
            "a@sha256:bad",
            "a" * 10_000,
            "A/B",
            "a//b",
            "../a",
            "$PROVIDED_PORT",
        )
    ):
        case(f"E01-image-{number:02}", f"{at}.image", image=image)
    for number, env in enumerate(
        (
            ["A"],
            ["=x"],
            ["A B=1"],
            {"A": None},
            {"A\n": "1"},
            ["SKED_TASK_ID=x"],
            ["PROVIDED_PORT=1"],
            ["A=" + "x" * 140_000][:1],
            {"A": []},
        )
    ):
        case(f"E18-env-{number}", "reject:task_definitions[0]", env=env)
    for number, ports in enumerate(
        (["5000"], [1342], ["80:80/icmp"], ["1-9:1-9"], ["0:80"], ["70000:80"], ["x.y:80:80"], ["80:80:80:80"])
    ):
        case(f"E19-ports-{number}", f"{at}.ports[0]", ports=ports)
    for number, folder in enumerate(("/proc/self/fd/8", "relative", "/a/../b", "/./proc/self/fd/8", "//proc/self")):
        case(f"E20-work-dir-{number}", f"{at}.work_dir", work_dir=folder)
    case("E21-nul", "reject:NUL", cmd=["a\0b"])
    case("E21-unclosed", f"{at}.cmd", cmd="echo 'a")
    case("E21-mapping", f"{at}.cmd", cmd={"a": 1})
    case("E24-unknown-field", f"{at}.privilegd", privilegd=True)
    case("E23-name", f"{at}.name", name="$PROVIDED_PORT")


def bash(corpus: Corpus) -> None:
    at = "reject:task_definitions[0].containers[0].executor"
    for number, start in enumerate(("", "  \n", "a\0b", None, ["sleep", "1"], 7)):
        corpus.yml(
            f"F01-start-{number}", at if start != "a\0b" else "reject:NUL", task=definition(executor={"start": start})
        )
    for number, changes in enumerate(
        ({"user": "../root"}, {"stop": 7}, {"env": {"A": []}}, {"env": ["A"]}, {"env": {"SKED_TASK_ID": "x"}})
    ):
        corpus.yml(
            f"F12-field-{number}",
            at,
            task=definition(executor={"start": "true", **changes}),
        )
    corpus.yml(
        "F09-setup-text", "reject:task_definitions[0].containers[0].setup", task=definition(setup="touch canary")
    )


def checks(corpus: Corpus) -> None:
    at = "reject:task_definitions[0].containers[0].checks[0]"
    for case, check in {
        "H04-crlf": {"http": "http://127.0.0.1/\r\nX: 1"}, "H04-space": {"http": "http://127.0.0.1/ HTTP/1.1"},
        "H14-scheme": {"http": "file:///etc/shadow"}, "H14-gopher": {"http": "gopher://127.0.0.1"}, "H03-no-port": {"tcp": "127.0.0.1"},
        "H11-two": {"ttl": "10s", "http": "http://127.0.0.1"}, "H15-none": {"name": "x"}, "H16-blank": {"script": " "},
        "H17-unknown": {"script": "true", "DeregisterCriticalServiceAfter": "1s"}, "H06-1ms": {"script": "true", "interval": "1ms"},
    }.items():  # fmt: skip
        corpus.yml(case, at, task=definition(checks=[check]))
    corpus.yml("H08-same-id", "reject:checks[1].id", task=definition(checks=[{"id": "a", "script": "true"}] * 2))
    for case, check in {
        "H09-record-crlf": {"http": "http://127.0.0.1:1/\r\nX: 1"}, "H09-record-both": {"http": "x", "ttl": "10s"},
        "H09-record-interval": {"tcp": "127.0.0.1:1", "interval": "1ns"}, "H09-record-url": {"http": "http://[::1"},
    }.items():  # fmt: skip
        task = definition(case.lower(), type="none", checks=[check])
        corpus.task(case, task_definition=task)


def shown(corpus: Corpus) -> None:
    evil = "\x1b[2J\x1b]8;;http://evil\x07<script>alert(1)</script>\r=cmd|'/C calc'!A0\n%s{0}"
    corpus.task(
        "I01-tags", task_definition={**definition("i01-tags", type="none"), "tags": ["urlprefix-/x\n$(id)", evil]}
    )
    corpus.task("I02-reason", rejected=True, reject_reason=evil)
    corpus.task("I06-long-reason", rejected=True, reject_reason="x" * 100_000)
    at = {
        "at": evil,
        "who": evil,
        "what": evil,
        "subject": evil,
        "why": evil,
        "from": evil,
        "to": evil,
        "service": evil,
    }
    corpus.value("I05-event", "events/00000000000002-{case}-1", json.dumps([at]).encode())
    corpus.value("I03-mark", "hosts/marks/{case}", json.dumps({"state": "cordoned", "by": evil, "why": evil}).encode())
    failure = {"host": evil, "reason": evil, "output": evil, "log": [evil], "at": evil, "next_try": evil}
    corpus.value("I03-failure", "failures/" + TASK_ID, json.dumps(failure).encode())
    corpus.value("I03-health", "health/{host}/" + TASK_ID, json.dumps({"healthy": False, "output": evil}).encode())
    host = {
        "name": "i03-host",
        "address": evil,
        "executors": [evil],
        "tags": {evil: evil},
        "attributes": {evil: evil},
        "serves": [evil],
    }
    corpus.value("I03-host", "config/hosts/i03-host", json.dumps(host).encode())
    status = {"scheduler": evil, "clusters": {evil: {"blocked": evil, "hosts": {evil: [evil]}}}}
    corpus.value("I03-status", "status/services/{case}", json.dumps(status).encode())
    cluster = {"name": "i03-cluster", "datacenter": evil, "services": []}
    corpus.value("I03-cluster", "config/clusters/i03-cluster", json.dumps(cluster).encode())
    corpus.value("I03-uid", "scheduling/changed/{case}", evil.encode(), kind="bin")


def plugins(corpus: Corpus) -> None:
    for number, kind in enumerate(("os", "docker.evil:Cls", "../x", "sked_docker", "builtins.eval", "__import__")):
        corpus.yml(f"K07-type-{number}", "reject:containers[0].type", task=definition(type=kind))
        corpus.task(f"K07-record-{number}", task_definition=definition(f"k07-record-{number}", type=kind))
    corpus.yml("K07-scheduler", 'normalised:scheduler="os.system"', service={"scheduler": "os.system"})


def files() -> Files:
    """The whole corpus, by path."""
    from hostile import fetching

    corpus = Corpus()
    parts = (names, structures, numbers, sources, docker, bash, checks, shown, plugins)
    for part in (*parts, fetching.artifacts, fetching.checks):
        part(corpus)
    return corpus.files


def stale() -> Iterator[str]:
    """Paths that are not what this program would write."""
    wanted = files()
    there = {str(file.relative_to(HERE)) for file in HERE.glob("[A-K]/*")}
    yield from sorted(there ^ wanted.keys())
    yield from sorted(name for name in there & wanted.keys() if (HERE / name).read_bytes() != wanted[name])


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    for name in stale():
        (HERE / name).unlink(missing_ok=True)
    for name, data in files().items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
    print(f"{len(files())} files", file=sys.stderr)
