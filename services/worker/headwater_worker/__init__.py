"""The worker: runs jobs, and is the only part of Headwater that opens credentials and dials customers' hosts."""
