"""Workers count the messages that they refuse."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        """
        -- A worker adds to its own count and sees no other.
        alter table tally enable row level security;
        create policy readers on tally for select to headwater_api using (true);
        create policy scheduler on tally to headwater_scheduler using (true);
        create policy refusals on tally to headwater_worker using (name = 'headwater_messages_refused_total');
        grant select, insert, update (value) on tally to headwater_worker;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        revoke all on tally from headwater_worker;
        drop policy refusals on tally;
        drop policy scheduler on tally;
        drop policy readers on tally;
        alter table tally disable row level security;
        """
    )
