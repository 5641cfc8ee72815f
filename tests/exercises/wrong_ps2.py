"""Problem set 2: typical wrong answers."""
from answers import Answers

ANSWERS = Answers("ps2")
changed = ANSWERS.changed
# function of flowlib.exercises.ps2 -> the functions that it tests
CHECKS = {"check_planar": ("admissible", "planar_forward"), "check_planar_inverse": ("planar_forward", "planar_inverse"),
          "check_householder": ("householder_forward", "householder_inverse", "turned_log_prob"),
          "check_radial": ("radial_forward", "radial_inverse"),
          "check_posterior": ("posterior_draws", "planar_forward", "reweigh")}

# function -> [(what is wrong, the text, the parts that it loses)]
WRONG = {
    "admissible": [
        ("no constraint", changed("admissible", ("u + (F.softplus(t) - 1 - t) * w / (w @ w)", "u")), {"q1_admissible"}),
        ("wrong sign", changed("admissible", ("u + (F", "u - (F")), {"q1_admissible"}),
        ("length not squared", changed("admissible", ("/ (w @ w)", "/ (w @ w).sqrt()")), {"q1_admissible"}),
        ("missing term", changed("admissible", (" - 1 - t)", " - 1)")), {"q1_admissible"}),
        ("detached", changed("admissible", ("t = w @ u", "t = (w @ u).item()"), ("F.softplus(t)", "math.log(1 + math.exp(t))")), {"q1_admissible"})],
    "planar_forward": [
        ("no constraint", changed("planar_forward", ("    u = admissible(u, w)\n", "")), {"q1_x", "q1_log_det"}),
        ("no constraint in the log-det", changed("planar_forward", ("u = admissible(u, w)", "raw, u = u, admissible(u, w)"), ("(w @ u))", "(w @ raw))")), {"q1_log_det"}),
        ("missing shift", changed("planar_forward", ("(z @ w + b)", "(z @ w)")), {"q1_x", "q1_log_det"}),
        ("wrong sign", changed("planar_forward", ("return x, torch", "return x, -torch")), {"q1_log_det"}),
        ("slope not squared", changed("planar_forward", ("(1 - h**2)", "(1 - h)")), {"q1_log_det"}),
        ("one mean for all rows", changed("planar_forward", ("(1 - h**2)", "(1 - h**2).mean()")), {"q1_log_det"}),
        ("a product in place of a dot product", changed("planar_forward", ("(1 - h**2) * (w @ u)", "(1 - h**2)[:, None] * (w * u)")), {"q1_log_det"}),
        ("detached", changed("planar_forward", ("(w @ u))", "(w @ u).item())")), {"q1_log_det"})],
    "planar_inverse": [
        ("no constraint", changed("planar_inverse", ("    u = admissible(u, w)\n", "")), {"q2_z", "q2_log_det", "q2_gradient"}),
        ("wrong sign", changed("planar_inverse", ("return z, -torch", "return z, torch")), {"q2_log_det", "q2_gradient"}),
        ("other sign of u", changed("planar_inverse", ("z = x - h", "z = x + h")), {"q2_z", "q2_gradient"}),
        ("slope at x", changed("planar_inverse", ("return z, -torch.log(1 + c * (1 - h**2))", "return z, -torch.log(1 + c * (1 - torch.tanh(target + b)**2))")),
         {"q2_log_det", "q2_gradient"}),
        ("detached", changed("planar_inverse", ("    s = s - (s + c * h - target) / (1 + c * (1 - h**2))  # Newton's step carries the gradient\n", "")), {"q2_gradient"}),
        ("half of the gradient", changed("planar_inverse", ("u = admissible(u, w)", "u = admissible(u, w).detach()")), {"q2_gradient"}),
        ("a bracket of fixed size", changed("planar_inverse", ("low, high = target - c.abs(), target + c.abs()", "low, high = torch.full_like(target, -1), torch.full_like(target, 1)")),
         {"q2_z", "q2_log_det", "q2_gradient"}),
        ("one root for all rows", changed("planar_inverse", ("target = w @ u, x @ w", "target = w @ u, (x @ w).mean().expand(len(x))")), {"q2_z", "q2_log_det", "q2_gradient"}),
        ("too few steps", changed("planar_inverse", ("range(60)", "range(6)")), {"q2_z", "q2_log_det", "q2_gradient"})],
    "householder_forward": [
        ("no factor of two", changed("householder_forward", ("- 2 * ", "- ")), {"q3_forward"}),
        ("vectors taken as unit vectors", changed("householder_forward", (" / (v @ v)", "")), {"q3_forward"}),
        ("wrong order", changed("householder_forward", ("in vectors:", "in vectors.flip(0):")), {"q3_forward"}),
        ("each reflects z", changed("householder_forward", ("(x @ v)[:, None]", "(z @ v)[:, None]")), {"q3_forward"}),
        ("wrong axis", changed("householder_forward", ("(x @ v)[:, None] * v", "(x * v).sum(0) * v")), {"q3_forward"}),
        ("one log-det for all rows", changed("householder_forward", ("torch.zeros(len(z))", "torch.zeros(())")), {"q3_forward"}),
        ("detached", changed("householder_forward", ("in vectors:", "in vectors.detach():")), {"q3_forward"})],
    "householder_inverse": [
        ("wrong order", changed("householder_inverse", (".flip(0)", "")), {"q3_inverse", "q3_cost"}),
        ("wrong sign", changed("householder_inverse", ("return householder_forward(x, vectors.flip(0))", "z, log_det = householder_forward(x, vectors.flip(0))\n    return -z, log_det")),
         {"q3_inverse", "q3_cost"}),
        ("wrong axis", changed("householder_inverse", (".flip(0)", ".flip(1)")), {"q3_inverse", "q3_cost"}),
        ("detached", changed("householder_inverse", (".flip(0)", ".flip(0).detach()")), {"q3_inverse"}),
        ("a full matrix", "def householder_inverse(x, vectors):\n    for v in vectors.flip(0):\n"
         "        x = x @ (torch.eye(len(v)) - 2 * torch.outer(v, v) / (v @ v))\n    return x, torch.zeros(len(x))", {"q3_cost"})],
    "turned_log_prob": [
        ("wrong sign", changed("turned_log_prob", ("- log_scale.sum()", "+ log_scale.sum()")), {"q3_log_prob"}),
        ("missing sum", changed("turned_log_prob", ("- log_scale.sum()", "- log_scale.mean()")), {"q3_log_prob"}),
        ("wrong axis", changed("turned_log_prob", (".sum(1)", ".sum(0)[0]")), {"q3_log_prob"}),
        ("missing constant", changed("turned_log_prob", (" + math.log(2 * math.pi)", "")), {"q3_log_prob"}),
        ("forward for inverse", changed("turned_log_prob", ("householder_inverse(", "householder_forward(")), {"q3_log_prob"}),
        ("scaled before it is turned back", changed("turned_log_prob", ("(x - mean, vectors)[0] / log_scale.exp()", "((x - mean) / log_scale.exp(), vectors)[0]")), {"q3_log_prob"}),
        ("the mean is turned", changed("turned_log_prob", ("(x - mean, vectors)[0]", "(x, vectors)[0] - mean"), ("/ log_scale", "* 1 / log_scale")), {"q3_log_prob"}),
        ("detached", changed("turned_log_prob", ("- mean, vectors)", "- mean, vectors.detach())")), {"q3_log_prob"})],
    "radial_forward": [
        ("one radius for the batch", changed("radial_forward", ("(away, dim=1)", "(away).expand(len(z))")), {"q4_forward"}),
        ("rows for dimensions", changed("radial_forward", ("z.shape[1] - 1", "len(z) - 1")), {"q4_forward"}),
        ("slope not squared", changed("radial_forward", ("alpha * beta * h**2", "alpha * beta * h")), {"q4_forward"}),
        ("missing factor", changed("radial_forward", ("shear * torch", "torch")), {"q4_forward"}),
        ("wrong sign", changed("radial_forward", ("away, log_det", "away, -log_det")), {"q4_forward"}),
        ("detached", changed("radial_forward", ("F.softplus(raw_beta)", "F.softplus(raw_beta.detach())")), {"q4_forward"})],
    "radial_inverse": [
        ("the other root", changed("radial_inverse", ("(p + torch", "(p - torch")), {"q4_inverse"}),
        ("wrong sign", changed("radial_inverse", (", -log_det", ", log_det")), {"q4_inverse"}),
        ("radius of x", changed("radial_inverse", ("h = 1 / (alpha + r)", "h = 1 / (alpha + outer)")), {"q4_inverse"}),
        ("wrong axis", changed("radial_inverse", ("(away, dim=1)", "(away, dim=0)[:1].expand(len(x))")), {"q4_inverse"}),
        ("detached", changed("radial_inverse", ("h = 1 / (alpha + r)", "h = 1 / (alpha + r.detach())")), {"q4_inverse"})],
    "posterior_draws": [
        ("wrong sign", changed("posterior_draws", ("log_q - log_det", "log_q + log_det")), {"q6_flow"}),
        ("wrong sign of the scales", changed("posterior_draws", ("- log_scale.sum()", "+ log_scale.sum()")), {"q6_gaussian", "q6_flow"}),
        ("missing sum", changed("posterior_draws", ("- log_scale.sum()", "- log_scale.mean()")), {"q6_gaussian", "q6_flow"}),
        ("only the last log-det", changed("posterior_draws", ("    for u", "    first = log_q\n    for u"), ("log_q = log_q - log_det", "log_q = first - log_det")), {"q6_flow"}),
        ("missing constant", changed("posterior_draws", (" + math.log(2 * math.pi)", "")), {"q6_gaussian", "q6_flow"}),
        ("log q of z", changed("posterior_draws", ("(eps**2 +", "(z**2 +")), {"q6_gaussian", "q6_flow"}),
        ("wrong axis", changed("posterior_draws", ("@ matrix.T", "@ matrix")), {"q6_gaussian", "q6_flow"}),
        ("scaled after mixing", changed("posterior_draws", ("(eps * log_scale.exp()) @ matrix.T", "(eps @ matrix.T) * log_scale.exp()")), {"q6_gaussian", "q6_flow"}),
        ("a diagonal that is not one", changed("posterior_draws", ("torch.tril(lower, -1)", "torch.tril(lower)")), {"q6_gaussian", "q6_flow"}),
        ("wrong order", changed("posterior_draws", ("zip(us, ws, bs)", "zip(us.flip(0), ws.flip(0), bs.flip(0))")), {"q6_flow"}),
        ("detached", changed("posterior_draws", ("log_q - log_det", "log_q - log_det.detach()")), {"q6_flow"})],
    "reweigh": [
        ("wrong sign", changed("reweigh", ("- math.log(len(log_w))", "+ math.log(len(log_w))")), {"q6_bound"}),
        ("missing mean", changed("reweigh", (" - math.log(len(log_w))", "")), {"q6_bound"}),
        ("a sum for the bound", changed("reweigh", ("return log_w.mean()", "return log_w.sum()")), {"q6_bound"}),
        ("underflow", changed("reweigh", ("torch.logsumexp(log_w, 0) - math.log(len(log_w))", "log_w.exp().mean().log()")), {"q6_bound"}),
        ("overflow of the size", changed("reweigh", ("(log_w - log_w.max()).exp()", "log_w.exp()")), {"q6_size"}),
        ("square forgotten", changed("reweigh", ("w.sum() ** 2", "w.sum()")), {"q6_size"}),
        ("a number, not a share", changed("reweigh", (" / len(w)", "")), {"q6_size"}),
        ("the largest weight alone", changed("reweigh", ("w.sum() ** 2 / (w**2).sum() / len(w)", "1 / (w / w.sum()).max() / len(w)")), {"q6_size"})],
}
