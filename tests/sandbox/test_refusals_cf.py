"""What Cloud Controller refuses, and the exact words it uses: one row for each refusal, with the section it is from."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.sandbox.landscape import CONFIG, SLOW, Landscape

IN_PROGRESS = {"state": "in progress"}
FAILED = {"state": "failed"}
INSTANCES: list[dict[str, Any]] = [
    {
        **CONFIG,
        "name": "ready",
        "keys": [
            {"name": "key"},
            {"name": "key-making", "last_operation": {"type": "create", "state": "initial"}},
            {"name": "key-failed", "last_operation": {"type": "create", **FAILED}},
            {"name": "key-going", "last_operation": {"type": "delete", **IN_PROGRESS}},
            {"name": "key-stuck", "last_operation": {"type": "delete", **FAILED}},
        ],
    },
    {
        **CONFIG,
        "name": "bound",
        "app_bindings": [
            {"app": "shop", "name": "app-making", "last_operation": {"type": "create", **IN_PROGRESS}},
            {"app": "till", "name": "app-stuck", "last_operation": {"type": "delete", **FAILED}},
        ],
        "routes": [{"host": "front"}],
    },
    {**CONFIG, "name": "twin"},
    {**CONFIG, "name": "new", "last_operation": {"type": "create", "state": "initial"}},
    {**CONFIG, "name": "failed", "last_operation": {"type": "create", **FAILED}},
    {**CONFIG, "name": "updating", "last_operation": {"type": "update", **IN_PROGRESS}},
    {**CONFIG, "name": "going", "last_operation": {"type": "delete", **IN_PROGRESS}},
    {**SLOW, "name": "slow"},
    {
        **CONFIG,
        "space": "vault",
        "name": "hidden",
        "app_bindings": [{"app": "safe", "name": "app-hidden"}],
        "routes": [{"host": "back"}],
    },
    {
        "space": "apis",
        "service": "xsuaa",
        "plan": "application",
        "name": "auth",
        "keys": [{"name": "auth-key"}],
    },
    {
        "space": "apis",
        "type": "user-provided",
        "name": "own",
        "app_bindings": [{"app": "shop", "name": "app-own"}],
    },
]

SI, SCB = "/v3/service_instances", "/v3/service_credential_bindings"
SRB = "/v3/service_route_bindings"
LISTED = "'page', 'per_page', 'order_by', 'created_ats', 'updated_ats', 'guids'"
NO_PLAN = (
    "Invalid service plan. Ensure that the service plan exists, is available, and you have access to it."
)
NO_SPACE = "Invalid space. Ensure that the space exists and you have access to it."
BUSY_KEY = (
    "The binding name is invalid. Key binding names must be unique. The service instance already has a key"
)


@dataclass(frozen=True)
class Row:
    section: str
    sentence: str
    request: tuple[Any, ...]
    status: int
    code: int
    title: str
    detail: str
    who: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def managed(space: str = "<apis>", plan: str = "<plan:sandbox-config>", **more: Any) -> dict[str, Any]:
    return {
        "type": "managed",
        "name": "demo",
        "relationships": {"space": {"data": {"guid": space}}, "service_plan": {"data": {"guid": plan}}},
        **more,
    }


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


def key(instance: str = "<ready>", **more: Any) -> dict[str, Any]:
    return {
        "type": "key",
        "name": "demo",
        "relationships": {"service_instance": {"data": {"guid": instance}}},
        **more,
    }


def query(section: str, sentence: str, target: str, detail: str, **more: Any) -> Row:
    text = f"The query parameter is invalid: {detail}"
    return Row(section, sentence, ("GET", target), 400, 10005, "CF-BadQueryParameter", text, **more)


def wrong(section: str, sentence: str, request: tuple[Any, ...], detail: str, **more: Any) -> Row:
    return Row(section, sentence, request, 422, 10008, "CF-UnprocessableEntity", detail, **more)


def absent(section: str, sentence: str, request: tuple[Any, ...], detail: str, **more: Any) -> Row:
    return Row(section, sentence, request, 404, 10010, "CF-ResourceNotFound", detail, **more)


def labels(section: str, sentence: str, labels: dict[str, Any], detail: str) -> Row:
    body = {"metadata": {"labels": labels}}
    return wrong(section, sentence, ("PATCH", f"{SI}/<ready>", body), f"Metadata {detail}")


def plan_of(plan: str) -> dict[str, Any]:
    return {"relationships": {"service_plan": {"data": {"guid": plan}}}}


FORBIDDEN = (403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action")

ROWS = [
    # 1.2 Error envelope
    Row(
        "1.2",
        "a body that is no JSON",
        ("POST", SI, b"{not json"),
        400,
        1001,
        "CF-MessageParseError",
        "Request invalid due to parse error: invalid request body",
    ),
    Row(
        "1.2",
        "a body that is no object",
        ("POST", SI, b"[1]"),
        400,
        1001,
        "CF-MessageParseError",
        "Request invalid due to parse error: invalid request body",
    ),
    Row(
        "1.2",
        "a route that does not exist",
        ("GET", "/v3/nothing"),
        404,
        10000,
        "CF-NotFound",
        "Unknown request",
    ),
    absent("1.2", "an organisation nobody has", ("GET", "/v3/organizations/x"), "Organization not found"),
    absent("1.2", "a space nobody has", ("GET", "/v3/spaces/x"), "Space not found"),
    absent("1.2", "an unknown offering", ("GET", "/v3/service_offerings/x"), "Service offering not found"),
    absent("1.2", "an unknown plan", ("GET", "/v3/service_plans/x"), "Service plan not found"),
    absent("1.2", "an unknown instance", ("GET", f"{SI}/x"), "Service instance not found"),
    absent("1.2", "an unknown key", ("GET", f"{SCB}/x"), "Service credential binding not found"),
    absent("1.2", "an unknown job", ("GET", "/v3/jobs/x"), "Job not found"),
    absent("1.2", "an unknown feature flag", ("GET", "/v3/feature_flags/x"), "Feature flag not found"),
    # 1.3 Pagination
    query("1.3", "page zero", f"{SI}?page=0", "Page must be a positive integer"),
    query("1.3", "a page that is no number", f"{SI}?page=x", "Page must be a positive integer"),
    query("1.3", "nothing per page", f"{SI}?per_page=0", "Per page must be a positive integer"),
    query("1.3", "too much per page", f"{SI}?per_page=5001", "Per page must be between 1 and 5000"),
    query(
        "1.3",
        "an order by something else",
        f"{SI}?order_by=type",
        "Order by can only be: 'created_at', 'updated_at', 'name'",
    ),
    query(
        "1.3",
        "more results than the server gives",
        f"{SI}?page=3&per_page=5000",
        "Maximum result (page * per_page) must be less than 10000",
        settings={"cloud_foundry": {"max_total_results": 10000}},
    ),
    # 1.4 Filters
    query(
        "1.4",
        "an unknown filter of instances",
        f"{SI}?name=x",
        f"Unknown query parameter(s): 'name'. Valid parameters are: {LISTED}, 'type', 'fields', 'names', "
        "'space_guids', 'organization_guids', 'service_plan_guids', 'service_plan_names', 'label_selector'",
    ),
    query(
        "1.4",
        "an unknown filter of keys",
        f"{SCB}?x=1",
        f"Unknown query parameter(s): 'x'. Valid parameters are: {LISTED}, 'names', 'service_instance_guids', "
        "'service_instance_names', 'service_plan_names', 'service_plan_guids', 'service_offering_names', "
        "'service_offering_guids', 'app_guids', 'app_names', 'include', 'type', 'label_selector'",
    ),
    query(
        "1.4",
        "an unknown filter of organisations",
        "/v3/organizations?x=1",
        f"Unknown query parameter(s): 'x'. Valid parameters are: {LISTED}, 'names', 'label_selector'",
    ),
    query(
        "1.4",
        "an unknown filter of spaces",
        "/v3/spaces?x=1",
        f"Unknown query parameter(s): 'x'. Valid parameters are: {LISTED}, 'names', 'organization_guids', "
        "'include', 'label_selector'",
    ),
    query(
        "1.4",
        "an unknown parameter of one instance",
        f"{SI}/<ready>?include=space",
        "Unknown query parameter(s): 'include'. Valid parameters are: 'fields'",
    ),
    query(
        "1.4",
        "an unknown parameter of one key",
        f"{SCB}/<key>?fields=x",
        "Unknown query parameter(s): 'fields'. Valid parameters are: 'include'",
    ),
    query(
        "1.4",
        "a bad include",
        f"{SCB}?include=space",
        "Invalid included resource: 'space'. Valid included resources are: 'app', 'service_instance'",
    ),
    query(
        "1.4",
        "the same include twice",
        f"{SCB}?include=app,app",
        "Duplicate included resource: 'app'",
    ),
    query(
        "1.4",
        "fields of an unknown resource",
        f"{SI}?fields[plan]=name",
        "Fields [plan] valid resources are: 'space', 'space.organization', 'service_plan', "
        "'service_plan.service_offering', 'service_plan.service_offering.service_broker'",
    ),
    query(
        "1.4",
        "an unknown field of a space",
        f"{SI}?fields[space]=metadata",
        "Fields valid keys for 'space' are: 'guid', 'name', 'relationships.organization'",
    ),
    # 1.5 label_selector
    query("1.5", "an empty selector", f"{SI}?label_selector=", "Missing label_selector value"),
    query("1.5", "a selector that is none", f"{SI}?label_selector=a=b=c", "Invalid label_selector value"),
    query(
        "1.5",
        "more than fifty requirements",
        f"{SI}?label_selector=" + ",".join(f"a{n}" for n in range(51)),
        "Too many label_selector requirements (maximum is 50)",
    ),
    # 1.6 metadata
    wrong(
        "1.6",
        "metadata that is no object",
        ("PATCH", f"{SI}/<ready>", {"metadata": 1}),
        "Metadata must be an object",
    ),
    wrong(
        "1.6",
        "an unknown member of metadata",
        ("PATCH", f"{SI}/<ready>", {"metadata": {"x": {}}}),
        "Metadata has unexpected field(s): 'x'",
    ),
    labels(
        "1.6", "a sign that no key has", {"a@b": "x"}, "label key error: 'a@b' contains invalid characters"
    ),
    labels(
        "1.6",
        "a key that begins with a dash",
        {"-a": "x"},
        "label key error: '-a' starts or ends with invalid characters",
    ),
    labels("1.6", "two slashes", {"a.b/c/d": "x"}, "label key error: key has more than one '/'"),
    labels("1.6", "a bad prefix", {"x/a": "x"}, "label key error: prefix 'x' must be in valid dns format"),
    labels(
        "1.6",
        "a long key",
        {"12345678" * 8: "x"},
        "label key error: '1234567...' is greater than 63 characters",
    ),
    labels(
        "1.6",
        "a label with a blank",
        {"a": "x y"},
        "label value error: 'x y' contains invalid characters",
    ),
    wrong(
        "1.6",
        "a long annotation",
        ("PATCH", f"{SI}/<ready>", {"metadata": {"annotations": {"a": "abcdefgh" * 700}}}),
        "Metadata annotation value error: 'abcdefg...' is greater than 5000 characters",
    ),
    Row(
        "1.6",
        "more than fifty labels",
        ("PATCH", f"{SI}/<ready>", {"metadata": {"labels": {f"a{n}": "x" for n in range(51)}}}),
        422,
        390020,
        "CF-LabelLimitExceeded",
        "Failed to add 51 labels because it would exceed maximum of 50",
    ),
    Row(
        "1.6",
        "more than two hundred annotations",
        ("PATCH", f"{SI}/<ready>", {"metadata": {"annotations": {f"a{n}": "x" for n in range(201)}}}),
        422,
        390023,
        "CF-AnnotationLimitExceeded",
        "Failed to add 201 annotations because it would exceed maximum of 200",
    ),
    # 1.7 Authorization
    Row("1.7", "nobody", ("GET", SI), 401, 10002, "CF-NotAuthenticated", "Authentication error", who=""),
    Row("1.7", "an auditor who creates", ("POST", SI, managed()), *FORBIDDEN, who="auditor@example.com"),
    Row("1.7", "a manager who creates", ("POST", SI, managed()), *FORBIDDEN, who="manager@example.com"),
    Row("1.7", "an auditor who makes a key", ("POST", SCB, key()), *FORBIDDEN, who="auditor@example.com"),
    Row("1.7", "an auditor who deletes", ("DELETE", f"{SI}/<ready>"), *FORBIDDEN, who="auditor@example.com"),
    Row("1.7", "a token without the scope to read", ("GET", SI), *FORBIDDEN, who="weak@example.com"),
    Row(
        "1.7",
        "a token without the scope to write",
        ("DELETE", f"{SI}/<ready>"),
        *FORBIDDEN,
        who="weak@example.com",
    ),
    absent(
        "1.7",
        "somebody without a role",
        ("GET", f"{SI}/<ready>"),
        "Service instance not found",
        who="stranger@example.com",
    ),
    absent("1.7", "a space one cannot see", ("GET", f"{SI}/<hidden>"), "Service instance not found"),
    Row(
        "1.7",
        "a suspended organisation",
        ("POST", SI, managed(space="<night>")),
        403,
        10017,
        "CF-OrgSuspended",
        "The organization is suspended",
    ),
    # 7.1 Instances
    query(
        "7.1",
        "an unknown type of instance",
        f"{SI}?type=other",
        "Type must be one of 'managed', 'user-provided'",
    ),
    # 7.4 Create
    Row(
        "7.4",
        "creation switched off",
        ("POST", SI, managed()),
        403,
        330002,
        "CF-FeatureDisabled",
        "Feature Disabled: service_instance_creation",
        settings={"cloud_foundry": {"feature_flags": {"service_instance_creation": False}}},
    ),
    wrong(
        "7.4",
        "an unknown type",
        ("POST", SI, managed(type="x")),
        "Type must be one of 'managed', 'user-provided'",
    ),
    wrong("7.4", "a blank name", ("POST", SI, managed(name=" ")), "Name can't be blank"),
    wrong("7.4", "a name that is no text", ("POST", SI, managed(name=1)), "Name must be a string"),
    wrong(
        "7.4",
        "no name",
        ("POST", SI, without(managed(), "name")),
        "Name must be a string, Name can't be blank",
    ),
    wrong("7.4", "tags that are no list", ("POST", SI, managed(tags="a")), "Tags must be an array"),
    wrong("7.4", "a tag that is no text", ("POST", SI, managed(tags=[1])), "Tags must be a list of strings"),
    wrong(
        "7.4",
        "parameters that are no object",
        ("POST", SI, managed(parameters=[1])),
        "Parameters must be an object",
    ),
    wrong("7.4", "an unknown field", ("POST", SI, managed(service="x")), "Unknown field(s): 'service'"),
    wrong(
        "7.4",
        "no relationships",
        ("POST", SI, without(managed(), "relationships")),
        "Relationships 'relationships' is not an object",
    ),
    wrong(
        "7.4",
        "empty relationships",
        ("POST", SI, managed(relationships={})),
        "Relationships 'relationships' must include one or more valid relationships",
    ),
    wrong(
        "7.4",
        "no space",
        ("POST", SI, managed(**plan_of("<plan:sandbox-config>"))),
        "Relationships Space can't be blank",
    ),
    wrong(
        "7.4",
        "no plan",
        ("POST", SI, managed(relationships={"space": {"data": {"guid": "<apis>"}}})),
        "Relationships Service plan can't be blank",
    ),
    wrong("7.4", "an unknown space", ("POST", SI, managed(space="x")), NO_SPACE),
    wrong("7.4", "a space one cannot see", ("POST", SI, managed(space="<vault>")), NO_SPACE),
    wrong("7.4", "a plan that nobody has", ("POST", SI, managed(plan="nobody")), NO_PLAN),
    wrong(
        "7.4",
        "a plan that the catalogue has lost",
        ("POST", SI, managed()),
        "Invalid service plan. The service plan 'standard' with guid '<plan:sandbox-config>' has been removed from "
        "the service broker's catalog. It is not possible to create new service instances using this plan.",
        settings={"cloud_foundry": {"inactive_plans": ["sandbox-config/standard"]}},
    ),
    wrong(
        "7.4",
        "a plan that another organisation has",
        ("POST", SI, managed(plan="<plan:destination>")),
        "Invalid service plan. This could be due to a space-scoped broker which is offering the service plan 'lite' "
        "with guid '<plan:destination>' in another space or that the plan is not enabled in this organization. "
        "Ensure that the service plan is visible in your current space 'apis' with guid '<apis>'.",
    ),
    wrong(
        "7.4",
        "a broker being synchronised",
        ("POST", SI, managed()),
        "The service instance cannot be created because there is an operation in progress for the service broker.",
        settings={"cloud_foundry": {"brokers_busy": True}},
    ),
    wrong(
        "7.4",
        "an organisation that is full",
        ("POST", SI, managed()),
        "You have exceeded your organization's services limit.",
        settings={"cloud_foundry": {"organization_quota": {"services": 3}}},
    ),
    wrong(
        "7.4",
        "a space that is full",
        ("POST", SI, managed()),
        "You have exceeded your space's services limit.",
        settings={"cloud_foundry": {"space_quota": {"services": 3}}},
    ),
    wrong(
        "7.4",
        "a plan that costs something, where none may",
        ("POST", SI, managed(plan="<plan:large>")),
        "The service instance cannot be created because paid service plans are not allowed.",
        settings={"cloud_foundry": {"organization_quota": {"paid": False}}},
    ),
    wrong(
        "7.4",
        "a plan that costs something, in a space where none may",
        ("POST", SI, managed(plan="<plan:large>")),
        "The service instance cannot be created because paid service plans are not allowed for your space.",
        settings={"cloud_foundry": {"space_quota": {"paid": False}}},
    ),
    wrong(
        "7.4",
        "a name that is taken",
        ("POST", SI, managed(name="ready")),
        "The service instance name is taken: ready.",
    ),
    wrong(
        "7.4",
        "the name of a user-provided instance",
        ("POST", SI, managed(name="own")),
        "The service instance name is taken: own.",
    ),
    wrong("4", "a name that is too long", ("POST", SI, managed(name="n" * 256)), "name max_length"),
    wrong("4", "tags that are too long", ("POST", SI, managed(tags=["t" * 2049])), "tags too_long"),
    wrong(
        "7.4",
        "a plan for a user-provided instance",
        ("POST", SI, managed(type="user-provided")),
        "Relationships Unknown field(s): 'service_plan'",
    ),
    # 7.7 Update
    wrong("7.7", "an unknown field", ("PATCH", f"{SI}/<ready>", {"type": "x"}), "Unknown field(s): 'type'"),
    wrong(
        "7.7",
        "another space",
        ("PATCH", f"{SI}/<ready>", {"relationships": {"space": {"data": {"guid": "<other>"}}}}),
        "Relationships Unknown field(s): 'space', Relationships Service plan can't be blank",
    ),
    wrong(
        "7.7",
        "a version that is none",
        ("PATCH", f"{SI}/<ready>", {"maintenance_info": {"version": "one"}}),
        "maintenance_info.version should be a semantic version.",
    ),
    wrong(
        "7.7",
        "a version of a plan that has none",
        ("PATCH", f"{SI}/<ready>", {"maintenance_info": {"version": "1.0.0"}}),
        "The service broker does not support upgrades for service instances created from this plan.",
    ),
    wrong(
        "7.7",
        "a version and another plan",
        (
            "PATCH",
            f"{SI}/<ready>",
            {**plan_of("<plan:large>"), "maintenance_info": {"version": "1.0.0"}},
        ),
        "maintenance_info should not be changed when switching to different plan.",
    ),
    wrong(
        "7.7",
        "a name that is taken, this time without a full stop",
        ("PATCH", f"{SI}/<ready>", {"name": "twin"}),
        "The service instance name is taken: twin",
    ),
    wrong("7.7", "an unknown plan", ("PATCH", f"{SI}/<ready>", plan_of("nobody")), NO_PLAN),
    Row(
        "7.7",
        "a plan of another offering",
        ("PATCH", f"{SI}/<ready>", plan_of("<plan:sandbox-slow>")),
        400,
        1002,
        "CF-InvalidRelation",
        "service plan relates to a different service offering",
    ),
    wrong(
        "7.7",
        "a plan that cannot change, even the same one",
        ("PATCH", f"{SI}/<auth>", plan_of("<plan:xsuaa>")),
        "The service does not support changing plans.",
    ),
    Row(
        "7.7",
        "parameters while an update runs",
        ("PATCH", f"{SI}/<updating>", {"parameters": {}}),
        409,
        60016,
        "CF-AsyncServiceInstanceOperationInProgress",
        "An operation for service instance updating is in progress.",
    ),
    Row(
        "7.7",
        "labels while a deletion runs",
        ("PATCH", f"{SI}/<going>", {"metadata": {"labels": {"a": "x"}}}),
        409,
        60016,
        "CF-AsyncServiceInstanceOperationInProgress",
        "An operation for service instance going is in progress.",
    ),
    Row(
        "7.7",
        "an instance whose creation failed",
        ("PATCH", f"{SI}/<failed>", {"name": "x"}),
        404,
        60004,
        "CF-ServiceInstanceNotFound",
        "The service instance could not be found: failed",
    ),
    Row(
        "7.7",
        "a name that is too long, which nobody expected",
        ("PATCH", f"{SI}/<ready>", {"name": "n" * 256}),
        500,
        10001,
        "UnknownError",
        "An unknown error occurred.",
    ),
    wrong(
        "7.7",
        "parameters of an instance whose plan is inactive",
        ("PATCH", f"{SI}/<ready>", {"parameters": {}}),
        "Cannot update parameters of a service instance that belongs to inaccessible plan",
        settings={"cloud_foundry": {"inactive_plans": ["sandbox-config/standard"]}},
    ),
    # 7.8 Delete
    absent("7.8", "an instance nobody has", ("DELETE", f"{SI}/x"), "Service instance not found"),
    *(
        wrong(
            "7.8",
            f"an instance that is {name}",
            ("DELETE", f"{SI}/<{name}>"),
            "There is an operation in progress for the service instance.",
        )
        for name in ("new", "updating", "going")
    ),
    Row("7.8", "purging without administration", ("DELETE", f"{SI}/<ready>?purge=true"), *FORBIDDEN),
    # 7.9 Sub-resources
    Row(
        "7.9",
        "parameters that the offering does not give",
        ("GET", f"{SI}/<auth>/parameters"),
        400,
        120004,
        "CF-ServiceFetchInstanceParametersNotSupported",
        "This service does not support fetching service instance parameters.",
    ),
    Row(
        "7.9",
        "parameters of a user-provided instance",
        ("GET", f"{SI}/<own>/parameters"),
        400,
        120004,
        "CF-ServiceFetchInstanceParametersNotSupported",
        "This service does not support fetching service instance parameters.",
    ),
    Row(
        "7.9",
        "parameters while an update runs",
        ("GET", f"{SI}/<updating>/parameters"),
        409,
        60016,
        "CF-AsyncServiceInstanceOperationInProgress",
        "An operation for service instance updating is in progress.",
    ),
    absent(
        "7.9",
        "credentials of a managed instance",
        ("GET", f"{SI}/<ready>/credentials"),
        "Service instance not found",
    ),
    Row(
        "7.9",
        "credentials for an auditor",
        ("GET", f"{SI}/<own>/credentials"),
        *FORBIDDEN,
        who="auditor@example.com",
    ),
    Row(
        "7.9",
        "sharing while the flag is off",
        (
            "POST",
            f"{SI}/<ready>/relationships/shared_spaces",
            {"data": [{"guid": "<other>"}]},
        ),
        403,
        330002,
        "CF-FeatureDisabled",
        "Feature Disabled: service_instance_sharing",
    ),
    wrong(
        "7.9",
        "sharing with an unknown space",
        ("POST", f"{SI}/<ready>/relationships/shared_spaces", {"data": [{"guid": "g"}]}),
        "Unable to share service instance ready with spaces ['g']. Ensure the spaces exist and that you have access "
        "to them.",
        settings={"cloud_foundry": {"feature_flags": {"service_instance_sharing": True}}},
    ),
    # 8 Keys
    query("8.1", "an unknown type of binding", f"{SCB}?type=x", "Type must be one of 'app', 'key'"),
    absent(
        "8.2",
        "credentials before the key is made",
        ("GET", f"{SCB}/<key-making>/details"),
        "Creation of service key in progress",
    ),
    absent(
        "8.2",
        "credentials of a key that failed",
        ("GET", f"{SCB}/<key-failed>/details"),
        "Creation of service key failed",
    ),
    absent(
        "8.2",
        "credentials while the key goes",
        ("GET", f"{SCB}/<key-going>/details"),
        "Deletion of service key in progress",
    ),
    absent(
        "8.2",
        "credentials after a failed deletion",
        ("GET", f"{SCB}/<key-stuck>/details"),
        "Deletion of service key failed",
    ),
    absent(
        "8.2",
        "credentials for an auditor",
        ("GET", f"{SCB}/<key>/details"),
        "Service credential binding not found",
        who="auditor@example.com",
    ),
    Row(
        "8.2",
        "parameters of a key that the offering does not give",
        ("GET", f"{SCB}/<auth-key>/parameters"),
        400,
        90007,
        "CF-ServiceFetchBindingParametersNotSupported",
        "This service does not support fetching service binding parameters.",
    ),
    wrong(
        "8.3",
        "a key of a user-provided instance",
        ("POST", SCB, key("<own>")),
        "Service credential bindings of type 'key' are not supported for user-provided service instances.",
    ),
    wrong("8.3", "an unknown type", ("POST", SCB, key(type="x")), "Type must be 'app' or 'key'"),
    wrong("8.3", "a blank name", ("POST", SCB, key(name="")), "Name can't be blank"),
    wrong("8.3", "an unknown field", ("POST", SCB, key(tags=[])), "Unknown field(s): 'tags'"),
    wrong(
        "8.3",
        "no instance",
        ("POST", SCB, key(relationships={"service_instance": None})),
        "Relationships Service instance can't be blank",
    ),
    wrong(
        "8.3",
        "an unknown instance",
        ("POST", SCB, key("x")),
        "The service instance could not be found: 'x'",
    ),
    wrong(
        "8.3",
        "an instance one cannot see",
        ("POST", SCB, key("<hidden>")),
        "The service instance could not be found: '<hidden>'",
    ),
    wrong(
        "8.3",
        "an instance whose creation failed",
        ("POST", SCB, key("<failed>")),
        "Service instance not found",
    ),
    wrong(
        "8.3",
        "an instance being changed",
        ("POST", SCB, key("<updating>")),
        "There is an operation in progress for the service instance",
    ),
    wrong(
        "8.3",
        "a space that has enough keys",
        ("POST", SCB, key()),
        "You have exceeded your space's limit for service binding of type key.",
        settings={"cloud_foundry": {"space_quota": {"keys": 2}}},
    ),
    wrong(
        "8.3",
        "an organisation that has enough keys",
        ("POST", SCB, key()),
        "You have exceeded your organization's limit for service binding of type key.",
        settings={"cloud_foundry": {"organization_quota": {"keys": 2}}},
    ),
    wrong("8.3", "a key that exists", ("POST", SCB, key(name="key")), f"{BUSY_KEY} binding with name 'key'."),
    wrong(
        "8.3",
        "a key that is going",
        ("POST", SCB, key(name="key-going")),
        f"{BUSY_KEY} binding with the name 'key-going' that is getting deleted or its deletion failed.",
    ),
    wrong(
        "8.4",
        "another name for a key",
        ("PATCH", f"{SCB}/<key>", {"name": "x"}),
        "Unknown field(s): 'name'",
    ),
    wrong(
        "8.4",
        "labels of a key that is going",
        ("PATCH", f"{SCB}/<key-going>", {"metadata": {"labels": {"a": "x"}}}),
        "The service binding is being deleted",
    ),
    wrong(
        "8.4",
        "deleting a key that is being made",
        ("DELETE", f"{SCB}/<key-making>"),
        "There is an operation in progress for the service binding.",
    ),
    wrong(
        "8.4",
        "deleting a key twice",
        ("DELETE", f"{SCB}/<key-going>"),
        "There is an operation in progress for the service binding.",
    ),
    # 8 Bindings of apps
    Row(
        "7.7",
        "a change while an app is being bound",
        ("PATCH", f"{SI}/<bound>", {"tags": ["x"]}),
        409,
        90008,
        "CF-AsyncServiceBindingOperationInProgress",
        "An operation for the service binding between app shop and service instance bound is in progress.",
    ),
    absent(
        "8.1",
        "the binding of an app in a space one cannot see",
        ("GET", f"{SCB}/<app-hidden>"),
        "Service credential binding not found",
    ),
    absent(
        "8.2",
        "credentials before an app is bound",
        ("GET", f"{SCB}/<app-making>/details"),
        "Creation of service binding in progress",
    ),
    absent(
        "8.2",
        "credentials after a failed unbinding",
        ("GET", f"{SCB}/<app-stuck>/details"),
        "Deletion of service binding failed",
    ),
    absent(
        "8.2",
        "credentials of an app for an auditor",
        ("GET", f"{SCB}/<app-own>/details"),
        "Service credential binding not found",
        who="auditor@example.com",
    ),
    Row(
        "8.2",
        "parameters of a binding to a user-provided instance",
        ("GET", f"{SCB}/<app-own>/parameters"),
        400,
        90007,
        "CF-ServiceFetchBindingParametersNotSupported",
        "This service does not support fetching service binding parameters.",
    ),
    Row(
        "8.3",
        "binding an app",
        ("POST", SCB, {**key(), "type": "app"}),
        501,
        10001,
        "CF-NotEmulated",
        "The sandbox does not emulate POST /v3/service_credential_bindings with type 'app'.",
    ),
    Row(
        "8.4",
        "unbinding an app as an auditor",
        ("DELETE", f"{SCB}/<app-own>"),
        *FORBIDDEN,
        who="auditor@example.com",
    ),
    # Route bindings (CF API v3, "Service Route Binding"; the general rules are those of section 1)
    Row(
        "1.7",
        "route bindings for nobody",
        ("GET", SRB),
        401,
        10002,
        "CF-NotAuthenticated",
        "Authentication error",
        who="",
    ),
    query(
        "1.4",
        "an unknown parameter of the list of route bindings",
        f"{SRB}?names=x",
        f"Unknown query parameter(s): 'names'. Valid parameters are: {LISTED}, 'service_instance_guids', "
        "'service_instance_names', 'route_guids', 'include', 'label_selector'",
    ),
    query(
        "1.4",
        "an unknown parameter of one route binding",
        f"{SRB}/<binding of front>?page=1",
        "Unknown query parameter(s): 'page'. Valid parameters are: 'include'",
    ),
    query(
        "1.3",
        "an order that route bindings have not",
        f"{SRB}?order_by=name",
        "Order by can only be: 'created_at', 'updated_at'",
    ),
    query(
        "1.3",
        "a page of route bindings that is no number",
        f"{SRB}?page=0",
        "Page must be a positive integer",
    ),
    query(
        "1.4",
        "an unknown include of route bindings",
        f"{SRB}?include=app",
        "Invalid included resource: 'app'. Valid included resources are: 'route', 'service_instance'",
    ),
    query(
        "1.4",
        "an include of one route binding twice",
        f"{SRB}/<binding of front>?include=route,route",
        "Duplicate included resource: 'route'",
    ),
    query("1.5", "a selector without value", f"{SRB}?label_selector=", "Missing label_selector value"),
    absent("1.2", "an unknown route binding", ("GET", f"{SRB}/x"), "Service route binding not found"),
    absent(
        "1.2",
        "a route binding in a space one cannot see",
        ("GET", f"{SRB}/<binding of back>"),
        "Service route binding not found",
    ),
]


def filled(landscape: Landscape, value: Any) -> Any:
    """The names in angle brackets replaced by the ids of this world."""
    if isinstance(value, dict):
        return {key: filled(landscape, below) for key, below in value.items()}
    if isinstance(value, list):
        return [filled(landscape, below) for below in value]
    return (
        re.sub(r"<([^>]+)>", lambda match: landscape.names[match[1]], value)
        if isinstance(value, str)
        else value
    )


PLANS = {
    "plan:sandbox-config": ("sandbox-config", "standard"),
    "plan:large": ("sandbox-config", "large"),
    "plan:sandbox-slow": ("sandbox-slow", "standard"),
    "plan:destination": ("destination", "lite"),
    "plan:xsuaa": ("xsuaa", "application"),
}


@functools.cache
def world(settings: str) -> Landscape:
    """One world for all rows with the same settings: a refusal changes nothing, which every row checks."""
    landscape = Landscape(INSTANCES, settings=json.loads(settings))
    landscape.names |= {name: landscape.plan(*plan) for name, plan in PLANS.items()}
    return landscape


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section} {row.sentence}")
def test_a_refusal_is_the_platforms_own(row: Row):
    landscape = world(json.dumps(row.settings))
    method, target, *body = filled(landscape, list(row.request))
    before = landscape.sandbox.snapshot()

    answer = landscape.send(method, target, *body, who=row.who)

    item = {"detail": filled(landscape, row.detail), "title": row.title, "code": row.code}
    assert (answer.status, answer.data()) == (row.status, {"errors": [item]})
    assert landscape.sandbox.snapshot() == before
