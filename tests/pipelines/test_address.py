"""Addresses: one spelling for each place, none that carries a secret, no run inside its source."""

import os
from pathlib import Path

import pytest

import pipelines.run
from pipelines.errors import AddressError, DataError, StorageError
from pipelines.plan import plan
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.storage.address import check_secrets, is_inside, normalize, redact, secret_in
from pipelines.storage.source import open_source
from pipelines.storage.store import ObjectStore, open_file, open_store
from tests.datasets import blobs, even, write_shards

HERE = os.getcwd()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("runs/x", f"{HERE}/runs/x"),
        ("./runs//x/", f"{HERE}/runs/x"),
        (".", HERE),
        ("/", "/"),
        ("//data/x", "/data/x"),
        ("/data/./x/../y", "/data/y"),
        ("/data/x ", "/data/x "),
        ("~", "/house/me"),
        ("~/runs/", "/house/me/runs"),
        ("./~", f"{HERE}/~"),
        ("/data/~/x", "/data/~/x"),
        ("/data/100%25", "/data/100%25"),
        ("file:///data/x", "/data/x"),
        ("FILE:///data/x/", "/data/x"),
        ("file:/data/x", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
        ("local:///data/x", "/data/x"),
        ("file:///data/first%20try/%C3%A9", "/data/first try/é"),
        ("file:///data/100%2525", "/data/100%25"),
        ("file:///data/a+b", "/data/a+b"),
        ("file:///~/x", "/~/x"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/Folder/", "s3://bucket/Folder"),
        ("s3://bucket//a///b/./c/../d", "s3://bucket/a/b/d"),
        ("s3://bucket/a%20b", "s3://bucket/a%20b"),
        ("s3://bucket/year=2025/key=7", "s3://bucket/year=2025/key=7"),
        ("abfs://box@account.dfs.core.windows.net/x", "abfs://box@account.dfs.core.windows.net/x"),
        ("memory:///a/b", "memory://a/b"),
        ("memory://", "memory://"),
        ("https://host:8443/a//b?version=3", "https://host:8443/a/b?version=3"),
    ],
)
def test_spellings__have_one_meaning(
    written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/house/me")
    assert normalize(written) == meant
    assert normalize(meant) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "a path or an address was expected"),
        ("  ", "a path or an address was expected"),
        ("\t\n", "a path or an address was expected"),
        ("/data/x\n", "control characters"),
        ("/data\0/x", "control characters"),
        ("~nobody-of-this-name/x", "a home folder was expected for '~nobody-of-this-name'"),
        ("file://data/x", "'data' is the name of a machine"),
        ("file://~/x", "is the name of a machine"),
        ("file://", "of this machine was expected"),
        ("file:///data%00/x", "zero byte"),
        ("s3://", "names no bucket"),
        ("s3:///data", "names no bucket"),
        ("s3://../data", "names no bucket"),
        ("s3://bucket/../other", "leads out of it"),
        ("s3:/bucket/data", "Add the missing slash"),
        ("S3:bucket", "Add the missing slash"),
        ("simplecache::s3://bucket/x", "a chain of them"),
    ],
)
def test_what_leads_nowhere__is_refused(written: str, said: str) -> None:
    with pytest.raises(AddressError, match=said) as refused:
        normalize(written, "--data")
    assert str(refused.value).startswith("--data: ")


