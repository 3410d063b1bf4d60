"""What was measured for few calls, and that `auto` picks by it."""

from benchmarks.few_steps import BEYOND, FORMS, LEFT_OUT
from samplers import SAMPLERS
from samplers.auto import PICKS, pick_for
from tests.few_step_table import MEASURES, record, rows_at, shortfall

# how far a pick may be from the best form that draws no noise: on the geometric mean of all
# measures, and in each of them
ON_THE_WHOLE, IN_EACH = 1.25, 1.5


def test_a_pick_is_among_the_best_that_were_measured() -> None:
    rows = record()["rows"]
    for calls, pick in PICKS.items():
        here = [row for row in rows_at(calls, rows) if row["distance"] is not None]
        (row,) = [row for row in here if row["form"] == pick]
        assert shortfall(row, here) <= ON_THE_WHOLE * min(shortfall(r, here) for r in here)
        for key in MEASURES:
            assert row[key] <= IN_EACH * min(r[key] for r in here), (calls, key)


def test_beyond_the_table_the_pick_is_nearer_to_the_exact_flow_than_heun() -> None:
    for calls in BEYOND:
        here = rows_at(calls, record()["rows"])
        (heun,) = [row for row in here if row["form"]["name"] == "heun"]
        (pick,) = [row for row in here if row["form"] == pick_for(calls)]
        for key in ("digits", "golden", "distance"):
            assert pick[key] < heun[key]
        assert pick["frechet"] < 1.1 * heun["frechet"]


def test_what_is_measured_is_every_sampler_that_can_make_few_calls() -> None:
    measured = {form["name"] for form in FORMS}
    assert measured.isdisjoint(LEFT_OUT)
    assert measured | LEFT_OUT.keys() == SAMPLERS.keys()
    recorded = {row["form"]["name"] for row in record()["rows"]}
    assert recorded == measured
