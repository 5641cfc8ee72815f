"""The numbers of the results page: how each is made, and the page from what was measured.

    python book/tools/results.py run [ROW ...]    measure these rows (or all) again: book/results/ROW.json
    python book/tools/results.py page             write book/results.md from these files

A row is a command that is run once for each seed, in the repository's top folder. Its number is the last word that it
prints (lines before it, a name and a number each, are kept and shown too), or stands in the `metrics.json` of a
training run. The row's value is the median over the seeds (of errors the largest), its spread half the distance between
the largest and the smallest. A training run with a checkpoint is kept in runs/ and goes on where it was interrupted
(remove its folder there to begin anew); the model of its first seed is put into flowlib/checkpoints/. This file needs
the standard library only, since the page is part of every build.
"""
import argparse
import json
import math
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from scaling_chart import chart

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results"
CHECKPOINTS = ROOT / "flowlib" / "checkpoints"


@dataclass(frozen=True)
class Row:
    section: str
    name: str
    unit: str
    command: str  # with {seed}; a training run also has {out}
    seeds: tuple[int, ...] = (0, 1, 2)
    bound: bool = False  # the value is an upper bound of what the unit says, printed with <=
    paper: tuple[float, str] | None = None  # the number to compare with, and whose it is
    note: str = ""
    tolerance: float = 0.0  # what rounding alone may change on another machine
    checkpoint: str = ""  # where in flowlib/checkpoints the trained model is put


TRAIN = "python -m flowlib.train --model {} --data digits --out {{out}} --seed {{seed}}"
IMAGES = "python -m flowlib.train --model {} --data {} --out runs/{} --seed {{seed}} --resume"
EIGHT = "python book/results/rows/eight_gaussians.py {} --seed {{seed}}"
KL = "python book/results/rows/reverse_kl.py {} --layers {} --seed {{seed}}"
SYLVESTER = "python book/results/rows/reverse_kl.py {} --flow sylvester --layers {} --seed {{seed}}"
VAE = "python book/results/rows/vae.py {} --seed {{seed}}"
MADE = "python book/results/rows/binary_made.py --orders {} --steps {} --seed {{seed}}"
SEQUENCES = "python book/results/rows/sequences.py {} --seed {{seed}}"
SHUFFLE = "python book/results/rows/categorical.py shuffle-4 {} --steps {} --seed {{seed}}"
QM9 = "python book/results/rows/molecules.py {} --seed {{seed}}"
POLICY = "python book/results/rows/policies.py {} --seed {{seed}}"
SAMPLES = "python book/results/rows/nearest.py digits-{} --seed {{seed}}"
INFERENCE = "python book/results/rows/inference.py {} --seed {{seed}}"
NOISE = "python book/results/rows/dequantization.py {} --seed {{seed}}"
GAP = "python book/results/rows/mean_field_gap.py {} --seed {{seed}}"
ANOMALY = "python book/results/rows/anomalies.py {} {} --seed {{seed}}"
TABLE = "python book/results/rows/tables.py {} {} --seed {{seed}}"
START = "python book/results/rows/nice_start.py {} --seed {{seed}}"
AR1 = "python book/results/rows/autoregression.py --seed {seed}"
EXACT = "python book/results/rows/exact.py {} --seed {{seed}}"


def digits(name, model):
    return Row("Digits", name, "bits/dim", TRAIN.format(model), bound=True)


QUOTED = "as quoted by Grathwohl et al. 2019"


def images(section, name, model, preprocess, paper=None, seeds=(0,)):
    data = section.lower()  # preprocess: that of the shipped model; the command's default for these sets is another
    command = IMAGES.format(model, data, f"{data}-{model}-{{seed}}") + f" --preprocess {preprocess}"
    return Row(section, f"{section}: {name}", "bits/dim", command, seeds, True, paper, checkpoint=f"{data}-{model}")


def start(case):
    return Row("MNIST", f"NICE, scale from {case}", "bits/dim", START.format(case), (0,), bound=True,
               note="2 x 400 units, 13 epochs")


def eight(name, model, note):
    return Row("Eight Gaussians", name, "KL, nats", EIGHT.format(model), note=note)


def reverse_kl(target, layers):
    return Row("Reverse KL", f"{target}, {layers} planar maps", "KL, nats", KL.format(target, layers))


def sylvester(target, layers):
    return Row("Reverse KL", f"{target}, {layers} Sylvester maps", "KL, nats", SYLVESTER.format(target, layers),
               note="M = 2")


def gap(name, case, paper=None):
    return Row("Mean-field gap", name, "KL, nats", GAP.format(case), paper=paper, tolerance=1e-6)


