"""A sealed folder shows every bit that changes, every file that goes, and every one that comes where readers look."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.files.manifest import (
    MANIFEST_NAME,
    check_sealed,
    find_damage,
    find_missing,
    make_manifest,
    read_manifest,
    shares,
)
from rt2_jax.files.writing import seal

FACTS = {"step": 3}


def make(folder):
    """A folder of four files, one of them empty."""
    (folder / "params" / "d").mkdir(parents=True, exist_ok=True)
    (folder / "params" / "d" / "data").write_bytes(bytes(range(256)) * 40)
    (folder / "params" / "empty").write_bytes(b"")
    (folder / "bundle.json").write_text('{"format": 2}\n')
    (folder / "words.model").write_bytes(b"words")
    return seal(folder, "bundle", FACTS)


@pytest.fixture
def sealed(tmp_path):
    make(tmp_path)
    return tmp_path


def test_a_sealed_folder_is_whole(sealed):
    manifest = check_sealed(sealed, "bundle", FACTS)
    assert sorted(manifest.files) == ["bundle.json", "params/d/data", "params/empty", "words.model"]
    assert manifest.num_bytes == sum((sealed / path).stat().st_size for path in manifest.files)


def test_the_identity_is_the_content_and_nothing_else(sealed, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    identity = make(other)
    assert identity == read_manifest(sealed).identity == make_manifest(sealed, "bundle", FACTS).identity
    changes = ({"kind": "dataset"}, {"facts": {"step": 4}}, {"kind": "dataset", "facts": {}})
    found = {make_manifest(sealed, **{"kind": "bundle", "facts": FACTS, **change}).identity for change in changes}
    (other / "words.model").rename(other / "weights.model")
    found.add(make_manifest(other, "bundle", FACTS).identity)
    assert len(found | {identity}) == 5


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_any_file_shows(sealed, data):
    path = sealed / data.draw(st.sampled_from([MANIFEST_NAME, "bundle.json", "params/d/data", "words.model"]))
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    flipped = bytearray(before)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        with pytest.raises(UserError) as told:
            check_sealed(sealed, "bundle", FACTS)
        assert "\n" not in str(told.value) and path.name in str(told.value)
    finally:
        path.write_bytes(before)


def test_what_is_missing_cut_or_added_is_named(sealed):
    manifest = read_manifest(sealed)
    data = sealed / "params" / "d" / "data"
    (sealed / "README.md").write_text("notes beside the manifest are nobody's concern")
    assert find_damage(sealed, manifest) is None
    (sealed / "params" / "stray").write_text("x")
    assert find_missing(sealed, manifest) == "params/stray does not belong to it"
    (sealed / "params" / "stray").unlink()
    data.write_bytes(data.read_bytes()[:-1])
    assert find_missing(sealed, manifest) == "params/d/data has 10239 bytes instead of 10240"
    data.unlink()
    assert find_missing(sealed, manifest) == "params/d/data is missing"


def test_only_the_asked_files_are_hashed(sealed):
    (sealed / "words.model").write_bytes(b"wordz")
    manifest = read_manifest(sealed)
    assert find_damage(sealed, manifest, ["bundle.json"]) is None
    assert find_damage(sealed, manifest) == "words.model has changed since it was written"


@pytest.mark.parametrize(("kind", "facts"), [("dataset", FACTS), ("bundle", {"step": 4}), ("bundle", None)])
def test_another_kind_or_step_is_refused(sealed, kind, facts):
    with pytest.raises(UserError, match="is sealed as bundle step 3, not as"):
        check_sealed(sealed, kind, facts)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", "[" * 100_000, '{"files": {"a": 3}}', '{"files": []}'])
def test_a_manifest_of_another_shape_is_one_line(sealed, content):
    (sealed / MANIFEST_NAME).write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(sealed)


def test_a_manifest_whose_text_alone_differs_is_damaged(sealed):
    tree = json.loads((sealed / MANIFEST_NAME).read_text())
    (sealed / MANIFEST_NAME).write_text(json.dumps(tree))
    with pytest.raises(UserError, match="its own hash"):
        read_manifest(sealed)


def test_a_folder_that_was_never_sealed_has_no_manifest(tmp_path):
    assert read_manifest(tmp_path) is None and check_sealed(tmp_path, "bundle") is None


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_hosts_share_out_every_file_once(sealed, count):
    manifest = read_manifest(sealed)
    parts = shares(manifest, count)
    assert len(parts) == count and sorted(itertools.chain(*parts)) == sorted(manifest.files)
