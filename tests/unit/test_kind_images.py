"""Images of the kind cluster: their tags follow their inputs, their contents the lock file."""

from __future__ import annotations

from pathlib import Path

from testbed.kind import images


def test_a_tag_follows_every_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = images.digest([tmp_path])
    (tmp_path / "a.py").write_text("2")
    second = images.digest([tmp_path])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, images.digest([tmp_path])}) == 3


def test_a_tag_is_the_same_wherever_the_project_lies(tmp_path: Path) -> None:
    digests = set()
    for clone in ("one", "two"):
        folder = tmp_path / clone / "source"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("1")
        digests.add(images.digest([folder]))
    assert len(digests) == 1


def test_compiled_files_do_not_change_a_tag(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = images.digest([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    assert images.digest([tmp_path]) == before


def test_every_dependency_is_locked() -> None:
    locked = {line.split("==")[0] for line in images._locked_versions()}
    wanted = {images._name(one) for one in images._requirements()}
    assert {one.replace("_", "-") for one in wanted} <= {one.replace("_", "-").lower() for one in locked}


def test_what_no_process_reads_does_not_get_into_the_image(tmp_path: Path) -> None:
    kept = (
        *("numpy/core.py", "numpy/core.so", "pyarrow/libarrow.so.26", "numpy.libs/libopenblas.so"),
        *("botocore/data/s3/2006-03-01/service-2.json.gz", "botocore/data/endpoints.json"),
    )
    unused = (
        "numpy/core.pyi",
        "numpy/tests/test_core.py",
        "pyarrow/libarrow_flight.so.26",
        "pyarrow/include/api.h",
        "botocore/data/ec2/2016-11-15/service-2.json.gz",
    )
    for name in (*kept, *unused):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images._prune(tmp_path)
    assert {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file()} == set(kept)
