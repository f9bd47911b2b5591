"""Projects and data sources: rows, immutable versions, totals and the history that users read.

Not in here: what a type may configure (`connectors`), jobs, or what a sync brings in (`catalogue`).
"""
