"""Problem set 4: typical wrong answers, and right ones that look unusual."""
from answers import Answers

ANSWERS = Answers("ps4")
changed = ANSWERS.changed
# function of flowlib.exercises.ps4 -> the functions that it tests
CHECKS = {"check_made": ("made_masks", "made"),
          "check_maf": ("maf_inverse", "maf_forward", "iaf_sample"),
          "check_time": ("time_inverse", "time_forward"),
          "check_naf": ("dsf", "naf_log_prob"),
          "check_foresight": ("kalman_log_prob", "ar_log_prob", "autocorrelation")}
MADE = "made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)"
LOOP = """    for _ in range(z.shape[1]):  # after k passes the first k numbers of the order are right
        mean, log_scale = made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)
        x = z * torch.exp(log_scale) + mean
"""

# function -> [(what is wrong, the text, the parts that it loses)]
WRONG = {
    "made_masks": [
        ("never strict", changed("made_masks", ("rank[:, None] > m2", "rank[:, None] >= m2")), {"q1_masks"}),
        ("strict twice", changed("made_masks", ("m1[:, None] >= rank", "m1[:, None] > rank")), {"q1_masks"}),
        ("strict in the middle", changed("made_masks", ("m2[:, None] >= m1", "m2[:, None] > m1")), {"q1_masks"}),
        ("the natural order",
         changed("made_masks", ("    first =", "    rank = torch.arange(len(rank)) + 1\n    first =")),
         {"q1_masks"}),
        ("the order for the places",
         changed("made_masks", ("    first =", "    rank = rank.argsort() + 1\n    first =")), {"q1_masks"}),
        ("transposed", changed("made_masks", ("first.double()", "first.T.double()")), {"q1_masks"}),
        ("sorted degrees", changed("made_masks", ("    first =", "    m1 = m1.sort()[0]\n    first =")), {"q1_masks"}),
        ("wrong sign", changed("made_masks", ("m2[:, None] >= m1", "m2[:, None] <= m1")), {"q1_masks"})],
    "made": [
        ("the last mask is missing", changed("made", ("torch.cat([last, last]) * w3", "w3")), {"q1_net"}),
        ("the middle mask is missing", changed("made", ("middle * w2", "w2")), {"q1_net"}),
        ("masked for half of the outputs",
         changed("made", ("torch.cat([last, last])", "torch.cat([last, torch.ones_like(last)])")), {"q1_net"}),
        ("rows taken in turns", changed("made", ("both.chunk(2, dim=1)", "both[:, ::2], both[:, 1::2]")), {"q1_net"}),
        ("mask for the wrong rows", changed("made", ("torch.cat([last, last])", "last.repeat_interleave(2, 0)")),
         {"q1_net"}),
        ("means and log-scales exchanged", changed("made", ("both.chunk(2, dim=1)", "both.chunk(2, dim=1)[::-1]")),
         {"q1_net"}),
        ("another nonlinearity", changed("made", ("torch.tanh(", "torch.relu(")), {"q1_net"}),
        ("tanh at the end", changed("made", ("both.chunk(", "torch.tanh(both).chunk(")), {"q1_net"}),
        ("no bias", changed("made", ("w3, b3)  #", "w3)  #")), {"q1_net"}),
        ("masked biases", changed("made", ("middle * w2, b2)", "middle * w2, b2 * (m2 < m2.max()))")), {"q1_net"}),
        ("detached", changed("made", ("middle * w2", "middle * w2.detach()")), {"q1_net"})],
    "maf_inverse": [
        ("wrong sign", changed("maf_inverse", ("-log_scale.sum(1)", "log_scale.sum(1)")), {"q2_log_det"}),
        ("stretched before it is shifted", changed("maf_inverse", ("(x - mean) * torch.exp(-log_scale)",
                                                                   "x * torch.exp(-log_scale) - mean")),
         {"q2_z", "q2_log_det"}),
        ("other sign of the scale",
         changed("maf_inverse", ("torch.exp(-log_scale)", "torch.exp(log_scale)")), {"q2_z", "q2_log_det"}),
        ("the scale is a variance",
         changed("maf_inverse", ("torch.exp(-log_scale)", "torch.exp(-log_scale / 2)")), {"q2_z", "q2_log_det"}),
        ("missing sum", changed("maf_inverse", ("-log_scale.sum(1)", "-log_scale.mean(1)")), {"q2_log_det"}),
        ("wrong axis", changed("maf_inverse", ("-log_scale.sum(1)", "-log_scale.sum(0)")), {"q2_log_det"}),
        ("one sum for all rows", changed("maf_inverse", ("-log_scale.sum(1)", "-log_scale.sum().expand(len(x))")),
         {"q2_log_det"}),
        ("means for log-scales", changed("maf_inverse", ("mean, log_scale =", "log_scale, mean =")),
         {"q2_z", "q2_log_det"}),
        ("detached", changed("maf_inverse", ("-log_scale.sum(1)", "-log_scale.detach().sum(1)")), {"q2_log_det"})],
    "maf_forward": [
        ("one pass", changed("maf_forward", ("made(x,", "made(z,")), {"q2_forward"}),
        ("one pass too few", changed("maf_forward", ("range(z.shape[1])", "range(z.shape[1] - 1)")), {"q2_forward"}),
        ("the natural order", changed("maf_forward", (LOOP, """    for i in range(z.shape[1]):
        mean, log_scale = made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)
        x = torch.where(torch.arange(z.shape[1]) == i, z * torch.exp(log_scale) + mean, x)
""")), {"q2_forward"}),
        ("wrong sign", changed("maf_forward", ("return x, log_scale", "return x, -log_scale")), {"q2_forward"}),
        ("shifted before it is stretched", changed("maf_forward", ("z * torch.exp(log_scale) + mean",
                                                                   "(z + mean) * torch.exp(log_scale)")),
         {"q2_forward"}),
        ("log-det of all passes", changed("maf_forward", ("    x = torch.zeros", "    total = 0\n    x = torch.zeros"),
                                          ("+ mean\n", "+ mean\n        total = total + log_scale\n"),
                                          ("return x, log_scale", "return x, total")), {"q2_forward"}),
        ("detached", changed("maf_forward", ("made(x,", "made(x.detach(),")), {"q2_forward"})],
    "iaf_sample": [
        ("the network reads x", changed("iaf_sample", (
            "mean, log_scale = made(eps,", "x, log_det = maf_forward(eps, rank, m1, m2, w1, b1, w2, b2, w3, b3)\n"
            "    mean, log_scale = made(x,")), {"q2_iaf"}),
        ("the inverse of a MAF", changed("iaf_sample", ("eps * torch.exp(log_scale) + mean",
                                                        "(eps - mean) * torch.exp(-log_scale)"),
                                         ("log_base - log_scale", "log_base + log_scale")), {"q2_iaf"}),
        ("wrong sign", changed("iaf_sample", ("log_base - log_scale", "log_base + log_scale")), {"q2_iaf"}),
        ("without the base", changed("iaf_sample", ("(log_base - log_scale)", "(-log_scale)")), {"q2_iaf"}),
        ("the base at x", changed("iaf_sample", ("    log_base =", "    x = eps * torch.exp(log_scale) + mean\n    "
                                                 "log_base ="), ("(eps**2 +", "(x**2 +")), {"q2_iaf"}),
        ("a base that does not integrate to one", changed("iaf_sample", (" + math.log(2 * math.pi)", "")), {"q2_iaf"}),
        ("missing sum", changed("iaf_sample", (".sum(1)", ".mean(1)")), {"q2_iaf"}),
        ("detached", changed("iaf_sample", ("(log_base - log_scale)", "(log_base - log_scale.detach())")), {"q2_iaf"})],
    "time_inverse": [
        ("reads the step itself", changed("time_inverse", ("windows[:, :-1]", "windows[:, 1:]")), {"q3_inverse"}),
        ("the oldest first", changed("time_inverse", (".flip(2)", "")), {"q3_inverse"}),
        ("the first step is forgotten", changed("time_inverse", ("-s.sum(1)", "-s[:, 1:].sum(1)")), {"q3_inverse"}),
        ("reads the future", changed("time_inverse", ("F.pad(x, (lags, 0))", "F.pad(x, (0, lags))"),
                                     ("windows[:, :-1].flip(2)", "windows[:, 1:]")), {"q3_inverse"}),
        ("wrong sign", changed("time_inverse", ("-s.sum(1)", "s.sum(1)")), {"q3_inverse"}),
        ("one sum for all rows", changed("time_inverse", ("-s.sum(1)", "-s.sum().expand(len(x))")), {"q3_inverse"}),
        ("scale and shift exchanged", changed("time_inverse", ("r, m = ", "m, r = ")), {"q3_inverse"}),
        ("unbounded scale", changed("time_inverse", ("s = torch.tanh(r)", "s = r")), {"q3_inverse"}),
        ("detached", changed("time_inverse", ("-s.sum(1)", "-s.detach().sum(1)")), {"q3_inverse"})],
    "time_forward": [
        ("reads the noise", changed("time_forward", ("steps[-1][:, None]", "z[:, t : t + 1]")), {"q3_forward"}),
        ("one sum for all rows", changed("time_forward", ("log_det + s  #", "log_det + s.sum()  #")), {"q3_forward"}),
        ("stacked along the rows", changed("time_forward", ("torch.stack(steps, 1)", "torch.stack(steps)")),
         {"q3_forward"}),
        ("the oldest first", changed("time_forward", ("torch.cat([steps[-1][:, None], past[:, :-1]], 1)",
                                                      "torch.cat([past[:, 1:], steps[-1][:, None]], 1)")),
         {"q3_forward"}),
        ("wrong sign", changed("time_forward", ("log_det + s  #", "log_det - s  #")), {"q3_forward"}),
        ("scale and shift exchanged", changed("time_forward", ("r, m = ", "m, r = ")), {"q3_forward"}),
        ("detached", changed("time_forward", ("steps[-1][:, None]", "steps[-1][:, None].detach()")), {"q3_forward"})],
    "dsf": [
        ("the logit of a rounded probability",
         changed("dsf", ("torch.logsumexp(log_w + high, 1)", "torch.log1p(-log_f.exp())")), {"q5_z", "q5_log_slope"}),
        ("F without the logit", changed("dsf", ("return log_f - log_rest,", "return log_f.exp(),")),
         {"q5_z", "q5_log_slope"}),
        ("slopes of any sign", changed("dsf", ("slope = F.softplus(raw_slope)", "slope = raw_slope"),
                                       ("torch.log(slope)", "torch.log(slope.abs())")), {"q5_z", "q5_log_slope"}),
        ("exp for softplus", changed("dsf", ("F.softplus(", "torch.exp(")), {"q5_z", "q5_log_slope"}),
        ("weights that do not add up to one", changed("dsf", ("F.log_softmax(raw_weight, 1)", "raw_weight")),
         {"q5_log_slope"}),
        ("softmax over the points", changed("dsf", ("F.log_softmax(raw_weight, 1)", "F.log_softmax(raw_weight, 0)")),
         {"q5_z", "q5_log_slope"}),
        ("missing slope of the units", changed("dsf", ("log_w + torch.log(slope) + low", "log_w + low")),
         {"q5_log_slope"}),
        ("the slope of F", changed("dsf", ("log_pdf - log_f - log_rest", "log_pdf")), {"q5_log_slope"}),
        ("wrong sign", changed("dsf", ("log_pdf - log_f - log_rest", "log_f + log_rest - log_pdf")), {"q5_log_slope"}),
        ("the slope, not its logarithm", changed("dsf", ("log_pdf - log_f - log_rest",
                                                         "torch.exp(log_pdf - log_f - log_rest)")), {"q5_log_slope"}),
        ("detached", changed("dsf", ("log_w + torch.log(slope)", "log_w.detach() + torch.log(slope)")),
         {"q5_log_slope"})],
    "naf_log_prob": [
        ("no log-slope of the first", changed("naf_log_prob", (" + log_slope1", "")), {"q5_log_prob"}),
        ("wrong sign", changed("naf_log_prob", ("log_base + log_slope1 + log_slope2",
                                                "log_base - log_slope1 - log_slope2")), {"q5_log_prob"}),
        ("a logistic base", changed("naf_log_prob", (
            "-0.5 * (z1**2 + z2**2) - math.log(2 * math.pi)",
            "sum(F.logsigmoid(z) + F.logsigmoid(-z) for z in (z1, z2))")),
         {"q5_log_prob"}),
        ("half of the constant", changed("naf_log_prob", ("- math.log(2 * math.pi)", "- 0.5 * math.log(2 * math.pi)")),
         {"q5_log_prob"}),
        ("the network reads the other number", changed("naf_log_prob", ("x[:, :1] *", "x[:, 1:] *")), {"q5_log_prob"}),
        ("the network reads z",
         changed("naf_log_prob", (
            "    hidden =", "    z1, _ = dsf(x[:, 0], *first.expand(len(x), -1).chunk(3, dim=1))\n    hidden ="),
                                        ("x[:, :1] *", "z1[:, None] *")), {"q5_log_prob"}),
        ("the three parts taken in turns", changed("naf_log_prob", ("*second.chunk(3, dim=1)",
                                                                    "*second.unflatten(1, (-1, 3)).unbind(2)")),
         {"q5_log_prob"}),
        ("linear network", changed("naf_log_prob", ("torch.tanh(x[:, :1] * w1 + b1)", "x[:, :1] * w1 + b1")),
         {"q5_log_prob"}),
        ("one number", changed("naf_log_prob", ("return log_base + log_slope1 + log_slope2",
                                                "return (log_base + log_slope1 + log_slope2).mean()")),
         {"q5_log_prob"}),
        ("detached", changed("naf_log_prob", ("second = hidden", "second = hidden.detach()")), {"q5_log_prob"})],
    "kalman_log_prob": [
        ("starts at zero", changed("kalman_log_prob", ("q / (1 - a**2)", "0 * q")), {"q6_kalman", "q6_gradient"}),
        ("starts with the variance of one step", changed("kalman_log_prob", ("q / (1 - a**2)", "q")),
         {"q6_kalman", "q6_gradient"}),
        ("never learns", changed("kalman_log_prob", ("gain = variance / spread", "gain = 0 * spread")),
         {"q6_kalman", "q6_gradient"}),
        ("the state's variance for the frame's",
         changed("kalman_log_prob", ("spread = variance + r", "spread = variance")),
         {"q6_kalman", "q6_gradient"}),
        ("believes the frame", changed("kalman_log_prob", ("gain = variance / spread", "gain = spread / spread")),
         {"q6_kalman", "q6_gradient"}),
        ("the factor is not squared", changed("kalman_log_prob", ("a**2 * (1 - gain)", "a * (1 - gain)")),
         {"q6_kalman", "q6_gradient"}),
        ("variance for deviation",
         changed("kalman_log_prob", ("(frame - mean)**2 / spread", "((frame - mean) / spread)**2")),
         {"q6_kalman", "q6_gradient"}),
        ("missing constant", changed("kalman_log_prob", ("2 * math.pi * spread", "spread")),
         {"q6_kalman", "q6_gradient"}),
        ("detached", changed("kalman_log_prob", ("gain = variance / spread", "gain = (variance / spread).detach()")),
         {"q6_gradient"})],
    "ar_log_prob": [
        ("no log-det", changed("ar_log_prob", ("return log_det - ", "return -")), {"q6_flow"}),
        ("wrong sign of the log-det", changed("ar_log_prob", ("return log_det", "return -log_det")), {"q6_flow"}),
        ("missing constant", changed("ar_log_prob", ("(z**2 + math.log(2 * math.pi))", "(z**2)")), {"q6_flow"}),
        ("a mean over the steps", changed("ar_log_prob", (".sum(1)", ".mean(1)")), {"q6_flow"}),
        ("the base at x", changed("ar_log_prob", ("(z**2", "(x**2")), {"q6_flow"}),
        ("the other direction", changed("ar_log_prob", ("time_inverse", "time_forward")), {"q6_flow"}),
        ("detached", changed("ar_log_prob", ("return log_det", "return log_det.detach()")), {"q6_flow"})],
    "autocorrelation": [
        ("a lag too many", changed("autocorrelation", ("lag:] *", "lag + 1:] *"), (":-lag]", ":-lag - 1]")),
         {"q6_autocorrelation"}),
        ("not divided", changed("autocorrelation", (" / (x**2).mean()", "")), {"q6_autocorrelation"}),
        ("a sum over a sum", changed("autocorrelation", (".mean()", ".sum()")), {"q6_autocorrelation"}),
        ("along the wrong axis",
         changed("autocorrelation", ("x[:, lag:] * x[:, :-lag]", "x[1:] * x[:-1]")), {"q6_autocorrelation"}),
        ("means subtracted", changed("autocorrelation", ("    return", "    x = x - x.mean()\n    return")),
         {"q6_autocorrelation"}),
        ("round the end", changed("autocorrelation", ("x[:, lag:] * x[:, :-lag]", "x * x.roll(lag, 1)")),
         {"q6_autocorrelation"}),
        ("one for each sequence", changed("autocorrelation", (".mean()", ".mean(1)")), {"q6_autocorrelation"})],
}

