"""The JSON Schema of manifests, for editors and other tools: made from the types that manifests are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sked_core.model.rules import SpecChecker
from sked_core.model.secret_refs import MAX_NAME, NAME, SecretRef
from sked_core.model.types import Cluster, Service, TaskDefinition
from sked_core.model.validate import LISTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"


def manifest_schema(executors: Mapping[str, SpecChecker]) -> dict[str, Any]:
    """JSON Schema 2020-12 of one document of a manifest. ``executors``: those that are installed, by type; the
    ``executor`` of a container is described where the one of its type has a ``spec_type``, a msgspec struct.

    It says what each field may be. What depends on other fields or objects (references, min <= desired <= max, the
    text of a duration) only ``sked validate`` finds.
    """
    (cluster, service, definition, secret), types = msgspec.json.schema_components(
        (Cluster, Service, TaskDefinition, SecretRef), ref_template=_REF
    )
    types["SecretRef"]["properties"]["secret"] |= {"pattern": NAME.pattern, "maxLength": MAX_NAME}
    rules = []
    for kind, checker in sorted(executors.items()):
        spec = getattr(checker, "spec_type", None)
        if spec is None:
            continue
        (_,), more = msgspec.json.schema_components((spec,), ref_template=f"#/$defs/{kind}.{{name}}")
        types |= {f"{kind}.{name}": one for name, one in more.items()}
        _take_secrets(types[f"{kind}.{spec.__name__}"], secret)
        then = {"properties": {"executor": {"$ref": f"#/$defs/{kind}.{spec.__name__}"}}, "required": ["executor"]}
        rules.append({"if": {"properties": {"type": {"const": kind}}, "required": ["type"]}, "then": then})
    types["Container"]["properties"]["type"] = {"enum": sorted(executors)}
    if rules:
        types["Container"]["allOf"] = rules
    objects = dict(zip(LISTS, (cluster, service, definition), strict=True))
    lists = {name: {"type": "array", "items": one} for name, one in objects.items()}
    return {
        "$schema": DIALECT,
        "title": "Sked manifest",
        "type": "object",
        "properties": lists | {"tasks": lists["task_definitions"]},
        "additionalProperties": False,
        "$defs": {name: _strict(one) for name, one in types.items()},
    }


def _take_secrets(spec: dict[str, Any], secret: dict[str, Any]) -> None:
    """Have the values of the mapping ``env``, where a spec has one, be references to secrets as well."""
    env = spec.get("properties", {}).get("env", {})
    for form in env.get("anyOf", [env]):
        if form.get("type") == "object" and isinstance(values := form.get("additionalProperties"), dict):
            form["additionalProperties"] = {"anyOf": [*values.get("anyOf", [values]), secret]}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a struct as manifests are read: no other fields, and patterns of JSON Schema rather than Python."""
    made: dict[str, Any] = _portable(schema)
    if "properties" in made:
        made["additionalProperties"] = False
    made.pop("description", None)  # those of the types speak to whoever reads the code
    return made


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: one.replace(r"\Z", "$") if key == "pattern" and isinstance(one, str) else _portable(one)
            for key, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value
