"""One module per kind of job, each with `run(context) -> Outcome`.

A handler raises `ConnectorError`, `JobError`, `VaultError` or lets `JobInterrupted` pass; the runner turns those into
outcomes. Handlers do not import each other.
"""