SNF = "van den Berg et al. 2018"


def noise(name, case, **options):
    return Row("Dequantization", name, "bits/dim", NOISE.format(case), bound=True, **options)


def vae(name, flow, note="", paper=None):
    return Row("VAE on MNIST", name, "nats", VAE.format(flow), bound=True, paper=paper, note=note)


def shuffle(name, model, steps):
    return Row("Set shuffling, N = 4", name, "bits an element", SHUFFLE.format(model, steps), (0,), True,
               (math.log2(24) / 4, "the optimum"), f"{steps:,} steps")


def qm9(name, case):
    return Row("Molecules of QM9", name, "share of valid molecules", QM9.format(case), (0,))


def policy(section, name, case, unit, note=""):
    return Row(section, name, unit, POLICY.format(case), note=note)


def inference(name, case, unit, note="", **options):
    return Row("Inference", name, unit, INFERENCE.format(case), note=note, **options)


METHODS = {"flow": "MAF (FlowDensity)", "gaussian": "One Gaussian", "mixture": "Mixture of Gaussians",
           "kernel": "Kernel density", "forest": "Isolation forest", "factor": "Local outlier factor"}


def anomalies(table, title):
    return {f"anomaly-{table}-{method}": Row("Anomalies", f"{title}: {name}", "ROC-AUC", ANOMALY.format(table, method))
            for method, name in METHODS.items()}


DENSITIES = {"gaussian": "Gaussian", "made": "MADE", "realnvp": "RealNVP, 10 couplings", "maf": "MAF, 5 layers",
             "maf-mixture": "MAF, 5 layers, mixture base", "naf": "NAF, 2 layers",
             "nsf": "Autoregressive splines, 3 layers", "rbig": "RBIG",
             "gaussianization": "Gaussianization flow, 4 layers"}


PLANE = "python book/results/rows/gaussianization.py {} {} --seed {{seed}}"


def plane(target, title, models):
    """RBIG and the Gaussianization flow that starts as it does."""
    known = {"rbig": ("RBIG, 100 layers", "no gradients"), "flow": ("Gaussianization flow, 6 layers", "800 steps")}
    return {f"plane-{target}-{model}": Row("Gaussianization", f"{title}: {known[model][0]}", "KL, nats",
                                           PLANE.format(target, model), (0,), note=known[model][1]) for model in models}


def densities(table, title, models, paper=()):
    """One row a model; beside it what Papamakarios et al. 2017 have, where it can be compared."""
    known = {model: (value, "Papamakarios et al. 2017") for model, value in paper}
    return {f"table-{table}-{model}": Row("Tables", f"{title}: {DENSITIES[model]}", "nats", TABLE.format(table, model),
                                          (0,), paper=known.get(model))
            for model in models}


def exact(name, case, unit, paper=(0.0, "exact"), **options):
    return Row("Exact checks", name, unit, EXACT.format(case), paper=paper, **options)