# pairs that agree with each other, and are wrong: (what, function -> text)
CONSISTENT = [
    ("strict in the first layer", {"made_masks": changed("made_masks", (
        "m1[:, None] >= rank", "m1[:, None] > rank"), ("rank[:, None] > m2", "rank[:, None] >= m2"))}),
    ("means and log-scales exchanged", {
        "maf_inverse": changed("maf_inverse", ("mean, log_scale =", "log_scale, mean =")),
        "maf_forward": changed("maf_forward", ("mean, log_scale =", "log_scale, mean =")),
        "iaf_sample": changed("iaf_sample", ("mean, log_scale =", "log_scale, mean ="))}),
    ("shifted before it is stretched", {
        "maf_inverse": changed("maf_inverse", ("(x - mean) * torch.exp(-log_scale)",
                                               "x * torch.exp(-log_scale) - mean")),
        "maf_forward": changed("maf_forward", ("z * torch.exp(log_scale) + mean",
                                               "(z + mean) * torch.exp(log_scale)"))}),
    ("an inverse autoregressive flow for a masked one", {
        "maf_forward": ANSWERS.good["maf_inverse"].replace("maf_inverse", "maf_forward").replace(
            "(x - mean) * torch.exp(-log_scale), -log_scale", "x * torch.exp(log_scale) + mean, log_scale"),
        "maf_inverse": ANSWERS.good["maf_forward"].replace("maf_forward", "maf_inverse").replace(
            "z * torch.exp(log_scale) + mean", "(z - mean) * torch.exp(-log_scale)").replace(
            "return x, log_scale", "return x, -log_scale")}),
    ("the oldest first", {
        "time_inverse": changed("time_inverse", (".flip(2)", "")),
        "time_forward": changed("time_forward", ("torch.cat([steps[-1][:, None], past[:, :-1]], 1)",
                                                 "torch.cat([past[:, 1:], steps[-1][:, None]], 1)"))}),
    ("scale and shift exchanged", {"time_inverse": changed("time_inverse", ("r, m = ", "m, r = ")),
                                   "time_forward": changed("time_forward", ("r, m = ", "m, r = "))}),
    ("unbounded scale", {"time_inverse": changed("time_inverse", ("s = torch.tanh(r)", "s = r")),
                         "time_forward": changed("time_forward", ("s = torch.tanh(r)", "s = r"))}),
    ("exp for softplus", {"dsf": changed("dsf", ("F.softplus(", "torch.exp("))})]