def test_dots_behind_a_link__are_taken_as_the_system_takes_them(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    assert normalize(f"{tmp_path}/link/../x") == f"{tmp_path}/far/x"
    assert normalize(f"{tmp_path}/link/x") == f"{tmp_path}/link/x"


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("s3://AKIA:hush@bucket/x", "hush"),
        ("s3://AKIA:hu/sh@bucket/x", "hu/sh"),
        ("s3://AKIA%3Ahush@bucket/x", "hush"),
        ("s3://hush@bucket/x", "hush"),
        ("S3A://AKIA:hush@bucket", "hush"),
        ("https://me:hush@host/x.parquet", "hush"),
        ("https://me:hu@sh@host/x.parquet", "sh@"),
        ("https://hush@host/x", "hush"),
        ("ftp://me:hush@host/x", "hush"),
        ("sftp://me:hush@host/x", "hush"),
        ("abfs://box:hush@account/x", "hush"),
        ("abfs://box@account/x?account_key=hush", "hush"),
        ("abfs://box@account/x;AccountKey=hush", "hush"),
        ("https://host/x?sv=1&sig=hush", "hush"),
        ("https://host/x?X-Amz-Signature=hush&a=1", "hush"),
        ("https://host/x?token=hush", "hush"),
        ("https://host/x?ACCESS_TOKEN=1&API-Key=hush", "hush"),
        ("gs://bucket/x#secret=hush", "hush"),
        ("tcp://me:hush@host:8786", "hush"),
        ("decide.reviewed=s3://AKIA:hush@bucket/x.csv", "hush"),
    ],
)
def test_secret_in_an_address__is_refused_without_being_repeated(address: str, secret: str) -> None:
    with pytest.raises(AddressError, match="environment") as refused:
        check_secrets({"deep": ["fine", address]}, "recipe")
    assert secret not in str(refused.value)
    blotted = redact(f"cannot open {address}: gone")
    assert secret not in blotted
    assert blotted.startswith("cannot open ")
    assert blotted.endswith(" gone")


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/a@b:c",
        "https://host:8080/package@v1",
        "http://[::1]:4200/api",
        "ftp://me@host/x",
        "sftp://me@host/x",
        "abfs://box@account.dfs.core.windows.net/x",
        "/data/me:you@house/x",
        "tcp://127.0.0.1:8786",
        "https://host/x?page=2",
        "s3://bucket/token=3/part.parquet",
        "an ordinary text with a@b.c: and 12:30",
    ],
)
def test_address_without_a_secret__is_left_as_it_is(address: str) -> None:
    assert secret_in(address) is None
    assert redact(address) == address


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A source `data`, links to it and into it, and a file."""
    write_shards(tmp_path / "data", blobs(60), even(60, 2))
    (tmp_path / "data" / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "into").symlink_to(tmp_path / "data" / "inner")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "out"),
    [
        ("{}/data", "{}/data"),
        ("{}/data", "{}/data/"),
        ("{}/data", "{}/data/run"),
        ("{}/data", "{}/data/_run"),
        ("{}/data", "{}/data/.run/x"),
        ("{}/data", "{}//data/./run"),
        ("{}/data", "{}/x/../data/run"),
        ("{}/data", "file://{}/data/run"),
        ("{}/data", "FILE://localhost{}/d%61ta/run"),
        ("file://{}/data", "{}/data/run"),
        ("{}/data", "{}/link/run"),
        ("{}/link", "{}/data/run"),
        ("{}/data", "{}/into/run"),
        ("{}/data", "{}/into"),
        ("{}/data", "{}"),
        ("{}/link", "{}"),
        ("{}/data/inner", "{}/link"),
        ("{}/data/part-00000.parquet", "{}/data"),
        ("{}/data/part-00000.parquet", "{}/data/part-00000.parquet"),
    ],
)
def test_run_and_source_in_each_other__are_refused_before_anything_is_written(
    places: Path, data: str, out: str
) -> None:
    before = sorted(path.name for path in places.rglob("*"))
    for call in (pipelines.run.run, plan):
        with pytest.raises(AddressError, match="apart from the data"):
            call(load_recipe("audit"), data=data.format(places), out=out.format(places))
    assert sorted(path.name for path in places.rglob("*")) == before


@pytest.mark.parametrize("out", ["{}/file", "{}/file/run", "{}/nowhere", "{}/nowhere/run"])
def test_file_where_a_folder_was_meant__is_refused(places: Path, out: str) -> None:
    with pytest.raises(AddressError, match="a folder, or a name for a new one, was expected"):
        pipelines.run.open_run(
            load_recipe("audit"), data=str(places / "data"), out=out.format(places)
        )


@pytest.mark.parametrize(
    ("address", "folder", "inside"),
    [
        ("s3://b/data/run", "s3://b/data", True),
        ("s3://b/data", "s3://b/data/", True),
        ("S3A://b//data/x/..", "s3://b/data", True),
        ("gcs://b/data/run", "gs://b/data", True),
        ("s3://b/data/run", "s3://b", True),
        ("memory:///data/run", "memory://data", True),
        ("memory://data", "memory://", True),
        ("s3://b/data-run", "s3://b/data", False),
        ("s3://b2/data/run", "s3://b/data", False),
        ("s3://B/data/run", "s3://b/data", False),
        ("gs://b/data/run", "s3://b/data", False),
        ("/b/data", "s3://b/data", False),
        ("s3://b/data", "/b", False),
    ],
)
def test_places_in_storages__are_compared_however_they_are_spelled(
    address: str, folder: str, inside: bool
) -> None:
    assert is_inside(address, folder) is inside


def test_single_file_as_source__may_have_its_run_beside_it_and_is_gone_on_with(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "done")
    recipe = parse_recipe('stages = ["source"]', name="short")
    data, out = str(places / "data" / "part-00000.parquet"), str(places / "data" / "run")
    assert pipelines.run.run(recipe, data=data, out=out) == "done"
    assert pipelines.run.resume(out) == "done"


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("gs://bucket/x", StorageError, "pip install gcsfs"),
        ("abfs://box@account/x", StorageError, "pip install adlfs"),
        ("sftp://host/x", StorageError, "pip install paramiko"),
        ("no-such-scheme://host/x", AddressError, "got 'no-such-scheme'"),
    ],
)
def test_scheme_without_its_package__names_the_package(
    address: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        open_store(address)
    assert refused.value.__cause__ is None  # no fault of ours
    with pytest.raises(DataError, match=said):
        open_source(address)


def test_files_that_settings_name__are_spelled_in_the_one_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for written in ("~/r.csv", "r.csv", "x/../r.csv", f"file://{tmp_path}/r%2Ecsv"):
        recipe = load_recipe("audit", [f"decide.reviewed={written}"])
        assert recipe.settings("decide").reviewed == f"{tmp_path}/r.csv"  # type: ignore[attr-defined]
    for blank in ('""', '" "'):
        with pytest.raises(AddressError, match=r"decide\.reviewed: a path"):
            load_recipe("audit", [f"decide.reviewed={blank}"])
    (tmp_path / "mine.toml").write_text('stages = ["source"]\n')
    assert load_recipe("~/mine.toml").name == "mine"
    assert load_recipe(f"FILE://{tmp_path}/mine.toml").name == "mine"


def test_secret_in_a_recipe__is_refused_and_named_by_its_setting() -> None:
    with pytest.raises(AddressError) as refused:
        parse_recipe(
            'stages = ["source", "decide"]\n[decide]\nreviewed = "s3://A:hush@b/r.csv"', name="r"
        )
    assert str(refused.value).startswith("recipe.decide.reviewed: ")
    assert "hush" not in str(refused.value)


def test_file_of_a_storage__is_found_by_its_folder_and_name() -> None:
    store, name = open_file("MEMORY:///a//b/../c.csv")
    assert isinstance(store, ObjectStore)
    assert (store.uri, name) == ("memory://a", "c.csv")
