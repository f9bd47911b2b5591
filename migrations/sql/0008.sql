-- Keys can be rotated: by which master key each private key is wrapped, and what is sealed to a key, at a glance.
-- A credential may be a reference to a secret that is kept elsewhere.

alter table organization_private_key add master_key text;
-- For the batches of a rotation, and for the foreign key, which finds here whether a key may go.
create index ix_sealed_credential_key_id_subject_id_field on sealed_credential (key_id, subject_id, field);

alter table sealed_credential add reference text;
grant select (reference) on sealed_credential to headwater_api;
