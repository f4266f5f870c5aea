"""What this package offers. What talks to the server is imported where it is needed."""

from collections.abc import Callable, Mapping

from sked_core.plugin import SecretContext, SecretProvider, hookimpl


def _vault(context: SecretContext) -> SecretProvider:
    from sked_vault.provider import VaultSecrets

    return VaultSecrets(context)


@hookimpl
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:
    return {"vault": _vault}
