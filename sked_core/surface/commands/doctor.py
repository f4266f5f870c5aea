"""``sked doctor``."""

from __future__ import annotations

import click

from sked_core.client.outcomes import FAILED
from sked_core.errors import InvalidManifest
from sked_core.model.spec import plain
from sked_core.surface.options import command, current_settings, output_option
from sked_core.surface.render import document, note, out


@command("doctor", "sked doctor", "sked doctor -o json")
@click.option("-q", "--quiet", is_flag=True, help="Only what is wrong or can't be told.")
@output_option
def doctor(quiet: bool, output: str) -> int:
    """Look for the commonest faults: of the store, its rights, this machine, its engines, and who is needed.

    Nothing is changed. Each fault comes with what puts it right; with any, the exit code is 1. Run it where the agent
    runs, as the user that it runs as. It ends within seconds, whatever hangs.
    """
    from dataclasses import asdict

    from sked_core.client.doctor import Exam, examine

    try:
        exam = Exam(current_settings())
    except InvalidManifest as error:
        exam = Exam(None, error)
    results = examine(exam)
    if output == "json":
        out(document("Diagnosis", [asdict(one) for one in results]))
    width = max(len(one.check) for one in results)
    for one in results if output == "table" else ():
        if one.state == "unknown" or (quiet and one.state == "ok"):
            continue
        out(plain(f"{one.state:<9}{one.check:<{width}}  {one.what}").rstrip())
        for line in one.remedy.splitlines():
            out(f"{'':<{11 + width}}  {plain(line)}".rstrip())
    alike: dict[str, list[str]] = {}  # what keeps one from being told mostly keeps others too
    for one in results if output == "table" else ():
        if one.state == "unknown":
            alike.setdefault(one.what, []).append(one.check)
    for what, names in alike.items():
        out(plain(f"unknown  {', '.join(names)}: {what}"))
    counts = {state: sum(one.state == state for one in results) for state in ("ok", "fault", "unknown")}
    note(f"{counts['ok']} fine, {counts['fault']} wrong, {counts['unknown']} can't be told")
    return FAILED if counts["fault"] else 0
