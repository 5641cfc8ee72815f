"""Every file of results is complete and made by a row that exists, one small row is measured again, the page shows
all."""
import json
import math
import runpy
from pathlib import Path

import pytest
import results
import torch
from results import read

from flowlib import bits_per_dim, data, load
from flowlib.evaluate import bits
from flowlib.images import dequantize

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(results.RESULTS.glob("*.json"))
SCHEMA = {"section": str, "name": str, "note": str, "unit": str, "bound": bool, "value": float, "spread": float,
          "tolerance": float, "values": list, "beside": dict, "seeds": list, "device": str,
          "gpu": bool, "minutes": float,
          "command": str}


def test_every_row_is_measured_and_every_file_is_a_rows():
    assert {path.stem for path in FILES} == {*results.ROWS, "bench", "scaling"}


@pytest.mark.parametrize("name", results.ROWS)
def test_a_file_is_complete_and_made_by_its_row(name):
    result, row = read(name), results.ROWS[name]
    assert {key: type(value) for key, value in result.items() if key not in ("paper", "printed")} == SCHEMA
    for key in ("section", "name", "note", "unit", "bound", "tolerance", "command"):
        assert result[key] == getattr(row, key)
    assert result["seeds"] == list(row.seeds) and len(result["values"]) == len(row.seeds)
    low, high = min(result["values"]), max(result["values"])
    assert math.isfinite(high - low) and low <= result["value"] <= high
    assert result["spread"] == pytest.approx((high - low) / 2)
    assert not result["gpu"] or "cpu" not in result["device"]
    assert result["paper"] is None or (set(result["paper"]) == {"value", "source"} and result["paper"]["source"])
    assert all(len(numbers) == len(row.seeds) for numbers in result.get("printed", {}).values())
    script = Path(result["command"].split()[1])
    assert "{seed}" in result["command"] and (script.suffix != ".py" or (ROOT / script).exists())


@pytest.mark.parametrize("name", [name for name, row in results.ROWS.items() if row.section == "Exact checks"])
def test_exact_checks_are_exact(name):
    result = read(name)
    assert abs(result["value"] - result["paper"]["value"]) <= max(result["tolerance"], 1e-9)


@pytest.mark.parametrize("model", ["nice", "realnvp", "nsf", "flowpp-large"])
def test_the_flows_beat_both_baselines_of_their_run(model):
    result = read(f"digits-{model}")
    assert set(result["beside"]) == {"histogram", "gaussian"} and max(result["values"]) < min(result["beside"].values())


def test_the_mean_field_gap_closes_reflection_by_reflection():
    none, *reflections = (read(f"gap-{name}")["value"]
                          for name in ("none", *(f"householder-{t}" for t in (1, 2, 4, 7))))
    assert abs(none - read("gap-none")["paper"]["value"]) < 1e-9
    assert all(value <= goal for value, goal in zip(reflections, (0.72, 0.27, 0.03, 0.001)))
    assert max(read("gap-liaf")["values"] + read("gap-ccliaf")["values"]) < 1e-3


SHIPPED = [name for name, row in results.ROWS.items() if row.checkpoint]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_that_of_its_row(name):
    result, folder = read(name), results.CHECKPOINTS / results.ROWS[name].checkpoint
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json", "metrics.json",
                                                        "evaluation.json"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    metrics, evaluation = (json.loads((folder / file).read_text()) for file in ("metrics.json", "evaluation.json"))
    assert metrics["command"] == result["command"].format(seed=result["seeds"][0])
    assert metrics["test_bits_per_dim"] == result["values"][0] and metrics["processor_seconds"] < 20 * 60
    assert evaluation["weighted"]["bits_per_dim"] < evaluation["few"]["bits_per_dim"]
    assert evaluation["float32"]["wrong_pixels"] == evaluation["float64"]["wrong_pixels"] == 0
    assert evaluation["float32"]["error"] < 1e-4
    small = metrics["data"] if metrics["data"] == "digits" else f"{metrics['data']}-small"
    x = data.load(small, "test").x[::5]  # the first images of each class of the same test set
    assert bits(load(folder), x)[0] == pytest.approx(result["values"][0], abs=0.2)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_off_the_edges_integers_come_back_at_no_more_than_the_price_that_the_docstring_states(monkeypatch, name):
    flow = load(results.CHECKPOINTS / f"{name}-glow").eval().requires_grad_(False)
    x = data.load(f"{name}-small", "test").x
    torch.manual_seed(0)
    assert torch.equal(flow.decode(flow.encode(x)), x)  # 392,000 pixels in float32, a few of them wrong without EDGE
    bits = []
    for edge in (0.0, dequantize.EDGE):  # the least edge is 2^-14
        monkeypatch.setattr(dequantize, "EDGE", edge)
        torch.manual_seed(0)
        bits.append(bits_per_dim(flow.log_prob(x[::5]).double().mean(), 784).item())
    assert 0 < bits[1] - bits[0] < 0.0028


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.endswith("nice")])
def test_image_models_are_far_below_nice(name):
    nice = read(f"{results.ROWS[name].section.lower()}-nice")
    # 17 levels; the others have 256
    margin = {"digits-tarflow": 0.2, "digits-jet": 0.1, "digits-flowpp-large": 0.4}.get(name, 1)
    assert max(read(name)["values"]) < min(nice["values"]) - margin


