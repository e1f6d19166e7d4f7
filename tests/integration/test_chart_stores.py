"""The chart with its stores elsewhere: what a database and an object store need reaches who uses them."""

from __future__ import annotations

from chart_variants import Object, objects_of, pod_of


def pods() -> dict[str, Object]:
    return {one["metadata"]["name"]: pod for one in objects_of("no volume") if (pod := pod_of(one))}


def test_the_recorder_verifies_its_database_by_the_ca_of_the_secret() -> None:
    recorder = pods()["fairlane-recorder"]
    [container], volumes = recorder["containers"], {one["name"]: one for one in recorder["volumes"]}
    variables = {one["name"]: one.get("value") for one in container["env"]}
    [mount] = [one for one in container["volumeMounts"] if one["mountPath"] == "/etc/fairlane-postgresql"]
    assert variables["PGSSLMODE"] == "verify-full"
    assert variables["PGSSLROOTCERT"] == f"{mount['mountPath']}/ca.crt"
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    assert volumes[mount["name"]]["secret"] == {"secretName": "store", "items": items}


def test_predictor_and_training_have_the_credentials_of_the_object_store_and_nobody_else() -> None:
    given = {name: pod["containers"][0].get("envFrom") for name, pod in pods().items()}
    assert {name for name, one in given.items() if one} == {"fairlane-predictor", "fairlane-train"}
    assert given["fairlane-predictor"] == given["fairlane-train"] == [{"secretRef": {"name": "models"}}]


def test_nothing_is_on_a_volume() -> None:
    assert not [one for pod in pods().values() for one in pod["volumes"] if "persistentVolumeClaim" in one]
    assert "PersistentVolumeClaim" not in {one["kind"] for one in objects_of("no volume")}
