"""The report as one page of HTML that needs nothing else: the same table, the groups, what each host said."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from provision.fleet.answers import Report
from provision.fleet.grouping import drift, sentence
from provision.fleet.model import FleetReport, HostState, State
from provision.output import readable
from provision.report import Severity, Status

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top}.ok{color:#1a7f37}.failed{color:#b42318}.unreachable,.not-reached{color:#9a6700}
td.whole{white-space:nowrap}td.number{text-align:right;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;margin:0;font-size:13px}
summary{color:#666;cursor:pointer}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,td{border-color:#333}summary{color:#999}}
"""


def render(report: FleetReport) -> str:
    """One page; every text of a host goes through `_cell`."""
    title = f"sgprov fleet {report.command}"
    rows = "".join(_row(host) for host in report.hosts)
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{_cell(title)}</title>'
        f"<style>{_STYLE}</style><h1>{_cell(title)}</h1><p>{_cell(summary(report))}</p>"
        + (f"<p>{_cell(text)}</p>" if (text := sentence(report.groups)) else "")
        + "<table><thead><tr><th>host<th>state<th>GPU<th>step<th>time<th>finding</tr></thead>"
        f"<tbody>{rows}</tbody></table>{_drift(report)}</html>\n"
    )


def summary(report: FleetReport) -> str:
    """Such as `14 ok, 1 failed, 1 unreachable, in 93 s`."""
    counts = [f"{count} {state.value}" for state in State if (count := report.count(state))]
    text = f"{', '.join(counts)}, in {report.seconds:.0f} s"
    return f"{text}; {report.stopped}" if report.stopped else text


def finding(host: HostState) -> str:
    """What a host has to say, in a line: its failure, its worst finding, or where it serves."""
    if host.finding:
        return host.finding
    report = host.report or Report()
    told = [text for text in (_plan(host, report), _worst(report)) if text]
    if told:
        return "; ".join(told)
    if report.servers is not None:
        servers = [f"{one.name} {one.health}" + (f" at {one.url}" if one.url else "") for one in report.servers]
        return "; ".join(servers) or "no server"
    if report.endpoint:
        return f"serves at {report.endpoint}"
    what = report.stack or report.verdict or ""
    return f"{what}{'' if host.changed or not what else ', nothing to do' if report.steps else ''}"


def _plan(host: HostState, report: Report) -> str:
    """What a host is to get, and by which steps, as long as it has not got it."""
    if host.state in {State.WAITING, State.WORKING, State.NOT_REACHED}:
        return f"to get {what}" if (what := report.stack or report.verdict) else ""
    steps = [step.step for step in report.steps if step.status is Status.WOULD]
    if not (report.dry_run and steps and host.state is State.OK):
        return ""
    return f"to get {report.stack or 'its image'}: {', '.join(steps)}"


def _worst(report: Report) -> str:
    worst = [one for one in report.findings if one.severity in {Severity.ERROR, Severity.WARNING}]
    worst.sort(key=lambda one: one.severity is not Severity.ERROR)
    more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
    return f"{worst[0].check}: {worst[0].text}{more}" if worst else ""


def _row(host: HostState) -> str:
    cells: Iterable[str] = (
        f'<td class="whole">{_cell(host.name)}',
        f'<td class="whole {host.state.value}">{host.state.value}',
        f"<td>{_cell(host.gpu)}",
        f"<td>{_cell('' if host.state is State.OK else host.step)}",
        f'<td class="whole number">{host.seconds:.1f} s',
        f"<td>{_told(finding(host))}",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str) -> str:
    """A text as data of the page: nothing in it is a tag, is invisible, or is a credential."""
    return escape(readable(text))


def _told(text: str) -> str:
    """A long text is folded behind its first line."""
    first, _, rest = text.partition("\n")
    return _cell(first) + (f"<details><summary>more</summary><pre>{_cell(rest)}</pre></details>" if rest else "")


def _drift(report: FleetReport) -> str:
    differing = drift(report.groups)
    if not differing:
        return ""
    rows = "".join(
        f"<tr><td>{_cell(name)}<td>" + _cell(", ".join(f"{value} ({count})" for value, count in values.items()))
        for name, values in differing.items()
    )
    return f"<h2>What is not the same everywhere</h2><table>{rows}</table>"
