"""Which package of the project offers what: names for the ``pip install`` that would help, never imports."""

from __future__ import annotations

_OFFERS = {
    "executor": ("docker", "bash", "systemd"),
    "scheduler": ("binpack",),
    "storage": ("consul", "etcd", "dynamodb"),
    "health": ("consul",),
    "secrets": ("vault",),
}
_MORE = ("bridge", "compose", "core", "notify", "prometheus", "systemd", "web")
PACKAGES = frozenset(_MORE).union(*_OFFERS.values())
"""What stands behind ``sked-`` in the names of the project's packages."""
LOCKSTEP = frozenset({"sked-web"})
"""Those that use more of core than the plugin API, and so ask for the very version that they were released with."""


def install_hint(kind: str, name: str) -> str:
    """What to try when nothing installed offers ``name``. ``kind``: executor, scheduler, storage, health or secrets."""
    if name in _OFFERS.get(kind, ()):
        return f"pip install sked-{name}"
    return "pip install the package that offers it; `sked plugins` lists what is installed"
