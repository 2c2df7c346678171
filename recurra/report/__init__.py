"""Reports: a document of sections, in English and in Chinese, as one HTML file that needs no network.

It knows no task. Tasks give `Section`s of blocks (`recurra.report.blocks`); `recurra.report.html` writes them.
"""
