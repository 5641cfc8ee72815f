"""`python -m flowlib.evaluate`: bits/dim that are known, the tighter bound, and a round trip that can go wrong."""
import json
import math

import pytest
import torch

import flowlib as fl
from flowlib.train import __main__ as train
from flowlib.evaluate import report
from flowlib.evaluate.__main__ import evaluate, main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "digits"
    train.main(["--model", "glow", "--data", "digits", "--levels", "8", "--out", str(out), "--steps", "4", "--hidden", "8",
                "--layers", "1", "--batch-size", "32"])
    return out


def test_the_command_prints_what_it_measures(out, tmp_path, capsys):
    capsys.readouterr()
    main([str(out), "--draws", "3", "--images", "50", "--json", str(tmp_path / "e.json")])
    printed, found = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "e.json").read_text())
    assert printed[0] == f"glow of {out} on digits, test"
    for line, part, images in zip(printed[2:5], ("all", "few", "weighted"), (300, 50, 50)):
        row = found[part]
        value, error, count = line.split("<=")[1].split()
        assert value == f"{row['bits_per_dim']:.4f}" and error == f"{row['standard_error']:.4f}" and count == str(images)
    assert "weighted, 3 draws" in printed[4] and found["weighted"]["draws"] == 3
    assert found["weighted"]["bits_per_dim"] < found["few"]["bits_per_dim"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert found["all"]["bits_per_dim"] == pytest.approx(metrics["test_bits_per_dim"], abs=0.02)
    for line, name in zip(printed[5:], ("float32", "float64")):
        assert line == (f"round trip, {name}: largest error {found[name]['error']:.1e} on the unit interval; "
                        "all 3,200 pixels come back exactly")
    assert found["float32"]["error"] < 1e-5 and found["float64"]["error"] < 1e-13


def test_the_same_seed_gives_the_same_numbers(out, tmp_path):
    for name in ("a", "b"):
        main([str(out), "--images", "20", "--draws", "2", "--json", str(tmp_path / name)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bits_of_a_uniform_flow():
    """4 bits for 16 levels, from every draw: the standard error is zero and there is nothing to tighten."""
    flow = fl.Pixels(fl.Flow(fl.Uniform(torch.zeros(4), torch.ones(4)), fl.AffineMap(1.0, 0.0)), (1, 2, 2), levels=16)
    found = evaluate(flow, torch.randint(0, 16, (30, 1, 2, 2), dtype=torch.uint8), draws=4, images=20)
    for part, images, draws in (("all", 30, 1), ("few", 20, 1), ("weighted", 20, 4)):
        assert found[part]["bits_per_dim"] == pytest.approx(4, abs=1e-6) and found[part]["standard_error"] < 1e-6
        assert (found[part]["images"], found[part]["draws"]) == (images, draws)


class Rough(fl.Bijection):
    """Decoding misses by a third of a level."""

    latent_ndim = event_ndim = 3
    miss = 1 / 48

    def forward(self, z, context=None):
        return z + self.miss, z.new_zeros(z.shape[:-3])

    def inverse(self, x, context=None):
        return x, x.new_zeros(x.shape[:-3])


def test_a_round_trip_that_misses_is_seen():
    flow = fl.Flow(fl.StandardNormal(1, 10, 10), fl.Compose(Rough(), fl.Dequantize(16)))
    x = torch.randint(0, 15, (400, 1, 10, 10), dtype=torch.uint8)
    error, wrong, pixels = report.round_trip(flow, x, torch.float64)
    assert error == pytest.approx(Rough.miss) and pixels == 40_000
    assert abs(wrong / pixels - 1 / 3) < 4 * math.sqrt(2 / 9 / pixels)  # noise in the upper third of the cell crosses its edge
    assert next(flow.buffers()).dtype == torch.float32  # the flow itself is left as it was


def test_other_data_and_errors(out, tmp_path, capsys):
    main([str(out), "--data", "digits", "--split", "val", "--images", "10", "--draws", "1"])
    assert "on digits, val" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: this flow is over events of shape \(1, 8, 8\)"):
        main([str(out), "--data", "mnist-small"])
    with pytest.raises(SystemExit, match="error: unknown data set 'elsewhere'"):
        main([str(out), "--data", "elsewhere"])
    with pytest.raises(SystemExit, match="error: .*No such file"):
        main([str(tmp_path)])


def test_a_folder_of_images_from_training_to_evaluation(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(60):
        pixels = torch.randint(256, (20, 24, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    train.main(["--model", "realnvp", "--data", str(tmp_path / "photos"), "--size", "8", "--levels", "32", "--out",
                str(tmp_path / "run"), "--steps", "2", "--hidden", "4", "--layers", "1", "--batch-size", "8"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["size"], metrics["levels"]) == (8, 32) and fl.load(tmp_path / "run").event_shape == (3, 8, 8)
    capsys.readouterr()
    main([str(tmp_path / "run")])
    assert f"on {tmp_path / 'photos'}, test" in capsys.readouterr().out
