"""Problem set 1: typical wrong answers."""
from answers import Answers

ANSWERS = Answers("ps1")
changed = ANSWERS.changed
CHECKS = {"check_weibull": ("weibull_forward", "weibull_inverse"),
          "check_low_rank": ("low_rank_forward", "low_rank_inverse"),
          "check_banana": ("banana_forward", "banana_inverse"), "check_chain": ("chain_log_prob",)}

# function -> [(what is wrong, the text, the parts that it loses)]
WRONG = {
    "weibull_forward": [
        ("wrong sign", changed("weibull_forward", (".log() - z.log()", ".log() + z.log()")), {"q1_forward_log_slope"}),
        ("missing term", changed("weibull_forward", (" - z.log()\n", "\n")), {"q1_forward_log_slope"}),
        ("one sum for all rows", changed("weibull_forward", ("return x, log_slope", "return x, log_slope.sum()")),
         {"q1_forward_log_slope"}),
        ("no bars", changed("weibull_forward", ("return x, log_slope", "return x, (-log_slope.exp()).log()")),
         {"q1_forward_log_slope"}),
        ("detached", changed("weibull_forward", ("x = scale *", "x = scale.item() *")), {"q1_forward_log_slope"}),
        ("exponent",
         changed("weibull_forward", ("x = scale * (-z.log()) ** (1 / shape)", "x = scale * (-z.log()) ** shape")),
         {"q1_x", "q1_forward_log_slope"})],
    "weibull_inverse": [
        ("wrong sign", changed("weibull_inverse", ("return torch.exp(-power), log_slope",
                                                   "return torch.exp(-power), -log_slope")), {"q1_inverse_log_slope"}),
        ("missing term", changed("weibull_inverse", (" - power\n", "\n")), {"q1_inverse_log_slope"}),
        ("one mean for all rows", changed("weibull_inverse", ("-power), log_slope", "-power), log_slope.mean()")),
         {"q1_inverse_log_slope"}),
        ("detached", changed("weibull_inverse", ("-power), log_slope", "-power), log_slope.detach()")),
         {"q1_inverse_log_slope"}),
        ("increasing", changed("weibull_inverse", ("return torch.exp(-power)", "return 1 - torch.exp(-power)")),
         {"q1_z", "q1_inverse_log_slope"})],
    "low_rank_forward": [
        ("wrong sign", changed("low_rank_forward", ("(1 + (u", "(1 - (u")), {"q3_forward"}),
        ("missing sum", changed("low_rank_forward", ("d.abs().log().sum()", "d.abs().log()"),
                                (", log_det.expand(len(z))", ", log_det")), {"q3_forward"}),
        ("no bars", changed("low_rank_forward", ("d.abs().log()", "d.log()"), (".sum()).abs().log()", ".sum()).log()")),
         {"q3_forward"}),
        ("wrong axis", changed("low_rank_forward", ("(z @ v)[:, None] * u", "(z * v).sum(0) * u")), {"q3_forward"}),
        ("one for all rows", changed("low_rank_forward", ("log_det.expand(len(z))", "log_det")), {"q3_forward"}),
        ("detached", changed("low_rank_forward", ("log_det.expand(len(z))", "log_det.detach().expand(len(z))")),
         {"q3_forward"})],
    "low_rank_inverse": [
        ("wrong sign", changed("low_rank_inverse", ("-log_det.expand", "log_det.expand")),
         {"q3_inverse_log_det", "q3_cost"}),
        ("other sign of u", changed("low_rank_inverse", ("z = (x - inner", "z = (x + inner")),
         {"q3_z", "q3_inverse_log_det", "q3_cost"}),
        ("missing sum", changed("low_rank_inverse", ("d.abs().log().sum()", "d.abs().log().mean()")),
         {"q3_inverse_log_det", "q3_cost"}),
        ("wrong axis", changed("low_rank_inverse", ("inner = (x / d) @ v / gain",
                                                    "inner = ((x / d) * v).sum(0)[:len(x)].new_ones(len(x)) / gain")),
         {"q3_z", "q3_inverse_log_det", "q3_cost"}),
        ("detached", changed("low_rank_inverse", ("z = (x - inner", "z = (x - inner.detach()")),
         {"q3_inverse_log_det"}),
        ("a full matrix", "def low_rank_inverse(x, d, u, v):\n    J = torch.diag(d) + torch.outer(u, v)\n"
         "    return torch.linalg.solve(J, x.T).T, -torch.linalg.slogdet(J)[1].expand(len(x))", {"q3_cost"})],
    "banana_forward": [
        ("no bars", changed("banana_forward", ("a.abs().log()", "a.log()")), {"q4_forward"}),
        ("sum over the batch", changed("banana_forward", ("+ c * z[:, 0]  #", "+ c * z[:, 0].sum()  #")),
         {"q4_forward"}),
        ("detached", changed("banana_forward", ("+ b * x1**2", "+ b.item() * x1**2")), {"q4_forward"}),
        ("wrong sign", changed("banana_forward", ("a.abs().log() + c", "a.abs().log() - c")), {"q4_forward"})],
    "banana_inverse": [
        ("x1 for z1", changed("banana_inverse", ("torch.exp(-c * z1)", "torch.exp(-c * x[:, 0])")), {"q4_inverse"}),
        ("wrong sign", changed("banana_inverse", ("-a.abs().log() - c * z1", "a.abs().log() + c * z1")),
         {"q4_inverse"}),
        ("missing row", changed("banana_inverse", ("- c * z1  #", "- c * z1.sum()  #")), {"q4_inverse"}),
        ("wrong axis", changed("banana_inverse", ("torch.stack([z1, z2], 1)",
                                                  "torch.stack([z1, z2], 0).reshape(-1, 2)")), {"q4_inverse"}),
        ("detached", changed("banana_inverse", ("torch.stack([z1, z2], 1)", "torch.stack([z1, z2], 1).detach()")),
         {"q4_inverse"})],
    "chain_log_prob": [
        ("wrong sign", changed("chain_log_prob", ("- torch.linalg.slogdet", "+ torch.linalg.slogdet")),
         {"q5_log_prob", "q5_gradient"}),
        ("missing term", changed("chain_log_prob", (" - math.log(power)", "")), {"q5_log_prob", "q5_gradient"}),
        ("missing sum", changed("chain_log_prob", ("log_slope.sum(1)", "log_slope.mean(1)")),
         {"q5_log_prob", "q5_gradient"}),
        ("wrong axis", changed("chain_log_prob", ("log_slope.sum(1)", "log_slope.sum()")),
         {"q5_log_prob", "q5_gradient"}),
        ("wrong order", changed("chain_log_prob", ("matrices.flip(0), shifts.flip(0)", "matrices, shifts")),
         {"q5_log_prob", "q5_gradient"}),
        ("detached", changed("chain_log_prob", ("torch.linalg.slogdet(a)[1]", "torch.linalg.slogdet(a.detach())[1]")),
         {"q5_gradient"})],
}

