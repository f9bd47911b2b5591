-- As before. What is lost: by which master key private keys are wrapped (it is found out again), and which credentials
-- are references (they stay sealed).

alter table sealed_credential drop reference;
drop index ix_sealed_credential_key_id_subject_id_field;
alter table organization_private_key drop master_key;
