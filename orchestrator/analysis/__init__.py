"""Analyse a sweep: compute findings from its record.

`sweep_findings.read_findings(folder)` returns the findings; `headline.headline(findings)` and
`caveats.caveats(...)` write the text. The packages report, tracking, export and cli may import from
here.
"""