# Wrong answers that agree with themselves: (what is wrong, {function: the text})
CONSISTENT = [
    ("increasing", {
        "weibull_forward": changed("weibull_forward", (
            "    return x", "    x = scale * (-(-z).log1p()) ** (1 / shape)\n"
            "    log_slope = scale.log() - shape.log() + (1 / shape - 1) * (-(-z).log1p()).log() - (-z).log1p()\n"
            "    return x")),
        "weibull_inverse": changed("weibull_inverse", ("return torch.exp(-power)", "return 1 - torch.exp(-power)"))}),
    ("a rate in place of a scale", {
        "weibull_forward": changed("weibull_forward",
            ("    x = scale", "    scale = scale ** (-1 / shape)\n    x = scale")),
        "weibull_inverse": changed("weibull_inverse",
            ("    power =", "    scale = scale ** (-1 / shape)\n    power ="))}),
    ("the shape upside down", {
        "weibull_forward": changed("weibull_forward", ("    x =", "    shape = 1 / shape\n    x =")),
        "weibull_inverse": changed("weibull_inverse", ("    power =", "    shape = 1 / shape\n    power ="))}),
    ("u and v exchanged", {
        "low_rank_forward": changed("low_rank_forward", ("    x =", "    u, v = v, u\n    x =")),
        "low_rank_inverse": changed("low_rank_inverse", ("    gain =", "    u, v = v, u\n    gain ="))}),
    ("a product of a million factors", {
        "low_rank_forward": changed("low_rank_forward", ("d.abs().log().sum()", "d.prod().abs().log()")),
        "low_rank_inverse": changed("low_rank_inverse", ("d.abs().log().sum()", "d.prod().abs().log()"))}),
    ("stretched by x1", {
        "banana_forward": changed("banana_forward",
            ("c * z[:, 0]) *", "c * x1) *"), ("+ c * z[:, 0]  #", "+ c * x1  #")),
        "banana_inverse": changed("banana_inverse", ("torch.exp(-c * z1)", "torch.exp(-c * x[:, 0])"),
                                  ("- c * z1  #", "- c * x[:, 0]  #"))}),
    ("bent by z1", {
        "banana_forward": changed("banana_forward", ("b * x1**2", "b * z[:, 0] ** 2")),
        "banana_inverse": changed("banana_inverse", ("b * x[:, 0] ** 2", "b * (x[:, 0] / a) ** 2"))}),
    ("the other way round", {
        "banana_forward": changed("banana_forward", ("    x1 =", "    c = -c\n    x1 =")),
        "banana_inverse": changed("banana_inverse", ("    z1 =", "    c = -c\n    z1 ="))}),
    ("no power", {"chain_log_prob": changed("chain_log_prob", ("    log_det =", "    power = 1.0\n    log_det ="))}),
    ("the curve and its inverse exchanged", {
        "chain_log_prob": changed("chain_log_prob", ("    log_det =", "    power = 1 / power\n    log_det ="))}),
    ("shifted before it is turned", {
        "chain_log_prob": changed("chain_log_prob", ("solve(a, (x - b).T).T", "solve(a, x.T).T - b"))}),
    ("transposed", {"chain_log_prob": changed("chain_log_prob", ("solve(a, (x", "solve(a.T, (x"))}),
    ("turned before it is bent", {
        "chain_log_prob": changed("chain_log_prob", ("t = torch.linalg.solve(a, (x - b).T).T", "t = x - b"),
                                  ("  x = torch.sinh(s)\n", "  x = torch.linalg.solve(a, torch.sinh(s).T).T\n"))}),
]

