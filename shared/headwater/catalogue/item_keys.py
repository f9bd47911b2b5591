"""SQL about the keys of items that several modules of the catalogue are made of."""

from typing import Final

_LONGEST_BYTES: Final = 1_000

# A B-tree entry has an end; a longer key is told apart by its digest.
KEY_OF: Final = (
    f"case when octet_length({{data}} #>> {{path}}) <= {_LONGEST_BYTES} then {{data}} #>> {{path}}"
    " else 'sha256:' || encode(sha256(convert_to({data} #>> {path}, 'UTF8')), 'hex') end"
)
"""The key of a record; `data` is its value and `path` a text[]."""

# Marks of loads that were never shown do not count.
NOT_REPLACED: Final = """
    (i.replaced_by is null or (select r.valid_from from load r where r.id = i.replaced_by) is null)
"""

_PATH: Final = "array(select jsonb_array_elements_text(l.counters -> 'key'))"

DELETE_GOING: Final = f"""
    keyed as materialized (
        select l.data_source_id, {KEY_OF.format(data="i.data", path=_PATH)} as key, i.load_id, i.record_number
        from going join item i on i.load_id = going.load_id and i.record_number = going.record_number
        join load l on l.id = i.load_id and l.counters ? 'key'
    ), keys as (
        delete from item_key where ctid = any(array(
            select k.ctid from keyed g cross join lateral (
                select ctid from item_key
                where data_source_id = g.data_source_id and key = g.key and load_id = g.load_id
                  and record_number = g.record_number
                offset 0
            ) k
        ))
    )
    delete from item where ctid = any(array(select ctid from going))
"""
"""Behind a CTE `going(ctid, load_id, record_number)`: these items go, and their keys with them.

Each key is looked up by itself (`offset 0`): to join them the planner may read the keys of all sources.
"""