def test_nice_on_mnist():
    assert max(read("mnist-nice")["values"]) <= 5.2


def test_the_scale_of_nice_starts_from_data():
    zero, start = read("mnist-nice-zero"), read("mnist-nice-data")
    assert max(start["values"]) < min(zero["values"]) - 0.5  # 1547 against 909 nats are 1.18 bits/dim
    for row in (zero, start):
        bits = [8 - nats / (784 * math.log(2)) for nats in row["printed"]["nats"]]
        assert bits == pytest.approx(row["values"], abs=1e-9)


def test_the_importance_weighted_bound_of_a_vae_is_tighter_and_flows_that_bend_gain():
    rows = {name: result for name in results.ROWS if name.startswith("vae-") for result in [read(name)]}
    assert all(bound < loose for row in rows.values() for bound, loose in zip(row["values"], row["printed"]["-ELBO"]))
    assert all(rows[f"vae-{flow}"]["value"] < rows["vae-diagonal"]["value"] for flow in ("planar", "sylvester"))


def test_couplings_fit_eight_gaussians_the_better_the_more_their_map_bends():
    assert max(read("gaussians-realnvp")["values"]) <= 0.12 and max(read("gaussians-nsf")["values"]) <= 0.1
    assert max(read("gaussians-mixture")["values"]) <= 0.05


def test_a_masked_autoregressive_layer_learns_an_autoregression():
    result = read("autoregression")
    assert max(result["values"]) - result["paper"]["value"] <= 0.01


def test_a_shuffled_set_costs_no_less_than_the_optimum_and_little_more():
    optimum = math.log2(24) / 4
    row = read("shuffle-4")
    (tight,) = row["printed"]["weighted, 64 draws"]
    assert optimum < tight <= 1.20 and tight < row["value"] <= 1.24


def test_real_molecules_are_valid_and_novelty_is_no_merit():
    train, val = read("qm9-train"), read("qm9-val")
    assert train["value"] == val["value"] == 1
    assert train["printed"]["uniqueness"][0] == pytest.approx(0.96, abs=0.01)  # birthdays among 120,418
    assert (train["printed"]["novelty"], val["printed"]["novelty"]) == ([0.0], [1.0])


def test_each_step_from_a_gaussian_to_a_flow_that_bends_is_worth_more_than_its_error():
    for model, before in (("made", "gaussian"), ("maf", "made"), ("naf", "maf")):
        row = read(f"table-wine-{model}")
        (gain,), (error,) = row["printed"][f"gain over {before}"], row["printed"]["its standard error"]
        assert gain == pytest.approx(row["value"] - read(f"table-wine-{before}")["value"], abs=1e-9)
        assert gain > error > 0
    assert read("table-bsds300-small-gaussian")["value"] == pytest.approx(96.5, abs=0.1)


def test_tumours_are_told_by_their_density_and_collisions_are_not():
    for method in results.METHODS:
        assert min(read(f"anomaly-cancer-{method}")["values"]) > 0.9
        assert all(abs(value - 0.5) < 0.05 for value in read(f"anomaly-higgs-small-{method}")["values"])
    flow, forest = (read(f"anomaly-cancer-{method}")["value"] for method in ("flow", "forest"))
    assert flow > forest


def test_a_naf_fits_eight_gaussians_and_a_made_the_bits_of_digits():
    assert max(read("gaussians-naf")["values"]) <= 0.03 and max(read("made")["values"]) <= 94.5


def test_a_flow_across_time_comes_as_near_as_a_filter():
    row = read("sequence-filter")
    assert max(row["values"]) <= 0.05
    printed = row["printed"]
    assert all(abs(left) < four < before for left, four, before in zip(
        printed["of what is left"], printed["four standard errors"], printed["autocorrelation"], strict=True))


def test_a_small_row_comes_out_the_same():
    before, again = read("exact-logit"), results.measure("exact-logit")
    assert abs(again["value"] - before["value"]) <= max(before["spread"], before["tolerance"])


