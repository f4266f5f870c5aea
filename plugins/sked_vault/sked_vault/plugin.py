"""What this package offers. What talks to the server is imported where it is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import SecretContext, SecretProvider, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


def _vault(context: SecretContext) -> SecretProvider:
    from sked_vault.provider import VaultSecrets

    return VaultSecrets(context)


@hookimpl
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:
    return {"vault": _vault}


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_vault.samples import samples

    return samples()
