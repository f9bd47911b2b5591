"""Files as they come in real life: cut, ragged, wrongly encoded, oddly named. Made here, from no data set."""

import json

from headwater_cli.demo.files import DemoFile, compressed

# Records enough that a compressed file, cut in the middle, still holds whole ones before the cut.
_CUT_RECORDS = 2000


def files() -> tuple[DemoFile, ...]:
    """Every broken or odd file of the corpus."""
    return (
        _ragged_csv(),
        _unclosed_quote_csv(),
        _nul_csv(),
        _bad_jsonl(),
        _cut_gzip(),
        _cut_array(),
        DemoFile(
            path="broken/not_parquet.parquet",
            format="parquet",
            records=0,
            body=b"This is a text file that somebody renamed.\n" * 20,
            broken_file=True,
        ),
        DemoFile(path="broken/empty.csv", format="csv", records=0, body=b""),
        DemoFile(path="broken/header_only.csv", format="csv", records=0, body=b"id,name,amount\n"),
        DemoFile(path="odd/marker/", format="directory", records=0, body=b""),
        *_odd_names(),
        *_odd_but_valid(),
    )


def _ragged_csv() -> DemoFile:
    lines = [
        "id,name,amount",
        "1,Anna,10.50",
        "2,Bela",
        "3,Carl,7.25",
        "4,Dora,1.00,surplus,cells",
        "5,Emil,3.75",
    ]
    return DemoFile(path="broken/ragged_rows.csv", format="csv", records=3, body=_lines(lines), broken_lines=(3, 5))


def _unclosed_quote_csv() -> DemoFile:
    lines = ["id,name,amount", "1,Anna,10.50", '2,"Bela,7.25', "3,Carl,1.00", "4,Dora,3.75"]
    return DemoFile(path="broken/unclosed_quote.csv", format="csv", records=1, body=_lines(lines), broken_lines=(3,))


def _nul_csv() -> DemoFile:
    lines = ["id,name", "1,Anna", "2,Be\x00la", "3,Carl"]
    return DemoFile(path="broken/nul_cell.csv", format="csv", records=2, body=_lines(lines), broken_lines=(3,))


def _bad_jsonl() -> DemoFile:
    lines = [
        '{"id": 1, "note": "a good record"}',
        '{"id": 2, "note": "cut in the mid',
        '{"id": 3, "value": NaN}',
        '{"id": 4, "note": "nul \\u0000 inside"}',
        '{"id": 5, "note": "lone surrogate \\ud800"}',
        '{"id": 6, "note": "first", "note": "a duplicate key does no harm"}',
        '{"id": 7, "value": 1e200000}',
        '{"id": 8, "deep": ' + "[" * 600 + "]" * 600 + "}",
        "not JSON at all",
        '{"id": 10, "note": "another good record"}',
    ]
    return DemoFile(
        path="broken/mixed.jsonl",
        format="jsonl",
        records=3,
        body=_lines(lines),
        broken_lines=(2, 3, 4, 5, 7, 8, 9),
    )


def _cut_gzip() -> DemoFile:
    """The records that decompress before the cut are unknown to a reader that checks the whole first."""
    body = compressed(_lines(["id,square", *(f"{n},{n * n}" for n in range(1, _CUT_RECORDS + 1))]))
    return DemoFile(
        path="broken/truncated.csv.gz",
        format="csv",
        records=0,
        body=body[: len(body) // 2],
        broken_file=True,
    )


def _cut_array() -> DemoFile:
    records = [{"id": n, "name": f"record {n}"} for n in range(1, 6)]
    text = "[" + ",\n ".join(json.dumps(record) for record in records)
    return DemoFile(
        path="broken/cut_array.json",
        format="json",
        records=4,
        body=text[:-9].encode(),
        broken_file=True,
    )


def _odd_names() -> tuple[DemoFile, ...]:
    """Keys that a client gets wrong when it quotes twice, or not at all."""
    names = (
        "odd/a name with spaces.csv",
        "odd/Übergröße 東京 🗼.csv",
        "odd/100% sure.csv",
        "odd/already%20quoted%2Fname.csv",
        "odd/plus+sign.csv",
        "odd/a=b&c;d,e'f(g)!@$.csv",
        "odd/question?and#hash.csv",
        "odd/.hidden.csv",
    )
    return tuple(
        DemoFile(path=name, format="csv", records=2, body=_lines(["n,text", "1,one", "2,two"])) for name in names
    )


def _odd_but_valid() -> tuple[DemoFile, ...]:
    # No UTF-8: a reader takes it for Windows-1252, which these letters are the same in.
    latin = "id,city\n1,Bern\n2,Zürich\n3,Basel\n4,Genève\n5,Lugano\n".encode("latin-1")
    with_bom = b"\xef\xbb\xbf" + _lines(["id,name", "1,Anna", "2,Bela"])
    multiline = _lines(["id,text", '1,"two\nlines"', '2,"a ""quoted"" word"', '3,"comma, inside"'])
    concatenated = compressed(b'{"id": 1}\n') + compressed(b'{"id": 2}\n')
    no_newline = b'{"id": 1}\n{"id": 2}'
    return (
        DemoFile(path="odd/byte_order_mark.csv", format="csv", records=2, body=with_bom),
        DemoFile(path="odd/latin1.csv", format="csv", records=5, body=latin),
        DemoFile(path="odd/multiline_cells.csv", format="csv", records=3, body=multiline),
        DemoFile(path="odd/two_gzip_members.jsonl.gz", format="jsonl", records=2, body=concatenated),
        DemoFile(path="odd/no_last_newline.jsonl", format="jsonl", records=2, body=no_newline),
    )


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