ROWS = {
    "digits-nice": digits("NICE", "nice-flat"),
    "digits-realnvp": digits("RealNVP", "realnvp-flat"),
    "digits-nsf": digits("NSF, couplings", "nsf-flat"),
    "digits-flowpp-large": Row(
        "Digits", "Flow++, learned noise", "bits/dim", IMAGES.format("flowpp", "digits", "digits-flowpp-{seed}")
        + " --epochs 50 --batch-size 64 --lr 3e-3 --weight-decay 0.05", (0,), True, checkpoint="digits-flowpp"),
    **{f"digits-{model}": Row("Digits", name, "bits/dim", IMAGES.format(model, "digits", f"digits-{model}-{{seed}}")
                              + " --preprocess 0.02", (0,), True, checkpoint=f"digits-{model}")
       for model, name in (("tarflow", "TarFlow"), ("jet", "Jet"))},
    **{f"samples-{model}": Row("Digits: samples", name, "grey levels", SAMPLES.format(model))
       for model, name in (("tarflow", "TarFlow"), ("jet", "Jet"), ("flowpp", "Flow++, learned noise"))},
    "mnist-nice": images("MNIST", "NICE", "nice", "scale", (4.36, "Dinh et al. 2015"), seeds=(0, 1, 2)),
    "mnist-realnvp": images("MNIST", "RealNVP", "realnvp", "logit", (1.06, QUOTED)),
    "mnist-glow": images("MNIST", "Glow", "glow", "centre", (1.05, QUOTED)),
    "mnist-nice-zero": start("zero"),
    "mnist-nice-data": start("data"),
    "fashion-mnist-nice": images("Fashion-MNIST", "NICE", "nice", "scale"),
    "fashion-mnist-realnvp": images("Fashion-MNIST", "RealNVP", "realnvp", "logit"),
    "fashion-mnist-glow": images("Fashion-MNIST", "Glow", "glow", "centre"),
    "gaussians-realnvp": eight("RealNVP, 8 layers", "RealNVP", "3,000 steps"),
    "gaussians-nsf": eight("NSF, 4 couplings", "NSF", "1,500 steps"),
    "gaussians-mixture": eight("Mixture-CDF couplings, 4 layers", "mixture", "1,500 steps"),
    "autoregression": Row("Autoregression", "MAF, 1 layer", "nats", AR1, paper=(12.181873869048207, "the entropy"),
                          note="1,500 steps"),
    "gaussians-naf": eight("NAF, 2 layers of 16 sigmoids", "NAF", "1,500 steps"),
    "made": Row("Binarised MNIST", "MADE, one order", "nats", MADE.format(1, 3000), (0,), note="3,000 steps"),
    "sequence-filter": Row("Sequences", "Autoregression with noise: a TemporalAffine, short of the Kalman filter",
                           "nats a step", SEQUENCES.format("filter"), paper=(0.0, "exact"),
                           note="5 lags, 400 steps of 1,000"),
    "sequence-power": Row("Sequences", "Household power: what a TemporalAffine adds to a sequential VAE", "nats a step",
                          SEQUENCES.format("power"), (0,), note="600 steps each"),
    "shuffle-4": shuffle("Categorical flow, mixture of logistics", "mixture", 3000),
    "qm9-train": qm9("10,000 draws of training molecules", "reference"),
    "qm9-val": qm9("6,690 validation molecules", "reference --split val"),
    "inference-gaussian": inference("Linear Gaussian posterior: MAF, 3 layers", "gaussian", "KL, nats",
                                    "10,000 simulations", paper=(0.0, "exact")),
    "inference-moons": inference("Two moons: NSF, 6 couplings", "moons --checkpoint runs/two-moons-{seed}", "C2ST",
                                 "10,000 simulations", paper=(0.5, "exact")),
    "inference-slcp": inference("SLCP: ranks of NSF, 6 couplings, over the 99 % band", "slcp", "ratio",
                                "50,000 simulations", seeds=(0,)),
    "inference-schools": inference("Eight schools, centred: guide by RealNVP, 6 layers", "schools", "KL, nats",
                                   "800 steps", paper=(0.0, "exact")),
    "inference-schools-diagonal": inference("Eight schools, centred: independent Gaussians", "schools-diagonal",
                                            "KL, nats", "800 steps"),
    "kl-u1-8": reverse_kl("U1", 8),
    **{f"kl-{target.lower()}-32": reverse_kl(target, 32) for target in ("U1", "U2", "U3", "U4")},
    **{f"kl-sylvester-{target.lower()}-32": sylvester(target, 32) for target in ("U1", "U2", "U3", "U4")},
    "gap-none": gap("No flow", "none", ((6 * math.log(1.64) - math.log(0.36)) / 2, "exact")),
    "gap-householder-1": gap("Householder, 1 reflection", "householder --reflections 1"),
    "gap-householder-2": gap("Householder, 2 reflections", "householder --reflections 2"),
    "gap-householder-4": gap("Householder, 4 reflections", "householder --reflections 4"),
    "gap-householder-7": gap("Householder, 7 reflections", "householder --reflections 7", (0.0, "exact")),
    "gap-liaf": gap("Linear IAF", "liaf", (0.0, "exact")),
    "gap-ccliaf": gap("Convex combination of 5 linear IAFs", "ccliaf", (0.0, "exact")),
    "noise-gaussian": noise("One pixel of four levels: a Gaussian, uniform noise", "pmf gaussian",
                            paper=(2.104834, "exact")),
    "noise-uniform": noise("One pixel of four levels: four Gaussians, uniform noise", "pmf uniform",
                           paper=(1.846439, "entropy")),
    "noise-variational": noise("One pixel of four levels: four Gaussians, learned noise", "pmf variational",
                               paper=(1.846439, "entropy")),
    "digits-flowpp-uniform": noise("Digits: a small Flow++, uniform noise", "digits uniform"),
    "digits-flowpp": noise("Digits: the same Flow++, learned noise", "digits variational"),
    "vae-diagonal": vae("VAE, diagonal Gaussian", "diagonal", paper=(82.14, SNF)),
    "vae-planar": vae("VAE, planar", "planar", "8 maps", paper=(81.91, SNF)),
    "vae-radial": vae("VAE, radial", "radial", "8 maps"),
    "vae-sylvester": vae("VAE, Sylvester", "sylvester", "4 maps, M = 8", paper=(80.22, SNF)),
    "vae-householder": vae("VAE, Householder", "householder", "8 reflections"),
    "vae-liaf": vae("VAE, linear IAF", "liaf"),
    "vae-ccliaf": vae("VAE, convex combination", "ccliaf", "5 linear IAFs"),
    "goals-gaussian": policy("Two goals", "Squashed Gaussian policy", "goals gaussian", "KL, nats", "2,000 steps"),
    "goals-flow": policy("Two goals", "Flow policy, 6 spline couplings", "goals flow", "KL, nats", "2,000 steps"),
    "pendulum-gaussian": policy("Pendulum", "Squashed Gaussian policy", "pendulum gaussian", "return", "15 episodes"),
    "pendulum-flow": policy("Pendulum", "Flow policy, a spline", "pendulum flow", "return", "15 episodes"),
    **densities("bsds300-small", "BSDS300 patches", ("gaussian", "made", "maf"), (
        ("gaussian", 96.67), ("made", 148.85), ("maf", 155.69), ("maf-mixture", 156.36))),
    **densities("power-small", "POWER subset", ("gaussian", "made", "rbig")),
    **densities("parkinsons", "Parkinson's voices", ("gaussian", "made", "maf")),
    **densities("higgs-small", "HIGGS subset", ("gaussian",)),
    **densities("wine", "Red wine", ("gaussian", "made", "maf", "naf", "nsf", "rbig", "gaussianization")),
    **plane("eight", "Eight Gaussians", ("flow",)),
    **anomalies("cancer", "Tumours"),
    **anomalies("higgs-small", "Collisions"),
    "exact-uniform": exact("Pixels under a uniform base", "uniform", "bits/dim", (8.0, "log2 256"), seeds=(0,),
                           tolerance=1e-6, note="every level once"),
    "exact-logit": exact("Logit preprocessing under a logistic base", "logit", "bits/dim",
                         (8 - math.log2(0.9), "8 - log2(1 - 2·0.05)"), seeds=(0,), tolerance=1e-5,
                         note="every level once"),
    "exact-mixture": exact("Log-density of a logistic mixture, as a flow", "mixture", "largest error, nats",
                           note="out to x = ±30"),
    "exact-planar": exact("Eight planar maps, there and back", "planar", "largest error", note="10,000 points, D = 8"),
    "exact-log-det": exact("Log-dets against autograd", "log_det", "largest error, nats",
                           note="RealNVP and NSF, D = 8"),
    "exact-convolution": exact("Log-det of 1×1 convolutions against autograd", "convolution", "largest error, nats",
                               note="6 channels, 4×4"),
    "exact-nice-mnist": exact("NICE's 1980.50 nats on MNIST", "nice_mnist", "bits/dim", (4.355539, "converted"),
                              seeds=(0,),
                              tolerance=1e-6),
    "exact-nice-cifar10": exact("NICE's 5371.78 nats on CIFAR-10", "nice_cifar10", "bits/dim", (4.477266, "converted"),
                                seeds=(0,),
                                tolerance=1e-6),
    "exact-integral": exact("Integral of a planar flow's density", "integral", "probability", (1.0, "exact"),
                            tolerance=1e-4, note="by quadrature in the plane"),
}


