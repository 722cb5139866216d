"""The store of answers: a question leads to its file and back, today and after years of changes."""

import gzip
import json
import os
import time
from dataclasses import dataclass, field, make_dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundwork.answers import Answers, Renamed, Translations, plain
from groundwork.claims import Claim, InUseError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
QUESTIONS = st.dictionaries(st.text(), VALUES, max_size=5)


def reversed_and_with_tuples(value):
    if isinstance(value, dict):
        return {key: reversed_and_with_tuples(value[key]) for key in reversed(value)}
    return tuple(map(reversed_and_with_tuples, value)) if isinstance(value, list) else value


@given(QUESTIONS)
def test_a_question_asked_twice_has_one_name_however_its_keys_are_ordered_and_its_lists_made(
    tmp_path_factory, question
):
    store = Answers(tmp_path_factory.getbasetemp())
    names = {
        store.name(again) for again in (question, reversed_and_with_tuples(question), json.loads(json.dumps(question)))
    }
    assert len(names) == 1


@given(QUESTIONS, QUESTIONS)
def test_different_questions_have_different_names(tmp_path_factory, one, other):
    store = Answers(tmp_path_factory.getbasetemp())
    assert (store.name(one) == store.name(other)) == (
        json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)
    )


@given(QUESTIONS, st.booleans())
def test_what_is_kept_is_found_and_nothing_else(tmp_path_factory, question, compressed):
    store = Answers(tmp_path_factory.mktemp("answers"), compressed=compressed)
    assert store.find(question) is None
    store.keep(question, {"rows": [1, 2.5, None, "ä"]})
    assert store.find(reversed_and_with_tuples(question)) == {"rows": [1, 2.5, None, "ä"]}
    assert store.find({**question, "one more key": 1}) is None
    assert [answer for _, answer in store] == [{"rows": [1, 2.5, None, "ä"]}]


@dataclass(frozen=True)
class Inner:
    width: int = 8


@dataclass(frozen=True)
class Settings:
    steps: int
    rate: float = 1e-3
    inner: Inner = field(default_factory=Inner)


def with_one_more(settings, default):
    """The same settings in tomorrow's code, which knows one more."""
    cls = make_dataclass("Tomorrow", [("more", object, field(default=default))], bases=(type(settings),), frozen=True)
    return cls(settings.steps, settings.rate, settings.inner)


def test_what_must_be_stored_is_given_or_missed_and_never_made_up(tmp_path):
    store = Answers(tmp_path)
    store.keep({"asked": 1}, {"rows": [2]})
    assert store[{"asked": 1}]["rows"] == [2]
    with pytest.raises(KeyError):
        store[{"asked": 3}]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("default", [0, 0.5, "linear", None, (1, 2), Inner()])
def test_a_setting_that_a_stored_question_lacks_means_its_default(tmp_path, default):
    store, settings = Answers(tmp_path), Settings(7, inner=Inner(3))
    store.keep({"run": "a", "settings": settings}, {"rows": [1]})
    tomorrow = with_one_more(settings, default)
    assert store.find({"run": "a", "settings": tomorrow}) == {"rows": [1]}
    other = type(tomorrow)(7, inner=Inner(3), more="something else")
    assert store.find({"run": "a", "settings": other}) is None
    assert store.find({"run": "a", "settings": Settings(7, inner=Inner(4))}) is None


def test_a_setting_whose_default_has_changed_since_means_the_default_of_its_day(tmp_path):
    Answers(tmp_path).keep({"settings": Settings(7)}, {"rows": [1]})
    today = with_one_more(Settings(7), "cosine")
    table = Translations(names=(Renamed("settings.more", absent="linear"),))
    store = Answers(tmp_path, table)
    assert store.find({"settings": today}) is None
    assert store.find({"settings": type(today)(7, more="linear")}) == {"rows": [1]}