# unusual, and right all the same
UNUSUAL = {
    "made_masks": [
        ("booleans", changed("made_masks", (".double()", ""))),
        ("integers", changed("made_masks", (".double()", ".long()"))),
        ("written with loops", '''def made_masks(rank, m1, m2):
    def mask(reads, seen, test):
        return torch.tensor([[float(test(a, b)) for b in seen.tolist()] for a in reads.tolist()])
    return (mask(m1, rank, lambda a, b: a >= b), mask(m2, m1, lambda a, b: a >= b), mask(rank, m2, lambda a, b: a > b))
''')],
    "made": [
        ("zero by where", changed("made", ("middle * w2", "torch.where(middle.bool(), w2, torch.zeros(()))"))),
        ("row by row", '''def made(x, *net):
    rank, m1, m2, w1, b1, w2, b2, w3, b3 = net
    a, b, c = (m.double() for m in made_masks(rank, m1, m2))
    rows = [w3.mul(c.repeat(2, 1)) @ torch.tanh((b * w2) @ torch.tanh((a * w1) @ row + b1) + b2) + b3 for row in x]
    return tuple(torch.stack(rows).tensor_split(2, 1))
'''),
        ("two products at the end", changed("made", (
            "    both = F.linear(h, torch.cat([last, last]) * w3, b3)  # (n, 2 D)\n    return both.chunk(2, dim=1)",
            "    return tuple(F.linear(h, last * w, b) for w, b in zip(w3.chunk(2), b3.chunk(2)))")))],
    "maf_inverse": [
        ("divided", changed("maf_inverse", ("* torch.exp(-log_scale)", "/ torch.exp(log_scale)"))),
        ("the sign inside", changed("maf_inverse", ("-log_scale.sum(1)", "(-log_scale).sum(-1)"))),
        ("any number of arguments", "def maf_inverse(x, *net):\n    m, s = made(x, *net)\n"
                                    "    return x * torch.exp(-s) - m * torch.exp(-s), 0 - s.sum(1)\n")],
    "maf_forward": [
        ("one number after the other", changed("maf_forward", (LOOP, """    for i in torch.argsort(rank):
        mean, log_scale = made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)
        x = torch.where(torch.arange(z.shape[1]) == i, z * torch.exp(log_scale) + mean, x)
    mean, log_scale = made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)
"""))),
        ("a pass too many", changed("maf_forward", ("range(z.shape[1])", "range(z.shape[1] + 1)"))),
        ("starts with the noise", changed("maf_forward", ("torch.zeros_like(z)", "z"))),
        ("written into place", changed("maf_forward", (LOOP, """    for i in rank.argsort().tolist():
        mean, log_scale = made(x.clone(), rank, m1, m2, w1, b1, w2, b2, w3, b3)
        x[:, i] = z[:, i] * torch.exp(log_scale[:, i]) + mean[:, i]
    mean, log_scale = made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3)
""")))],
    "iaf_sample": [
        ("torch's Gaussian", changed("iaf_sample", ("-0.5 * (eps**2 + math.log(2 * math.pi))",
                                                    "torch.distributions.Normal(0., 1.).log_prob(eps)"))),
        ("sums apart", changed("iaf_sample", ("(log_base - log_scale).sum(1)", "log_base.sum(1) - log_scale.sum(1)"))),
        ("as the inverse of a MAF", '''def iaf_sample(eps, rank, m1, m2, w1, b1, w2, b2, w3, b3):
    m, s = made(eps, rank, m1, m2, w1, b1, w2, b2, w3, b3)
    x = (eps + m * torch.exp(-s)) / torch.exp(-s)
    return x, -(eps**2).sum(1) / 2 - eps.shape[1] / 2 * math.log(2 * math.pi) - s.sum(1)
''')],
    "time_inverse": [
        ("flipped weights", changed("time_inverse", (".flip(2)", ""), ("weight.T", "weight.flip(1).T"))),
        ("step by step", '''def time_inverse(x, weight, bias):
    z, total = [], torch.zeros(len(x))
    for t in range(x.shape[1]):
        r, m = bias[0].expand(len(x)), bias[1].expand(len(x))
        for k in range(1, min(t, weight.shape[1]) + 1):
            r, m = r + weight[0, k - 1] * x[:, t - k], m + weight[1, k - 1] * x[:, t - k]
        z.append((x[:, t] - m) / torch.tanh(r).exp())
        total = total - torch.tanh(r)
    return torch.stack(z, -1), total
'''),
        ("a convolution", '''def time_inverse(x, weight, bias):
    L = weight.shape[1]
    past = F.pad(x, (L, 0))[:, None, :-1]
    r, m = F.conv1d(past, weight.flip(1)[:, None], bias).unbind(1)
    return (x - m) * torch.exp(-torch.tanh(r)), -torch.tanh(r).sum(1)
''')],
    "time_forward": [
        ("sweeps", '''def time_forward(z, weight, bias):
    x = z
    for _ in range(z.shape[1] + 1):
        past = F.pad(x, (weight.shape[1], 0))[:, :-1].unfold(1, weight.shape[1], 1).flip(2)
        r, m = (past @ weight.T + bias).unbind(2)
        x = z * torch.exp(torch.tanh(r)) + m
    return x, torch.tanh(r).sum(1)
'''),
        ("summed at the end", changed("time_forward", ("steps, log_det = [], 0", "steps, log_det = [], []"),
                                      ("log_det = log_det + s  #", "log_det = log_det + [s]  #"),
                                      ("1), log_det", "1), sum(log_det)"))),
        ("joined", changed("time_forward", ("torch.stack(steps, 1)", "torch.cat([x[:, None] for x in steps], 1)")))],
    "dsf": [
        ("log-sum-exp by hand", changed("dsf", ("torch.logsumexp(log_w + low, 1)",
                                                "(top := (log_w + low).amax(1)) + torch.exp(log_w + low - top[:, None])"
                                                ".sum(1).log()"))),
        ("softplus by logaddexp",
         changed("dsf", ("F.softplus(raw_slope)", "torch.logaddexp(raw_slope, 0 * raw_slope)"))),
        ("by softplus", changed("dsf", ("F.logsigmoid(u), F.logsigmoid(-u)", "-F.softplus(-u), -F.softplus(u)")))],
    "naf_log_prob": [
        ("slices",
         changed("naf_log_prob", ("*second.chunk(3, dim=1)",
                                             "*(second[:, i * k:(i + 1) * k] for i in range(3))"),
                           ("    z1,", "    k = len(first) // 3\n    z1,"))),
        ("both in one call", '''def naf_log_prob(x, first, w1, b1, w2, b2):
    p = torch.tanh(torch.outer(x[:, 0], w1) + b1) @ w2 + b2
    p = torch.cat([first.repeat(len(x), 1), p])
    z, s = dsf(x.T.reshape(-1), *p.chunk(3, 1))
    return (s - z**2 / 2 - math.log(2 * math.pi) / 2).reshape(2, -1).sum(0)
'''),
        ("torch's Gaussian", changed("naf_log_prob", (
            "-0.5 * (z1**2 + z2**2) - math.log(2 * math.pi)",
            "torch.distributions.Normal(0., 1.).log_prob(torch.stack([z1, z2])).sum(0)")))],
    "kalman_log_prob": [
        ("the dense Gaussian", '''def kalman_log_prob(x, a, q, r):
    t = torch.arange(x.shape[1])
    cov = q / (1 - a**2) * torch.pow(a, (t[:, None] - t).abs()) + r * torch.eye(len(t))
    return -0.5 * ((x * torch.linalg.solve(cov, x.T).T).sum(1) + torch.logdet(2 * math.pi * cov))
'''),
        ("as a precision",
         changed("kalman_log_prob", ("a**2 * (1 - gain) * variance", "a**2 / (1 / variance + 1 / r)"))),
        ("torch's Gaussian", changed("kalman_log_prob", (
            "log_p - 0.5 * ((frame - mean)**2 / spread + torch.log(2 * math.pi * spread))",
            "log_p + torch.distributions.Normal(mean, spread.sqrt()).log_prob(frame)")))],
    "ar_log_prob": [
        ("torch's Gaussian", changed("ar_log_prob", (
            "log_det - 0.5 * (z**2 + math.log(2 * math.pi)).sum(1)",
            "torch.distributions.Normal(0., 1.).log_prob(z).sum(1) + log_det"))),
        ("the constant apart", changed("ar_log_prob", (
            "0.5 * (z**2 + math.log(2 * math.pi)).sum(1)",
            "z.square().sum(1) / 2 - z.shape[1] * math.log(math.sqrt(2 * math.pi))"))),
        ("a product", "def ar_log_prob(*a):\n    z, s = time_inverse(*a)\n"
                      "    return s + torch.log(torch.exp(-z**2 / 2) / (2 * math.pi) ** 0.5).sum(-1)\n")],
    "autocorrelation": [
        ("Python's number", changed("autocorrelation", ("    return (x[:, lag:] * x[:, :-lag]).mean() / (x**2).mean()",
                                                        "    return ((x[:, lag:] * x[:, :-lag]).mean() / "
                                                        "(x**2).mean()).item()"))),
        ("norms", changed("autocorrelation", ("(x**2).mean()", "(x.norm() ** 2 / x.numel())"))),
        ("a loop", '''def autocorrelation(x, lag):
    pairs = [row[t] * row[t + lag] for row in x for t in range(len(row) - lag)]
    return sum(pairs) / len(pairs) * x.numel() / (x * x).sum()
''')],
}
RIGHT = [(f"{function}, {what}", {function: answer}) for function, answers in UNUSUAL.items()
         for what, answer in answers]
