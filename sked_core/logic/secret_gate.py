"""Which secrets a task may have: those that the host's policy gives to its cluster or service, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sked_core.model import secret_refs
from sked_core.model.policy import Denial, Secrets
from sked_core.model.secret_refs import SecretRef
from sked_core.model.types import Task


def denials(secrets: Secrets, task: Task) -> list[Denial]:
    """The secrets of ``task`` that it may not have, each once, and those whose provider this host has not."""
    return list({str(one): one for one in _denials(secrets, task)}.values())


def allowed(secrets: Secrets, cluster: str, service: str, ref: SecretRef) -> bool:
    """Whether tasks of this service may have the secret."""
    provider = provider_of(secrets, ref)
    for pattern in (one for who in ("*", cluster, f"{cluster}/{service}") for one in secrets.allow.get(who, ())):
        named, _, names = pattern.rpartition(":")
        if (named or secrets.provider) == provider and _matches(names, ref.secret):
            return True
    return False


def provider_of(secrets: Secrets, ref: SecretRef) -> str:
    """The name of the provider that ``ref`` is read from on this host."""
    return ref.provider or secrets.provider


def _denials(secrets: Secrets, task: Task) -> Iterator[Denial]:
    for ref in secret_refs.of_task(task).values():
        provider = provider_of(secrets, ref)
        if provider != secrets.provider and provider not in secrets.providers:
            what = f"secret {ref.secret}: provider {provider} is not set up on this host"
            yield Denial("secrets.providers", what, f"secrets: {{providers: {{{provider}: {{}}}}}}")
        elif not allowed(secrets, task.cluster.name, task.service, ref):
            who = f"{task.cluster.name}/{task.service}"
            name = ref.secret if provider == secrets.provider else f"{provider}:{ref.secret}"
            line = f'secrets: {{allow: {{{who}: ["{name}"]}}}}'
            yield Denial("secrets.allow", f"tasks of {who} may not have secret {ref.secret} of {provider}", line)


def _matches(pattern: str, name: str) -> bool:
    """``*`` stands for anything within one part of a name; ``**`` as the last part for all parts from there on."""
    parts, found = pattern.split("/"), name.split("/")
    below = parts[-1] == "**"
    if below:
        parts = parts[:-1]
    if len(found) <= len(parts) if below else len(found) != len(parts):
        return False
    return all(_like(one, part) for one, part in zip(parts, found, strict=False))


def _like(pattern: str, part: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), part) is not None