def machine() -> str:
    """The processor as the system names it, and how many cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def python(words: list[str]) -> str:
    """What a Python command prints. One thread, as in the Makefile: more gain nothing here, and change the last
    bits."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
                          check=True).stdout


def trained(out: Path) -> dict:
    """What a training run left in its folder."""
    metrics = json.loads((out / "metrics.json").read_text())
    seconds = metrics["processor_seconds" if metrics["device"].startswith("cpu") else "seconds"]
    return {"value": metrics["test_bits_per_dim"], "device": metrics["device"], "minutes": seconds / 60,
            "beside": {name: metrics[f"baseline_{name}"] for name in ("histogram", "gaussian")}}


def once(row: Row, seed: int) -> dict:
    """One run: its `value` with what was `printed` before it, or of a training run the numbers `beside` it and its
    `device`."""
    if row.checkpoint:
        return kept(row, seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = shlex.split(row.command.format(seed=seed, out=shlex.quote(str(out))))
        printed = python(words[1:])
        if "{out}" in row.command:
            return trained(out)
    *before, last = (line.rsplit(" ", 1) for line in printed.splitlines())
    return {"value": float(last[-1]), "printed": {name: float(number) for name, number in before}}


def kept(row: Row, seed: int) -> dict:
    """A training run that stays in its folder; the first seed's is evaluated and copied to where lessons find it."""
    words = shlex.split(row.command.format(seed=seed))
    out, place = ROOT / words[words.index("--out") + 1], CHECKPOINTS / row.checkpoint
    if not (out / "metrics.json").exists():  # which is written at the end
        python(words[1:])
    if seed == row.seeds[0]:
        python(["-m", "flowlib.evaluate", str(out), "--json", str(out / "evaluation.json")])
        place.mkdir(parents=True, exist_ok=True)
        for file in ("model.safetensors", "model.json", "metrics.json", "evaluation.json"):
            shutil.copy(out / file, place / file)
    return trained(out)


def measure(name: str) -> dict:
    """Run a row for all of its seeds."""
    row, start = ROWS[name], time.perf_counter()
    runs = [once(row, seed) for seed in row.seeds]
    values = [run["value"] for run in runs]
    middle = max if row.unit.startswith("largest") else statistics.median
    minutes = (time.perf_counter() - start) / 60
    if "minutes" in runs[0]:
        minutes = sum(run["minutes"] for run in runs)
    printed = {key: [run["printed"][key] for run in runs] for key in runs[0].get("printed", ())}
    gpu = not all(run.get("device", "cpu").startswith("cpu") for run in runs)
    return {
        "section": row.section, "name": row.name, "note": row.note, "unit": row.unit, "bound": row.bound,
        "value": middle(values), "spread": (max(values) - min(values)) / 2,
        "tolerance": row.tolerance, "values": values,
        "paper": row.paper and {"value": row.paper[0], "source": row.paper[1]}, "beside": runs[0].get("beside", {}),
        "seeds": list(row.seeds), "device": runs[0]["device"] if gpu else machine(), "gpu": gpu,
        "minutes": round(minutes, 2), "command": row.command,
    } | ({"printed": printed} if printed else {})


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def run(names):
    for name in names or ROWS:
        result = measure(name)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {shown(result)} {result['unit']} ({result['minutes']} min)", flush=True)


def decimals(result):
    """As many as let two digits of the spread be seen, six at most."""
    spread = result["spread"] or result["tolerance"]
    return min(6, max(0, 1 - math.floor(math.log10(spread)))) if spread else 3


def number(value, decimals=3):
    """Errors of rounding as powers of ten, all else as a decimal fraction."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-6 else f"{value:.{decimals}f}"


def shown(result):
    """The value as the page and the terminal print it."""
    alone = len(result["seeds"]) == 1 or result["unit"].startswith("largest")
    value = number(result["value"], decimals(result)) + ("" if alone else f" ± {result['spread']:.2g}")
    return ("≤ " if result["bound"] else "") + value


def known(result):
    """The paper's number, or the exact one, with its source."""
    if not result["paper"]:
        return ""
    value = result["paper"]["value"]
    return f"{number(value, decimals(result) if value else 0)} ({result['paper']['source']})"


INTRODUCTION = """# Results

Every number on this page was measured by the command below its table (there with the first seed), in the repository's
top folder. `make results` measures all of them again, `make results ROWS="digits-nice"` one, `make bench` the
times and `make scaling` how they grow. A value is the median over the seeds, ± half the distance between the largest
and the smallest; of errors it is the largest. A sign ≤ marks an upper bound: dequantized images have no more bits/dim
than that.
All of it was run on the processors that are named, none of it on a GPU unless a table has a column that names one.
"""

SECTIONS = {
    "Digits": "The 8×8 digits of scikit-learn with 17 levels: bits per dimension of 300 test images, preprocessing "
    "included. Minutes of training are of processor time, one thread.",
    "Digits: samples": "Mean distance of 1,000 samples of a shipped model to their nearest training image "
    "(Euclidean, of 64 pixels from 0 to 16), beside that of the 300 test images. Nearer than they are would be "
    "copying; farther is what no digit looks like. The models are those of the table above, so that bits and samples "
    "are of one training.",
    "MNIST": "The full set, 28×28 pixels of 256 levels: bits per dimension of 10,000 test images, one draw of uniform "
    "noise each. Flows of a size for two CPU cores; those of the papers are larger, and were trained for longer. The "
    "first seed's model is in `flowlib/checkpoints/`. Minutes of training are of processor time, too. The rows "
    "\"scale from\" differ in the start of NICE's scale alone; their minutes are by the clock.",
    "Fashion-MNIST": "The same flows, trained in the same way on 28×28 pictures of clothes.",
    "Eight Gaussians": "Eight Gaussians of σ = 0.5 around a circle of radius 4; steps of 256 fresh points. Their "
    "density is known, so the Kullback-Leibler divergence needs new points only, here 200,000; 0 is perfect.",
    "Gaussianization": "Densities on the plane, Gaussianized: RBIG is fitted layer by layer to 100,000 points, the "
    "flow starts as RBIG does from 20,000 and is trained on fresh points, 256 a step. The divergence is over 20,000 "
    "new points (the moons' density by quadrature along their arcs); 0 is perfect. Each command prints the integral of "
    "the flow's density before.",
    "Autoregression": "Test loss of one masked autoregressive layer on 8 numbers of an autoregression, each 0.9 of the "
    "one before it plus noise of variance 1; steps of 256 fresh points. No model is below the entropy.",
    "Binarised MNIST": "MADE with 500 units, and direct weights from bits to later bits: nats of 10,000 test images, "
    "whose pixels are Bernoulli draws of their grey levels with seed 0, after batches of 128 whose pixels are drawn "
    "anew. This is not Larochelle's file of fixed draws, on which Germain et al. (2015, arXiv:1502.03509) report their "
    "numbers.",
    "Sequences": "Affine autoregressive flows across time. Of a first-order autoregression with noise the exact "
    "likelihood is known; the household's power and voltage are real, minute by minute in windows of 30, the last "
    "fifth for testing, and the standard error is over days.",
    "Reverse KL": "Flows fitted to the energies U1 to U4 of Rezende and Mohamed (2015, arXiv:1505.05770), U2 to U4 "
    "between walls at ±4 that make them densities: 4,000 steps of 256 draws, the energy annealed over the first half. "
    "The constant of the target is known, so the divergence is an average over 100,000 draws; 0 is perfect.",
    "Two goals": "A point in the plane that may walk to either of two goals, in each of 50 states: the divergence of "
    "a policy to the best one, by quadrature; 0 is perfect. One density on one of the goals loses about ln 2. The "
    "minutes are by the clock of a busy machine; processor seconds stand in the files.",
    "Pendulum": "Soft actor-critic on eight pendulums at once, the physics of gymnasium's Pendulum-v1: the mean return "
    "of 200 new episodes of 200 steps with the actions drawn from the policy; 0 would be perfect. The first "
    "episode of training has random actions. The minutes are by the clock of a busy machine.",
    "Inference": "Posteriors learned from simulations, and guides of a hierarchical model (`flowlib.inference`), "
    "beside the exact ones. The two-sample test is the share that a classifier gets right, 1/2 where nothing tells the "
    "draws apart. Ranks: the largest distance of a distribution function to the diagonal, for the parameters and for "
    "the density, 1,000 pairs, 100 draws each, over the band that a calibrated posterior leaves once in a hundred "
    "times.",
    "Mean-field gap": "Gaussians of covariance 0.8^|i-j| in 8 dimensions, approximated by a diagonal Gaussian and a "
    "linear flow: the divergence that stays, by its formula, after L-BFGS from five starts, of which the best counts.",
    "Dequantization": "The noise that a density adds to integers, uniform or learned (variational). One pixel with the "
    "probabilities .1, .2, .3, .4 has an entropy of 1.846439 bits, and the best Gaussian under uniform noise needs "
    "2.104834. On the digits two models are equal but for the noise: 2 checkerboard and 2 channel couplings, 800 steps "
    "of 128.",
    "VAE on MNIST": "VAEs with a flow as the posterior: 16 latents, encoder and decoder of one hidden layer with 300 "
    "units, 2,000 steps of 128 images of the full training set (five passes), their pixels drawn anew each time. "
    "Measured is the importance-weighted bound on -ln p(x) with 100 draws for each of 2,000 test images, the same for "
    "all. The models of the papers are larger, have 64 latents and were trained for hundreds of passes: compare the "
    "order and the differences, not the values.",
    "Tables": "Mean log-likelihood of the test rows, in nats: the larger, the better. Flows are trained until the "
    "validation rows say stop; what one gains over a simpler model is a paired difference, with its standard error. "
    "BSDS300 patches come from the photographs of the paper, ten times fewer of them; POWER and HIGGS are small parts "
    "of the sets, prepared in the same way but not comparable with published numbers (`flowlib.data.tables`).",
    "Anomalies": "How well a density of normal rows tells abnormal ones: the area under the ROC curve, 1/2 for "
    "guessing, of rows that no method has seen. Benign tumours are normal, malignant ones abnormal (the breast cancer "
    "data of scikit-learn, 30 columns); collisions without a Higgs boson are normal, those with one abnormal (HIGGS "
    "subset, 24 columns): there the abnormal lies inside the normal, and the likelihood of a row does not tell.",
    "Set shuffling, N = 4": "Four labels in a random order: every order is equally likely, so no model is below "
    "log2(4!) / 4 = 1.146 bits an element. The importance-weighted bound has 64 draws an order.",
    "Molecules of QM9": "What real molecules score by the measures of generated ones, for comparison: valid is what "
    "RDKit accepts; in brackets, distinct molecules among the valid, those of them that are not in the training set, "
    "and valid ones of one piece. A draw of the training set repeats itself, and all that is new in QM9 is "
    "\"novel\".",
    "Exact checks": "Cases whose answer is known.",
}
BASELINES = {"histogram": ("baseline: independent histograms", ""),
             "gaussian": ("baseline: full-covariance Gaussian", "≤ ")}


def table(*rows):
    head, *rest = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return ["", head, "|" + "---|" * len(rows[0]), *rest, ""]


def commands(lines):
    return ["```bash", *lines, "```"]


def typed(result):
    """The command as one would type it, for the first seed."""
    return result["command"].format(seed=result["seeds"][0], out="runs/" + result["name"].split(",")[0].lower())


def remarks(result):
    """The note in brackets, with the medians of what was printed before the value."""
    notes = [result["note"]] if result["note"] else []
    notes += [f"{name} {statistics.median(values):.2f}" for name, values in result.get("printed", {}).items()]
    return f" ({'; '.join(notes)})" if notes else ""


def section(title, results):
    """One table, where it was measured, and how."""
    rows = [(r["name"] + remarks(r), shown(r), r["unit"], known(r),
             ", ".join(map(str, r["seeds"])), r["minutes"], r["device"] if r["gpu"] else "") for r in results]
    for baseline, value in results[0]["beside"].items():
        name, sign = BASELINES[baseline]
        rows.append((name, sign + number(value), results[0]["unit"], "", "", "", ""))
    processors = sorted({f"Processor: {r['device']}." for r in results if not r["gpu"]})
    head = ("what", "measured", "unit", "paper or truth", "seeds", "minutes", "GPU")
    if not any(r["gpu"] for r in results):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return ["", f"## {title}", "", SECTIONS[title], *table(head, *rows), *processors, "",
            *commands(map(typed, results))]


def speed(bench):
    """flowlib beside the libraries that it was timed against."""
    libraries = list(bench["rows"][0]["milliseconds"])
    head = ("model", "D", "call", "ratio", *libraries)
    rows = [(row["model"], row["dim"], row["operation"], f"**{row['ratio']:.2f}**",
             *(f"{row['milliseconds'][name]:.2f}" for name in libraries)) for row in bench["rows"]]
    sizes = dict.fromkeys(f"{row['parameters']:,} ({row['model']}, D = {row['dim']})" for row in bench["rows"])
    layers = " and ".join(f"{n} couplings ({model})" for model, n in bench["layers"].items())
    hidden = " and ".join(map(str, bench["hidden"]))
    text = f"""Milliseconds of one call on a batch of {bench['batch']:,}: {layers}, networks of
{hidden} units, {bench['bins']} bins, the same number of parameters in each library. All take turns in one process;
processor time, threads: {bench['threads']}; medians of {bench['runs']} runs of {bench['rounds']} rounds. The ratio is
that of flowlib to the fastest of the others."""
    versions = ", ".join(f"{name} {version}" for name, version in bench["versions"].items())
    return ["", "## Speed", "", text, *table(head, *rows), f"Parameters: {', '.join(sizes)}.", "",
            *finite_speed(bench["finite"]), *image_speed(bench["images"]),
            *(autoregressive_speed(bench["autoregressive"]) if "autoregressive" in bench else []),
            f"Processor: {bench['device']}; {versions}; {bench['date']}.", "",
            *commands([bench["command"]])]


def finite_speed(bench):
    """Stacks of finite flows beside the library that has them, and Sylvester layers beside planar maps."""
    head = ("stack", "call", "ratio", "flowlib", "beside it")
    rows = []
    for row in bench["rows"]:
        (name, other), = ((name, t) for name, t in row["milliseconds"].items() if name != "flowlib")
        rows.append((f"{bench['layers']} {row['model']}", row["operation"], f"**{row['ratio']:.2f}**",
                     f"{row['milliseconds']['flowlib']:.2f}", f"{other:.2f} ({name})"))
    text = f"""Finite flows in {bench['rows'][0]['dim']} dimensions, measured in the same way: the forward direction,
which samples, and a step of training by reverse KL. Beside a Sylvester layer stands flowlib's own planar map: the ratio
is the price of a layer in planar maps."""
    return [text, *table(head, *rows)]


def image_speed(bench):
    """Glow beside normflows' Glow."""
    rows = [(row["operation"], f"**{row['ratio']:.2f}**", *(f"{t:.0f}" for t in row["milliseconds"].values()))
            for row in bench["rows"]]
    text = f"""Glow on 32×32 images of three channels, {bench['batch']} a batch: 3 scales of 8 steps, networks of
64 channels, no learned prior, {bench['rows'][0]['parameters']:,} parameters in both, in milliseconds."""
    return [text, *table(("call", "ratio", *bench["rows"][0]["milliseconds"]), *rows)]


def autoregressive_speed(bench):
    """Autoregressive flows beside those of zuko and nflows."""
    head = ("model", "D", "layers", "hidden", "batch", "call", "ratio", *bench["rows"][0]["milliseconds"])
    rows = [(row["model"], row["dim"], row["layers"], ", ".join(map(str, row["hidden"])), row["batch"],
             row["operation"], f"**{row['ratio']:.3f}**", *(f"{t:,.1f}" for t in row["milliseconds"].values()))
            for row in bench["rows"]]
    text = f"""Autoregressive flows, in milliseconds of processor time, the least of {bench['rounds']} rounds (of
samples in 784 dimensions: of one). The others sample by D passes of each network, flowlib by computing each hidden unit
once."""
    return [text, *table(head, *rows)]


def scaling(found):
    """Charts of how times and memory grow, and the table of what compiling gains."""
    def curves(part, model, across, quantity=None):
        rows = [row for row in found["rows"] if (row["part"], row["model"]) == (part, model)]
        values = [(row[across], row["found"][quantity] if quantity else row["found"]) for row in rows]
        return {name: [(x, max(value[name], 1)) if part == "memory" else (x, value[name]) for x, value in values]
                for name in values[0][1]}

    models = dict.fromkeys(row["model"] for row in found["rows"] if row["part"] == "dim")
    calls = ("training step", "log_prob", "sample")
    by_dim = [[*((f"{model}: {call}, ms", "D", curves("dim", model, "dim", call)) for call in calls),
               (f"{model}: memory, MiB", "D", curves("memory", model, "dim"))] for model in models]
    by_batch = [[(f"{model}: {call}, ms", "batch", curves("batch", model, "batch", call)) for call in calls]
                for model in models]
    (batch,), (dim,) = ({row[key] for row in found["rows"] if row["part"] == part}
                        for part, key in (("dim", "batch"), ("batch", "dim")))
    layers, hidden = found["couplings"]["layers"], " and ".join(map(str, found["couplings"]["hidden"]))
    text = f"""The models of the tables above in other sizes: {layers['RealNVP']} couplings (RealNVP) and
{layers['NSF']} (NSF) with networks of {hidden} units, and MAF with {found['MAF']['layers']} layers of
{' and '.join(map(str, found['MAF']['hidden']))}. Milliseconds of processor time, one thread, each the least of several
calls, the libraries taking turns in one process. Memory is what a process needs at most, above what the library itself
takes, to build the model and train it for a few steps; what is below one mebibyte is drawn as one."""
    rows = [(row["model"], row["dim"], row["batch"], call, *(f"{t[key]:.2f}" for key in ("eager", "compiled")),
             f"**{t['gain']:.2f}**", f"{t['seconds']:.0f}")
            for row in found["rows"] if row["part"] == "compile" for call, t in row["found"].items()]
    compiling = """`torch.compile` with its defaults, in one graph, on this processor: the gain is the eager time over
the compiled one, and compiling took the seconds at the end of the row, once for each shape. A training step is the loss
and its gradients."""
    head = ("model", "D", "batch", "call", "eager, ms", "compiled, ms", "gain", "compiling, s")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return ["", "## Scaling", "", text, "",
            *chart(by_dim, f"Time and memory against the dimension D, a batch of {batch}."), "",
            *chart(by_batch, f"Time against the batch, D = {dim}."), "",
            *([compiling, *table(head, *rows)] if rows else []),
            f"Processor: {found['device']}; {versions}; {found['rows'][-1]['date']}.", "",
            *commands([found["command"]])]


def page() -> str:
    """The page, from all that was measured."""
    lines = [INTRODUCTION.rstrip()]
    for title in SECTIONS:
        lines += section(title, [read(name) for name, row in ROWS.items() if row.section == title])
    return "\n".join(lines + speed(read("bench")) + scaling(read("scaling"))) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    todo = parser.add_subparsers(dest="todo", required=True)
    todo.add_parser("run", help="measure rows").add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    todo.add_parser("page", help="write book/results.md")
    args = parser.parse_args()
    if args.todo == "run":
        if unknown := set(args.rows) - set(ROWS):
            parser.error(f"no row {', '.join(sorted(unknown))}; the rows are {', '.join(ROWS)}")
        run(args.rows)
    else:
        (ROOT / "book" / "results.md").write_text(page())
