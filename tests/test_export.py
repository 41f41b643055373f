"""export: what is live and not described becomes a spec that adopts it, and nothing else happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import given

from btp_reconcile import pipeline
from btp_reconcile.core.model import Action, Status, Subaccount
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.export import live
from btp_reconcile.kinds import KINDS
from tests.edges.wire import Rig
from tests.plan_cases import stamped
from tests.stories import SECRET_TEXT, Story, stories
from tests.test_laws import LAW, told
from tests.worlds import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Desk

PROD = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
BARE = """\
version: 1
owner: finance-platform
name: prod
access:
  central: {service_key: "${env:A}"}
  service_manager: {service_key: "${env:B}"}
  cloud_foundry: {username: u, password: "${env:C}", origin: my-idp}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
"""
SECRET = "zK8-planted-Secret_value"


def found(**about: Any) -> dict[str, Any]:
    return {"service": "sandbox-config", "plan": "standard", **about}


def exported(bench: Bench, *paths: str, subaccount: str = "prod") -> str:
    world = bench.world()
    prepared = pipeline.prepare(paths, world, whole=subaccount)
    place = prepared.wanted.subaccounts["prod"]
    text, unseen = pipeline.export(prepared, world, place)
    assert [one.message for one in unseen] == []
    return text


def seeded(folder: Path, instances: list[dict[str, Any]]) -> Bench:
    bench = Bench(folder)
    place = {
        "id": PROD,
        "region": "eu10",
        "cloud_foundry": {"org": "finance-prod", "spaces": ["apis", "Team B"]},
    }
    bench.sandbox.seed(stamped({"subaccounts": {"prod": {**place, "instances": instances}}}))
    return bench


def adopted(bench: Bench, *paths: str) -> list[str]:
    """Apply; what was adopted. Nothing else may happen, and nothing may be left to do."""
    now = bench.now()
    world, policy = bench.world(), bench.policy(now=now)
    planned = pipeline.make_plan(pipeline.prepare(paths, world), world, policy)
    assert planned.plan.objections == ()
    acting = [change for change in planned.plan.changes if change.action is not Action.KEEP]
    assert {change.action for change in acting} <= {Action.ADOPT}
    _, reports = pipeline.settle(planned, world, policy)
    assert [one.error for done in reports for one in done.outcomes if one.status is not Status.DONE] == []
    assert bench.plan(*paths, now=now).plan.empty
    return sorted(str(change.address) for change in acting)


def test_everything_live_is_exported_adopted_and_then_in_sync(tmp_path: Path) -> None:
    bench = seeded(
        tmp_path,
        [
            found(
                name="config", parameters={"size": 1}, tags=["blue"], keys=[{"name": "k"}, {"name": "K 2"}]
            ),
            found(name="Übung ${x}: 1", space="Team B", keys=[{"name": "yes"}]),
            found(name="config-2"),
            found(name="away", runtime="other", parameters={"size": 2}, keys=[{"name": "k"}]),
            {
                "name": "apim",
                "service": "apimanagement-apiportal",
                "plan": "apiportal-apiaccess",
                "keys": [{"name": "t"}],
            },
        ],
    )
    bare = bench.write(BARE, "bare.yaml")

    spec = exported(bench, bare)

    assert adopted(bench, bench.write(spec, "exported.yaml")) == [
        "instance:prod/apim",
        "instance:prod/away",
        "instance:prod/bung-x-1",
        "instance:prod/config",
        "instance:prod/config.2",
        "key:prod/apim/t",
        "key:prod/away/k",
        "key:prod/bung-x-1/yes",
        "key:prod/config/k",
        "key:prod/config/k-2",
    ]


def test_a_key_without_a_mark_in_what_another_spec_of_ours_made_is_adopted_with_it(
    tmp_path: Path,
) -> None:
    """The Service Manager is asked for keys without a mark by their names, and only in what may be adopted."""
    bench = seeded(tmp_path, [found(name="x", runtime="other", ours=True, keys=[{"name": "k"}])])

    spec = exported(bench, bench.write(BARE, "bare.yaml"))

    assert adopted(bench, bench.write(spec, "exported.yaml")) == ["instance:prod/x", "key:prod/x/k"]


def test_what_a_spec_describes_is_left_out_and_both_can_be_loaded_together(tmp_path: Path) -> None:
    bench = seeded(
        tmp_path,
        [
            found(name="theirs", ours={"owner": "other-team", "spec": "s"}),
            found(name="of-another-spec", ours={"spec": "elsewhere"}),
            found(name="forgotten", ours=True, applied={}),
            found(name="named", keys=[{"name": "told"}, {"name": "untold"}]),
            found(
                name="broken", last_operation={"type": "create", "state": "failed", "description": "not well"}
            ),
            {"name": "user-provided", "type": "user-provided", "space": "apis"},
            found(name="free"),
        ],
    )
    more = "    instances:\n      mine: {service: sandbox-config, plan: standard, runtime: cloudfoundry, keys: {k: {}}}\n"
    other = (
        more.replace("mine:", "named:")
        .replace("k: {}", "told: {adopt: true}")
        .replace("cloudfoundry,", "cloudfoundry, adopt: true,")
    )
    described = bench.write(BARE + more + "".join(other.splitlines(keepends=True)[1:]), "described.yaml")
    bench.apply(described)

    spec = exported(bench, described)

    assert sorted(yaml.safe_load(spec)["subaccounts"]["prod"]["instances"]) == ["forgotten", "free"]
    left = [line[4:] for line in spec.partition("# Left out:\n")[2].splitlines() if "entitlement" not in line]
    assert left == [
        "instance broken: not well",
        "key untold of instance:prod/named: write it where that instance is described, under keys: untold: {adopt: true}",
        "instance of-another-spec: it belongs to owner finance-platform, spec elsewhere",
        "instance theirs: it belongs to owner other-team, spec s",
        "instance user-provided: it is a user-provided instance",
    ]
    assert adopted(bench, described, bench.write(spec, "exported.yaml")) == [
        "instance:prod/forgotten",
        "instance:prod/free",
    ]


def test_amounts_are_exported_as_they_are_assigned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    wanted = "    entitlements: {APPLICATION_RUNTIME: {MEMORY: 3}, sandbox-config: {standard: true}}\n"
    bench.apply(bench.write(BARE.replace("name: prod\n", "name: setup\n") + wanted, "setup.yaml"))

    spec = exported(bench, bench.write(BARE, "bare.yaml"))

    said = yaml.safe_load(spec)["subaccounts"]["prod"]
    assert said["entitlements"] == {
        "APPLICATION_RUNTIME": {"MEMORY": 3},
        "sandbox-config": {"standard": True},
    }
    assert adopted(bench, bench.write(spec, "exported.yaml")) == []


def test_parameters_are_exported_without_what_may_be_secret(tmp_path: Path) -> None:
    parameters = {
        "size": 1,
        "password": SECRET,
        "deep": {"client_secret": SECRET, "kept": [1, "a"]},
        "none": None,
    }
    bench = seeded(tmp_path, [found(name="config", parameters=parameters, keys=[{"name": "k"}])])

    spec = exported(bench, bench.write(BARE, "bare.yaml"))

    instance = yaml.safe_load(spec)["subaccounts"]["prod"]["instances"]["config"]
    assert instance["parameters"] == {"size": 1, "deep": {"kept": [1, "a"]}}
    assert (
        "left out of parameters, because it may be secret or cannot be said: deep.client_secret, none, password"
        in spec
    )
    with bench.sandbox.hold() as world:
        secrets = {str(row["secret"]) for row in world.table("clients").values() if row.get("secret")}
    assert [one for one in {*secrets, SECRET} if one in spec] == []


def test_exporting_only_reads(tmp_path: Path) -> None:
    bench = seeded(tmp_path, [found(name="config", keys=[{"name": "k"}])])
    bare = bench.write(BARE, "bare.yaml")
    exported(bench, bare)
    bench.requests()

    exported(bench, bare)

    asked = [(method, path) for method, _, path in bench.requests() if not path.endswith("/oauth/token")]
    assert {method for method, _ in asked} == {"GET"}
    assert [path for _, path in asked if path.endswith("/details")] == []


@LAW
@given(stories())
def test_what_is_exported_is_only_adopted_and_then_in_sync(story: Story) -> None:
    """Alone, in any world: nothing is made, changed or deleted, and nothing is left to do."""
    with told(story) as scene:
        if scene is None:
            return
        bench, today = scene
        for _ in range(3):
            bench.plan(today)  # looks that bring to rest what is under way
        world = bench.world()
        prepared = pipeline.prepare([today], world, whole="one")
        if "one" not in prepared.wanted.subaccounts:
            return
        spec, _ = pipeline.export(prepared, world, prepared.wanted.subaccounts["one"])

        assert SECRET_TEXT not in spec
        adopted(bench, bench.write(spec, "exported.yaml"))


# --- the command ----------------------------------------------------------------------------------------


def test_what_an_instance_brings_along_was_in_a_spec(in_sync: Desk) -> None:
    ended = in_sync.run("export", "prod", "--sandbox")

    assert ended.code == 0
    assert "apiportal-apiaccess" not in ended.out
    assert "afc-api-service" not in ended.out


def test_the_command_takes_a_name_or_an_id_and_prints_a_spec_that_validates(in_sync: Desk) -> None:
    by_name = in_sync.run("export", "prod", "--sandbox")
    by_id = in_sync.run("export", PROD.upper(), "--sandbox")

    assert (by_name.code, by_name.err, by_id.out) == (0, "", by_name.out)
    in_sync.write("specs/exported.yaml", by_name.out)
    assert in_sync.run("validate").code == 0
    assert in_sync.run("plan", "--sandbox", "--detailed-exitcode").code == 0


def test_a_subaccount_that_no_spec_names_is_answered_in_words(in_sync: Desk) -> None:
    ended = in_sync.run("export", "prd", "--sandbox")

    assert ended.code == 64
    assert "no spec says where subaccount prd is; did you mean 'prod'?" in ended.err


def test_what_could_not_be_looked_at_is_said_and_ends_with_1(in_sync: Desk) -> None:
    in_sync.sandbox().faults.add(
        {
            "do": "status",
            "status": 500,
            "every": 1,
            "match": {"host": "api.cf.*", "path": "/v3/organizations"},
        }
    )

    ended = in_sync.run("export", "prod", "--sandbox")

    assert ended.code == 1
    assert "# Not looked at: Cloud Foundry could not be asked" in ended.out
    assert "platform/unseen" in ended.err


def test_what_there_is_no_way_to_is_said_with_what_to_write() -> None:
    place = Subaccount("prod", "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", "eu10")
    found = live(place, KINDS, Platform(Rig().client, {"prod": {}}, {}, None))

    assert [one.message.partition(": ")[2] for one in found.unseen] == [
        "there are no credentials for it; say access.central in a spec",
        "no organization is named for prod; say cloud_foundry.org in a spec",
        "there are no credentials for it; say access.service_manager in a spec",
    ]