def test_a_run_on_a_table_goes_on_and_is_compared_with_a_simpler_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # not for the other tests
    script, models = str(ROOT / "book" / "results" / "rows" / "tables.py"), {}

    def printed(*arguments):
        monkeypatch.setattr("sys.argv", [script, "wine", *arguments, "--steps", "2"])
        models.update(runpy.run_path(script, run_name="__main__")["MODELS"])
        return capsys.readouterr().out.splitlines()

    (error, gaussian), made = printed("gaussian"), printed("made")
    assert error.startswith("standard error ") and float(gaussian) == pytest.approx(-12.558, abs=1e-3)
    assert made[0].startswith("gain over gaussian ")
    assert float(made[0].split()[-1]) == pytest.approx(float(made[-1]) - float(gaussian), abs=1e-6)
    assert printed("made") == made  # nothing is trained again
    head, _, *rows = printed()
    assert head.count("|") == 6 and len(rows) == len(models) and any(f"{float(made[-1]):.3f}" in row for row in rows)


def test_the_speed_table_is_complete():
    bench = read("bench")
    cells = {(row["model"], row["dim"], row["operation"]) for row in bench["rows"]}
    assert len(cells) == len(bench["rows"]) == 18
    for row in bench["rows"]:
        times = dict(row["milliseconds"])
        own = times.pop("flowlib")
        assert len(times) == 3 and row["ratio"] == pytest.approx(own / min(times.values()), abs=0.01)
    for row in bench["finite"]["rows"]:
        times = dict(row["milliseconds"])
        own = times.pop("flowlib")
        assert len(times) == 1 and row["ratio"] == pytest.approx(own / min(times.values()), abs=0.01)
        assert row["ratio"] <= 1.05 or "planar maps" in times  # no slower than the library beside it
    assert len(bench["finite"]["rows"]) == 10


def test_scaling_is_measured_at_every_size_of_every_model():
    rows = read("scaling")["rows"]
    sizes = {part: {(row["model"], row["dim"], row["batch"]) for row in rows if row["part"] == part}
             for part in ("dim", "memory", "batch", "compile")}
    models = {model for model, *_ in sizes["dim"]}
    assert models == {"RealNVP", "NSF", "MAF"} and sizes["dim"] == sizes["memory"]
    assert {dim for _, dim, _ in sizes["dim"]} == {2, 8, 32, 128, 512, 1024} and len(sizes["dim"]) == 18
    assert len(sizes["batch"]) == 15 and sum(map(len, sizes.values())) == len(rows)
    for row in rows:
        for numbers in row["found"].values() if row["part"] != "memory" else [row["found"]]:
            assert min(numbers.values()) >= 0 and numbers.keys() >= ({"gain"} if row["part"] == "compile" else {"zuko"})
    (largest,) = (row["found"]["sample"] for row in rows if row["part"] == "dim"
                  and (row["model"], row["dim"]) == ("MAF", 1024))
    assert 10 * largest["flowlib"] < min(largest["zuko"], largest["nflows"])  # each hidden unit once, not D times


def test_the_page_shows_every_row_and_names_each_gpu():
    page = results.page()
    for name in results.ROWS:
        result = read(name)
        starts = tuple(f"| {result['name']} {end}" for end in "|(")
        (line,) = [line for line in page.splitlines() if line.startswith(starts) and result["unit"] in line]
        assert results.shown(result) in line
        assert ("≤" in line) == result["bound"] and (not result["gpu"] or result["device"] in line)
        assert results.typed(result) in page
    assert "## Speed" in page and page.count("</figure>") == 2
    calls = 3 * len({row["model"] for row in read("scaling")["rows"] if row["part"] == "dim"})
    assert page.count("<svg") == 2 * (1 + calls) + calls // 3  # two legends; each call against D and batch; memory


@pytest.mark.parametrize("value, spread, text", [(2.22512, 0.0113, "2.225 ± 0.011"), (0.0741, 0.2, "0.07 ± 0.2"),
                                                 (1.2e-14, 3e-15, "1.2e-14 ± 3e-15")])
def test_a_value_has_the_digits_that_its_spread_lets_stand(value, spread, text):
    result = {"value": value, "spread": spread, "tolerance": 0.0, "bound": False, "seeds": [0, 1], "unit": "bits/dim"}
    assert results.shown(result) == text and results.shown(result | {"bound": True}) == f"≤ {text}"


def test_a_flow_policy_holds_both_goals_and_both_policies_learn_to_swing_up():
    flow, gaussian = read("goals-flow"), read("goals-gaussian")
    assert max(flow["values"]) < 0.1 * min(*gaussian["values"], math.log(2))
    for kind in ("flow", "gaussian"):
        result = read(f"pendulum-{kind}")
        assert min(result["values"]) > -250 and max(result["printed"]["first episode"]) < -800
