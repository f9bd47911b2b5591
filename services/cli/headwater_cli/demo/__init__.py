"""The demo of the local stack: real public data in one place of each kind, and data sources that read them.

Belongs here: the corpus (`datasets`, `broken`, both of `DemoFile`), what of it lies where (`selections`), the servers
that serve it (`bucket`, `api`, `gcs`, `azure`), the data sources (`sources`), and the client that registers, tests,
lists and syncs them over REST (`fill`).

`python -m headwater_cli.demo` runs the servers as a process of the local stack; `headwater_cli.demo.azure` is one
of its own, because npm has to bring it.

Does not belong here: anything the product needs when it runs for real, and any other process of the stack.
"""
