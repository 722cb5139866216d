from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.comparison import compare as comparing
from planner.comparison import pictures
from planner.comparison.compare import Measured, _group, _interval, _labels
from planner.comparison.figures import bar_figure, example_tasks
from planner.comparison.pictures import draw_comparison
from planner.comparison.report import comparison_table, headline, headline_table, table_measures
from planner.plan import Planner
from planner.rollout import RolloutSettings


def seeds(*shares, episodes=10):
    """Episodes of one run per share, of which that share succeeds."""
    return [[{"success": index < share * episodes} for index in range(episodes)] for share in shares]


def test_three_seeds_give_an_interval_over_seeds_within_zero_and_one():
    cell = _interval(seeds(0.9, 1.0, 0.8), "success")
    assert cell["over"] == "seeds"
    assert cell["n"] == 3
    assert cell["mean"] == pytest.approx(0.9)
    assert cell["low"] == pytest.approx(0.9 - 4.3027 * 0.1 / 3**0.5, abs=1e-3)
    assert cell["high"] == 1


def test_fewer_seeds_or_episodes_that_all_agree_give_an_interval_over_episodes():
    assert _interval(seeds(0.5, 0.5), "success")["over"] == "episodes"
    cell = _interval(seeds(0, 0, 0), "success")
    assert cell["over"] == "episodes"
    assert 0.05 < cell["high"] < 0.15


def labels(tiny, *runs, folder="runs/{}"):
    """Of runs with these settings, whose folders are named a, b, …"""
    configs = {name: tiny(**over) for name, over in zip("abcdef", runs, strict=False)}
    paths = {name: Path(folder.format(name)) for name in configs}
    return _labels([SimpleNamespace(config=partial(configs.get, name), path=paths[name]) for name in configs])


def test_seeds_of_one_setting_share_a_label_that_says_what_sets_them_apart_from_most(tiny):
    told, wide = {"norm": "none", "tell_known": True}, {"norm": "none", "dim_mults": (1, 3)}
    runs = [{"seed": seed, "model": {"norm": "none"}} for seed in range(3)]
    runs += [{"model": told}, {"model": wide}, {"model": wide, "seed": 1, "log_every": 3}]
    assert labels(tiny, *runs) == [*["none"] * 3, "none, tell_known true", *["none, dim_mults 1,3"] * 2]
    assert labels(tiny, {}, {"seed": 1}, {"model": {"norm": "none"}}) == ["group", "group", "none"]


def test_runs_that_are_no_seeds_of_one_another_have_no_label_in_common(tiny):
    assert labels(tiny, {}, {"log_every": 3}, {"model": {"norm": "none"}}) == ["group (a)", "group (b)", "none (c)"]
    packs = [{"model": {"norm": "packnorm_isolated", "num_packs": count}} for count in (2, 4)]
    assert labels(tiny, *packs) == ["packnorm_isolated (a)", "packnorm_isolated (b)"]


def test_where_labels_would_be_long_folders_names_tell_runs_apart(tiny):
    other = {"steps": 3, "batch_size": 5, "warmup_steps": 2, "ema_decay": 0.5, "learning_rate": 3e-3}
    assert labels(tiny, {}, {"steps": 3}) == ["group", "group, steps 3"]
    assert labels(tiny, {}, other) == ["group (a)", "group (b)"]
    assert labels(tiny, {}, other, folder="{}/same") == ["group (a/same)", "group (b/same)"]


def episode(**over):
    return {"split": "demonstrated", "success": True, "score": 3.0, "score_expert": None} | over


def test_scores_are_columns_where_tasks_have_references_and_blank_where_they_have_none():
    scored = [episode(score_expert=90.0), episode(score_expert=100.0)]
    assert _interval([scored], "score_expert")["mean"] == 95
    assert _interval([[episode()]], "score_expert")["mean"] is None
    assert table_measures(_group([Measured("none", 0, 1, [episode()])])) == ["success"]
    assert table_measures(_group([Measured("none", 0, 1, scored)])) == ["success", "score", "score_expert"]


def test_a_measure_that_kept_rows_do_not_hold_is_shown_as_not_measured():
    kept, anew = Measured("old", 0, 1, [episode()]), Measured("new", 0, 1, [episode(end_gap=0.5)])
    table = comparison_table({"summary": _group([kept, anew]), "reference": {}}).markdown()
    assert "| old | demonstrated, 1× horizon | 100.0 % | – |" in table
    assert "| new | demonstrated, 1× horizon | 100.0 % | 0.50 m |" in table


