"""One module per format: bytes of a file in, blocks of records out.

Each has `blocks(source, options) -> Iterator[Block]`, which yields often (also empty blocks), holds one block and one
record in memory, and raises `Unreadable` at the point where the rest of a file cannot be read. Not in here: validation,
what is stored. Only `parquet` and `zstd` import Arrow, and they are imported when the first such file is read.
"""
