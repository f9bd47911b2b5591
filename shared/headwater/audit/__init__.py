"""Who did what: the acts that are audited and the log they are written to, in the transaction of what they tell.

Not in here: a data source's history for its users (that is `data_sources.events`).
"""