def summary_of(**shares):
    """Norm → shares of valid plans: held out and demonstrated at once, twice as long none at all."""
    columns = ("held out, 1× horizon", "demonstrated, 1× horizon", "held out, 2× horizon")
    return {
        norm: {
            column: {"plan_valid": {"mean": share, "low": None, "high": None, "n": 3, "over": "seeds"}}
            for column, share in zip(columns, (*own, 0.0), strict=True)
        }
        for norm, own in shares.items()
    }


def test_the_headline_names_the_norms_with_the_fewest_and_the_most_valid_plans():
    shown = headline({"summary": summary_of(channel=(0.98, 1.0), group=(0.01, 0.99), rms=(0.5, 0.2))})
    assert shown == (
        "On tasks that nobody demonstrated, 1.0 % of the plans of `group` are valid and 98.0 % of those of `channel`. "
        "On demonstrated tasks, 99.0 % of the plans of `group` are valid and 100.0 % of those of `channel`."
    )
    unmeasured = headline({"summary": summary_of(channel=(0.98, 1.0), group=(None, 0.99))})
    assert unmeasured.count("`") == 2 * unmeasured.count("`channel`")
    assert headline({"summary": summary_of(group=(None, None))}) == ""
    equal = headline({"summary": summary_of(channel=(0.5, 0.5), none=(0.5, 0.5))})
    assert "`channel`" in equal
    assert "`none`" in equal


def test_tables_and_bars_have_the_norms_in_the_order_of_legends_and_hatch_those_that_pool():
    summary = summary_of(group=(0.01, 0.99), none=(None, 0.9), instance=(0.0, 0.5), channel=(0.98, 1.0))
    order = ["none", "channel", "group", "instance"]
    rows = headline_table({"summary": summary}).rows
    assert [row[0] for row in rows if row[2] == "1×"] == order
    assert [row[1] for row in rows if row[2] == "1×"] == ["no", "no", "yes", "yes"]
    [axis] = bar_figure(summary).axes
    shown = [tick.label1.get_text() for tick in axis.yaxis.get_major_ticks()]
    assert shown == ["no pooling over time", *order[:2], "pools over time", *order[2:]]
    bars = [(shown[round(bar.get_y() + 0.2)], bar.get_width(), bool(bar.get_hatch())) for bar in axis.patches]
    hatched = {name for name, _, hatch in bars if hatch}
    assert hatched == {"group", "instance"}
    assert [width for name, width, _ in bars if name == "none"] == pytest.approx([90])
    assert [width for name, width, _ in bars if name == "group"] == pytest.approx([1, 99])


def test_pictures_show_plans_as_those_that_are_rolled_out(tiny_run, tmp_path, monkeypatch):
    shown = []

    def draw(target, planners, *rest):
        shown.extend(planners.values())
        draw_comparison(target, planners, *rest)

    monkeypatch.setattr(comparing, "draw_comparison", draw)
    asked = RolloutSettings(episodes=1, sampler="ddim", sampling_steps=2, temperature=0.5)
    comparing.compare([tiny_run], tmp_path, asked, multiples=[1], tasks=("straight",), device="cpu")
    how = shown[0].config.diffusion
    assert (how.sampler, how.sampling_steps, how.temperature) == ("ddim", 2, 0.5)
    assert how.train_steps == Planner.from_run(tiny_run).config.diffusion.train_steps


def test_pictures_of_one_task_are_at_the_shortest_horizon_and_bear_the_labels(monkeypatch, tmp_path):
    planner = Planner.from_run("hash-none", device="cpu")
    shown = []
    monkeypatch.setattr(pictures, "panel", lambda *_, horizon, name: shown.append((name, horizon)))
    monkeypatch.setattr(pictures, "write_animation", lambda *_, **__: None)
    monkeypatch.setattr(pictures, "example_figure", lambda maze, plans, *_: shown.append(next(iter(plans.items()))))
    monkeypatch.setattr(pictures, "save_figure", lambda *_, **__: None)
    cells = {"plan_valid": {"mean": 0.5}, "success": {"mean": 0.5}}
    task = example_tasks(planner.statistics.maze)[0]
    summaries = {"none, dim 8": {"held out, 2× horizon": cells, "held out, 3× horizon": cells}}
    monkeypatch.setattr(pictures, "bar_figure", lambda *_: None)
    monkeypatch.setattr(pictures, "_plans_figure", lambda *_: None)
    draw_comparison(tmp_path, {"none, dim 8": planner}, summaries, task, (3, 2))
    (label, plans), panel = shown
    assert (label, plans.shape) == ("none, dim 8", (pictures.PLANS_SHOWN, 2 * 68, 2))
    assert panel == ("none, dim 8", 2 * 68)
