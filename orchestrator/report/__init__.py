"""Reports: HTML page, Markdown, plots and tables.

`pages.write_report(folder)` writes the report of a sweep. `scores_page.write_scores_page(...)`
writes the report of a table of scores. Packages tracking, trials and cli may import from here.
"""
