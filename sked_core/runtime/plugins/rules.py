"""Which of the plugins that are installed are used on this host: what its operator has said of packages.

A plugin runs with all the rights of the process that it is in, from its import on. So one that is not to be used is
not imported either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

CORE = "sked-core"
VARIABLE = "SKED_PLUGINS_"


def normal(package: str) -> str:
    """The name of a package as all its spellings mean it: ``Sked_Toy`` is ``sked-toy``."""
    return re.sub(r"[-_.]+", "-", package).lower()


class Rule(NamedTuple):
    """Packages, and where they are named, as people would find it again."""

    packages: frozenset[str]
    origin: str

    @classmethod
    def of(cls, packages: list[str], origin: str) -> Rule:
        return cls(frozenset(normal(name) for name in packages if name), origin)


class PluginRules(NamedTuple):
    """``allow``: nothing but these is used, where there is such a rule; ``deny``: never these, whatever is allowed;
    ``require``: a process that runs for long does not start without these. What sked-core brings is always used."""

    allow: Rule | None = None
    deny: Rule | None = None
    require: Rule | None = None

    @classmethod
    def of_environment(cls) -> PluginRules:
        """What SKED_PLUGINS_ALLOW, _DENY and _REQUIRE say: names of packages, with commas between them."""
        return cls(*(_of_variable(f"{VARIABLE}{name.upper()}") for name in cls._fields))

    def environment(self) -> Mapping[str, str]:
        """The variables that say the same, for a process of its own."""
        said = self._asdict()
        return {
            f"{VARIABLE}{name.upper()}": ",".join(sorted(rule.packages)) or CORE for name, rule in said.items() if rule
        }

    def refusal(self, package: str, plugin: str = "") -> str:
        """Why ``plugin`` of ``package`` is not used; empty where it is."""
        if self.deny and normal(package) in self.deny.packages:
            return f"denied by {self.deny.origin}"
        if self.allow and normal(package) not in self.allow.packages:
            meant = f", which names packages: this one is {package}" if normal(plugin) in self.allow.packages else ""
            return f"not allowed by {self.allow.origin}{meant}"
        return ""


def _of_variable(name: str) -> Rule | None:
    value = os.environ.get(name)
    return Rule.of([one.strip() for one in value.split(",")], name) if value else None
