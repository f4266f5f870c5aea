"""``sked plugins check``: whether a package can be trusted with what it offers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sked_core.surface.options import command, output_option

if TYPE_CHECKING:
    from sked_core.testing.check.findings import Finding, Report


@command(
    "check",
    "sked plugins check sked-lantern",
    "sked plugins check sked-lantern --strict     # what was not tried counts as well",
    "sked plugins check sked-lantern -o json",
)
@click.argument("package")
@click.option("-a", "--all", "every", is_flag=True, help="Show what is well, too.")
@click.option("--strict", is_flag=True, help="Exit with 1 also where something was not tried.")
@output_option
def check(package: str, every: bool, strict: bool, output: str) -> None:
    """Try an installed plugin: the rules of packaging, and the kit of each kind that it offers, on its own samples.

    It really starts containers, processes and whatever else its samples say, as you, on this machine. Exits with 1 if
    anything is wrong.
    """
    from sked_core.errors import PluginError
    from sked_core.surface.render import out

    try:
        from sked_core.testing.check import checking
    except ModuleNotFoundError as error:
        raise PluginError(f"the kits need {error.name}", hint='pip install "sked-core[testing]"') from None
    from sked_core.testing.check.findings import Verdict

    def tell(finding: Finding) -> None:
        if output == "table" and (every or finding.verdict is not Verdict.OK):
            out(_line(finding))

    report = checking.check(package, tell=tell)
    if output == "json":
        _document(report)
    else:
        out(_summary(report))
    failing = (Verdict.WRONG, Verdict.NOT_TRIED) if strict else (Verdict.WRONG,)
    if report.of(*failing):
        raise click.exceptions.Exit(1)


def _line(finding: Finding) -> str:
    from sked_core.surface.render import cell

    why = f": {finding.why}" if finding.why else ""
    return cell(f"{finding.verdict.value:<9}  {finding.part}: {finding.what}{why}")


def _summary(report: Report) -> str:
    from sked_core.surface.render import table
    from sked_core.testing.check.findings import Verdict

    rows = []
    for part in report.parts():
        here = [one.verdict for one in report.findings if one.part == part]
        rows.append((part, *(here.count(verdict) for verdict in Verdict)))
    wrong, left = len(report.of(Verdict.WRONG)), len(report.of(Verdict.NOT_TRIED))
    verdict = f"{wrong} wrong" if wrong else "nothing is wrong"
    told = f"{report.package} {report.version}: {verdict}" + (f", {left} not tried" if left else "")
    return "\n".join([table(("what", *(one.value for one in Verdict)), rows), "", told])


def _document(report: Report) -> None:
    from sked_core.surface.render import emit

    findings = [{**asdict(one), "verdict": one.verdict.value} for one in report.findings]
    emit("PluginReport", [{"package": report.package, "version": report.version, "findings": findings}])