# Right answers in other words
RIGHT = [
    ("a distribution of torch", {
        "weibull_inverse": "def weibull_inverse(x, scale, shape):\n"
        "    weibull = torch.distributions.Weibull(scale, shape, validate_args=False)\n"
        "    return torch.exp(-(x / scale) ** shape), weibull.log_prob(x)"}),
    ("slopes by autograd", {
        "weibull_forward": "def weibull_forward(z, scale, shape):\n    with torch.enable_grad():\n"
        "        z = z if z.requires_grad else z.clone().requires_grad_()\n"
        "        x = scale * (-z.log()) ** (1 / shape)\n"
        "        slope, = torch.autograd.grad(x.sum(), z, create_graph=True)\n    return x, slope.abs().log()"}),
    ("row by row", {
        "low_rank_forward": "def low_rank_forward(z, d, u, v):\n"
        "    rows = [d * row + u * (row * v).sum() for row in z]\n"
        "    log_det = d.abs().log().sum() + (1 + (v * u / d).sum()).abs().log()\n"
        "    return torch.stack(rows), torch.stack([log_det for _ in rows])"}),
    ("an inverse matrix and its determinant", {
        "chain_log_prob": changed("chain_log_prob",
            ("torch.linalg.solve(a, (x - b).T).T", "(x - b) @ torch.linalg.inv(a).T"),
                                  ("- torch.linalg.slogdet(a)[1]", "- torch.linalg.det(a).abs().log()"))}),
]