def test_renamed_settings_and_values_are_translated(tmp_path):
    old = {"settings": {"steps": 7, "lr": 1e-3, "place": "before", "data": {"dataset": "maze-v0"}}}
    Answers(tmp_path).keep(old, {"rows": [1]})
    table = Translations(
        names=(
            Renamed("settings.lr", "settings.optimizer.learning_rate"),
            Renamed("settings.place", values={"before": "pre"}),
            Renamed("settings.data.dataset", values={"maze-v0": "mazes/hash-v0"}),
            Renamed("elsewhere.entirely", "settings.steps"),
        )
    )
    today = {"steps": 7, "optimizer": {"learning_rate": 1e-3}, "place": "pre", "data": {"dataset": "mazes/hash-v0"}}
    assert Answers(tmp_path, table).find({"settings": today}) == {"rows": [1]}
    assert [question for question, _ in Answers(tmp_path, table)] == [plain({"settings": today})]


def test_files_of_earlier_days_are_found_by_what_they_were_asked_in_this_folder_and_in_others(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "any-name.json").write_text(json.dumps({"question": {"seed": 1}, "rows": [1]}))
    (tmp_path / "old" / "packed.json.gz").write_bytes(gzip.compress(b'{"config": {"seeds": [2, 3]}, "rows": [20, 30]}'))
    (tmp_path / "old" / "noise.json").write_text("[1, 2]")

    def by_seed(stored):
        config = stored.get("config")
        return config and [({"seed": s}, {"rows": [r]}) for s, r in zip(config["seeds"], stored["rows"], strict=True)]

    store = Answers(tmp_path / "new", Translations(files=(by_seed,)), others=[tmp_path / "old"])
    assert [store.find({"seed": seed}) for seed in range(4)] == [None, {"rows": [1]}, {"rows": [20]}, {"rows": [30]}]
    store.keep({"seed": 1}, {"rows": ["newer"]})
    assert store.find({"seed": 1}) == {"rows": ["newer"]}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_answer_is_none_and_is_found_anew(tmp_path, compressed, damage):
    store, question = Answers(tmp_path, compressed=compressed), {"seed": 1}
    store.keep(question, {"rows": [0.125]})
    path = store.path(question)
    text = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    spoilt = {"cut": text[:-9], "flipped": text.replace(b"0.125", b"0.126"), "emptied": b""}[damage]
    path.write_bytes(gzip.compress(spoilt) if compressed else spoilt)
    assert store.find(question) is None
    assert store.answer(question, lambda: {"rows": [0.125]}) == store.find(question) == {"rows": [0.125]}


def test_each_file_of_a_folder_that_grows_is_read_once_for_its_question(tmp_path):
    read = []
    store = Answers(tmp_path, Translations(files=[read.append]))
    for n in range(10):
        assert store.find({"n": n}) is None  # looks into all files there are
        store.keep({"n": n}, {"rows": []})
        os.utime(tmp_path, ns=(n, n))
    assert len(read) == 9


def test_an_answer_is_found_once_and_by_one_at_a_time(tmp_path):
    asked = []
    store, question = Answers(tmp_path), {"seed": 1}

    def work(inside):
        asked.append(inside)
        with pytest.raises(InUseError, match="in use by another process"):
            Answers(tmp_path).answer(question, partial(work, True))
        return {"rows": [1]}

    for _ in range(2):
        assert store.answer(question, partial(work, False)) == {"rows": [1]}
    assert asked == [False]


def test_nothing_is_kept_of_work_that_fails(tmp_path):
    store = Answers(tmp_path)
    with pytest.raises(ValueError, match="Out of range"):
        store.answer({"seed": 1}, lambda: {"rows": [float("nan")]})
    assert store.find({"seed": 1}) is None
    assert store.answer({"seed": 1}, lambda: {"rows": [1]}) == {"rows": [1]}


def test_an_answer_that_another_process_keeps_meanwhile_is_found(tmp_path):
    store = Answers(tmp_path)
    assert store.find({"seed": 1}) is None  # the folder has been looked through
    time.sleep(0.02)
    Answers(tmp_path).keep({"seed": 1}, {"rows": [1]})
    assert store.find({"seed": 1}) == {"rows": [1]}


def test_a_claim_is_held_by_one_and_given_back(tmp_path):
    with Claim(tmp_path / "work", "work"):
        with pytest.raises(InUseError, match="work is in use by another process"), Claim(tmp_path / "work", "work"):
            pass
        with Claim(tmp_path / "other", "other"):
            pass
    with Claim(tmp_path / "work", "work"):
        pass
    assert not list(tmp_path.iterdir())
