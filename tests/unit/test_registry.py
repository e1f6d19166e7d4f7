"""The registry: complete versions only, damage is noticed and passed over, old versions go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_runs import JOB_CLASS, feature_rows, model_of_two_classes, recorded

from model.features import NAMES
from model.published import BrokenModelError, PublishedModel
from model.registry import Registry, RegistryError
from model.schema import POSITION
from model.train import Options, final_model


@pytest.fixture(scope="module")
def model() -> PublishedModel:
    return final_model(
        recorded(), Options(estimator={"trees": 30}), trained_at_s=2e9, metrics={"figure": np.float64(0.1)}
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "models"), keep=3)


def file_of(registry: Registry, version: str, name: str) -> Path:
    return Path(registry.url) / "versions" / version / name


def test_an_empty_registry_has_no_model(registry: Registry) -> None:
    assert registry.latest() is None
    assert registry.newest_usable() is None
    with pytest.raises(RegistryError, match="no model was published yet"):
        registry.load()


def test_a_model_predicts_the_same_after_publishing(registry: Registry, model: PublishedModel) -> None:
    version = registry.publish(model).info.version
    loaded = registry.load(version)
    assert loaded.predict_quantiles(feature_rows()) == pytest.approx(model.predict_quantiles(feature_rows()))
    assert loaded.contributions(feature_rows()) == pytest.approx(model.contributions(feature_rows()))
    assert (loaded.info.version, loaded.info.examples, loaded.info.trained_at_s) == (version, 160, 2e9)


def test_what_was_learnt_of_a_class_is_published_with_the_model(registry: Registry) -> None:
    model = model_of_two_classes()
    version = registry.publish(model).info.version
    loaded, rows = registry.load(version), feature_rows()
    rows[:, POSITION["input_s"]] = rows[:, POSITION["transfer_median_s"]] = 20.0
    far, near, unheard_of = (loaded.medians(rows, name) for name in (JOB_CLASS, "near", "unheard-of"))
    assert (far > 5.0 * near).all()
    assert far == pytest.approx(model.medians(rows, JOB_CLASS))
    assert ((near < unheard_of) & (unheard_of < far)).all()
    told = loaded.contributions(rows, JOB_CLASS)
    assert told.sum(axis=1) == pytest.approx(np.log(far))


def test_contributions_have_a_column_per_feature_and_add_up(model: PublishedModel) -> None:
    parts = model.contributions(feature_rows())
    assert parts.shape == (5, len(NAMES) + 1)
    assert parts.sum(axis=1) == pytest.approx(np.log(model.predict_quantiles(feature_rows())[:, 1]))


def test_the_newest_version_is_the_latest(registry: Registry, model: PublishedModel) -> None:
    versions = [registry.publish(model).info.version for _ in range(2)]
    assert registry.latest() == versions[1]
    assert registry.versions() == sorted(versions)


@pytest.mark.parametrize("name", ["central.txt", "state.json", "info.json", "manifest.json"])
def test_a_truncated_file_is_refused_and_the_version_before_used(
    registry: Registry, model: PublishedModel, name: str
) -> None:
    good, broken = (registry.publish(model).info.version for _ in range(2))
    path = file_of(registry, broken, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RegistryError, match=name.replace(".", r"\.")):
        registry.load(broken)
    found = registry.newest_usable()
    assert found is not None
    assert found.model.info.version == good
    assert broken in found.passed_over[0]


def test_versions_that_were_never_completed_do_not_drive_out_sound_ones(
    registry: Registry, model: PublishedModel
) -> None:
    """As a full disk leaves them, night after night."""
    sound = registry.publish(model).info.version
    for number in range(2, 7):
        file_of(registry, f"{number:06d}-abcdef00", "info.json").parent.mkdir()
    newest = registry.publish(model).info.version
    assert registry.versions() == [sound, newest]
    assert sorted(path.name for path in (Path(registry.url) / "versions").iterdir()) == [sound, newest]


def test_a_registry_that_cant_be_written_is_known_before_a_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="can't be written to"):
        Registry(str(tmp_path / "file" / "models")).require_writable()
    there = tmp_path / "models"
    Registry(str(there)).require_writable()
    assert not list(there.iterdir())


def test_a_changed_byte_is_noticed(registry: Registry, model: PublishedModel) -> None:
    version = registry.publish(model).info.version
    path = file_of(registry, version, "central.txt")
    path.write_bytes(path.read_bytes().replace(b"leaf_value=", b"leaf_valux=", 1))
    with pytest.raises(RegistryError, match="do not match its checksum"):
        registry.load(version)


def test_a_missing_file_is_named(registry: Registry, model: PublishedModel) -> None:
    version = registry.publish(model).info.version
    file_of(registry, version, "state.json").unlink()
    with pytest.raises(RegistryError, match=r"state\.json is missing"):
        registry.load(version)


def test_a_version_without_manifest_does_not_exist(registry: Registry, model: PublishedModel) -> None:
    good, unfinished = (registry.publish(model).info.version for _ in range(2))
    file_of(registry, unfinished, "manifest.json").unlink()
    assert registry.versions() == [good]


def test_a_damaged_pointer_leaves_the_versions_usable(registry: Registry, model: PublishedModel) -> None:
    version = registry.publish(model).info.version
    (Path(registry.url) / "latest").write_text("{")
    with pytest.raises(RegistryError, match="latest is damaged"):
        registry.latest()
    found = registry.newest_usable()
    assert found is not None
    assert found.model.info.version == version


def test_when_no_version_is_usable_the_reasons_are_told(registry: Registry, model: PublishedModel) -> None:
    version = registry.publish(model).info.version
    file_of(registry, version, "info.json").write_text("{}")
    with pytest.raises(RegistryError, match=version):
        registry.newest_usable()


def test_old_versions_are_pruned(registry: Registry, model: PublishedModel) -> None:
    versions = [registry.publish(model).info.version for _ in range(5)]
    assert registry.versions() == versions[2:]


def test_a_model_of_another_schema_is_refused(model: PublishedModel) -> None:
    files = model.files()
    files["info.json"] = json.dumps(json.loads(files["info.json"]) | {"schema_version": 99}).encode()
    with pytest.raises(BrokenModelError, match="feature schema 99"):
        PublishedModel.from_files(files)


def test_a_model_of_other_features_is_refused(model: PublishedModel) -> None:
    files = model.files()
    info = json.loads(files["info.json"])
    info["features"][0][0] = "renamed"
    with pytest.raises(BrokenModelError, match="other features"):
        PublishedModel.from_files(files | {"info.json": json.dumps(info).encode()})


def test_a_model_without_network_ignores_what_it_is_told_of_it() -> None:
    blind = final_model(recorded(), Options(without=("network",), estimator={"trees": 30}), 2e9, {})
    features = feature_rows()
    before = blind.predict_quantiles(features)
    features[:, POSITION["transfer_ratio"]] = 40.0
    assert blind.predict_quantiles(features) == pytest.approx(before)
    assert PublishedModel.from_files(blind.files()).predict_quantiles(features) == pytest.approx(before)


@pytest.mark.parametrize("info", [{"features": [[]]}, {"features": 3}, {"metrics": None, "more": 1}, []])
def test_files_with_other_content_than_a_model_are_refused(model: PublishedModel, info: Any) -> None:
    files = model.files()
    changed = json.loads(files["info.json"]) | info if isinstance(info, dict) else info
    with pytest.raises(BrokenModelError):
        PublishedModel.from_files({**files, "info.json": json.dumps(changed).encode()})


def test_what_is_no_version_is_left_alone(registry: Registry, model: PublishedModel) -> None:
    first = registry.publish(model).info.version
    for name in ("²", "99x", "notes"):
        (Path(registry.url) / "versions" / name).mkdir()
    assert registry.versions() == [first]
    assert registry.publish(model).info.version.startswith("000002-")


def test_an_object_store_serves_as_well(model: PublishedModel) -> None:
    registry = Registry("memory://models-of-this-test")
    version = registry.publish(model).info.version
    assert registry.load().info.version == version


def test_an_unknown_kind_of_store_is_told() -> None:
    with pytest.raises(RegistryError, match="nowhere"):
        Registry("nowhere://models")
