"""Every audited act, `noun.verb`."""

from enum import StrEnum
from typing import Final

from headwater import ids


class Act(StrEnum):
    ORGANIZATION_CREATE = "organization.create"
    ORGANIZATION_UPDATE = "organization.update"
    ORGANIZATION_SUSPEND = "organization.suspend"
    ORGANIZATION_RESUME = "organization.resume"
    ORGANIZATION_DELETE = "organization.delete"
    KEY_CREATE = "organization_key.create"
    KEY_RESEAL = "organization_key.reseal"
    KEY_REWRAP = "organization_key.rewrap"
    KEY_VERIFY = "organization_key.verify"
    KEY_DELETE = "organization_key.delete"
    MEMBER_CREATE = "member.create"
    MEMBER_UPDATE = "member.update"
    MEMBER_DELETE = "member.delete"
    API_KEY_CREATE = "api_key.create"
    API_KEY_ROTATE = "api_key.rotate"
    API_KEY_REVOKE = "api_key.revoke"
    PROJECT_CREATE = "project.create"
    PROJECT_UPDATE = "project.update"
    PROJECT_DELETE = "project.delete"
    DATA_SOURCE_CREATE = "data_source.create"
    DATA_SOURCE_UPDATE = "data_source.update"
    DATA_SOURCE_DELETE = "data_source.delete"
    CREDENTIALS_UPDATE = "credentials.update"
    CREDENTIALS_DELETE = "credentials.delete"
    CREDENTIALS_UNSEAL = "credentials.unseal"
    UPLOAD_STORE = "upload.store"
    UPLOAD_DELETE = "upload.delete"
    JOB_SUBMIT = "job.submit"
    JOB_CANCEL = "job.cancel"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_UPDATE = "webhook.update"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_ROTATE = "webhook.rotate"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_REDELIVER = "webhook.redeliver"
    WEBHOOK_DISABLE = "webhook.disable"
    WEBHOOK_UNSEAL = "webhook.unseal"
    ACCESS_DENY = "access.deny"


# Credentials and uploads are named by the data source that they belong to, keys by their organization.
SUBJECTS: Final[dict[str, ids.Prefix]] = {
    "organization": "org",
    "organization_key": "org",
    "member": "user",
    "api_key": "key",
    "project": "proj",
    "data_source": "dsrc",
    "credentials": "dsrc",
    "upload": "dsrc",
    "job": "job",
    "webhook": "hook",
}
"""What the subject of an act on each noun is."""
