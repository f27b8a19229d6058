"""Fusions: shapes, masks, gradients, symmetry, and what each can learn."""

import pytest
import torch
from torch.nn import functional as F

from ecmf_lib import fusion

DIMS = {"face": 5, "audio": 7, "text": 3}
CLASSES = 4
#: Every fusion, ECMF in each of its forms.
FORMS = {
    "ecmf": ("ecmf", {}),
    "ecmf without attention": ("ecmf", {"attention": False}),
    "ecmf, attended tokens summed": ("ecmf", {"sum_attended": True}),
    "ecmf without residual": ("ecmf", {"residual": "none"}),
    "ecmf, residual concat": ("ecmf", {"residual": "concat"}),
    "concat": ("concat", {}),
    "baseline-attention": ("baseline-attention", {}),
}
forms = pytest.mark.parametrize("form", FORMS)
weighing = pytest.mark.parametrize("form", [form for form in FORMS if form != "concat"])


def make(form, *, seed=0, width=8, dims=DIMS, **options):
    name, own = FORMS[form]
    torch.manual_seed(seed)
    return fusion.build(name, dims, CLASSES, width=width, **own, **options)


def batch(n=6, *, seed=1, dims=DIMS):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, dim, generator=generator) for name, dim in dims.items()}


def everything(n=6, dims=DIMS):
    return torch.ones(n, len(dims), dtype=torch.bool)


@forms
def test_shapes(form):
    out = make(form)(batch(), everything())
    assert out.logits.shape == (6, CLASSES)
    if form == "concat":
        assert out.weights.shape == (6, 0) and out.stream_logits.shape == (6, 0, CLASSES)
    else:
        assert out.weights.shape == (6, 3)
    if form.startswith("ecmf"):
        assert out.stream_logits.shape == (6, 3, CLASSES)
        assert torch.allclose(out.weights.sum(1), torch.ones(6))


@forms
def test_what_stands_in_for_a_missing_stream_reaches_nothing(form):
    model, x, present = make(form).eval(), batch(), everything()
    present[::2, 1] = False
    other = {name: z.clone() for name, z in x.items()}
    other["audio"][::2] = 1e4
    for a, b in zip(model(x, present), model(other, present), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(model(x, everything()).logits, model(other, everything()).logits)  # but if present it does


@weighing
def test_missing_streams_get_no_weight_and_the_others_share_all_of_it(form):
    present = everything()
    present[:3, 0] = False
    weights = make(form).eval()(batch(), present).weights
    assert (weights[:3, 0] == 0).all()
    if form.startswith("ecmf"):
        assert torch.allclose(weights.sum(1), torch.ones(6))


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("ecmf") and "concat" not in form])
def test_a_missing_stream_equals_a_model_that_never_had_it(form):
    model, x, present = make(form).eval(), batch(), everything()
    present[:, 1] = False
    smaller = make(form, dims={"face": 5, "text": 3}).eval()
    state = {}
    for key, value in model.state_dict().items():
        head, _, rest = key.partition(".")
        if head in ("project", "opinions"):
            number, _, leaf = rest.partition(".")
            if number != "1":
                state[f"{head}.{ {'0': 0, '2': 1}[number] }.{leaf}"] = value
        else:
            state[key] = value[[0, 2]] if head in ("prior", "stream_code") else value
    smaller.load_state_dict(state)
    few = smaller({"face": x["face"], "text": x["text"]}, everything(dims={"face": 5, "text": 3}))
    out = model(x, present)
    assert torch.allclose(out.logits, few.logits, atol=1e-6)
    assert torch.allclose(out.weights[:, [0, 2]], few.weights, atol=1e-6)


@forms
def test_a_clip_without_any_stream_is_finite_in_value_and_gradient(form):
    model, present = make(form), everything()
    present[0] = False
    out = model(batch(), present)
    F.cross_entropy(out.logits, torch.arange(6) % CLASSES).backward()
    assert all(torch.isfinite(part).all() for part in out)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@forms
def test_every_parameter_learns(form):
    """Logits and stream logits together reach each parameter; a part that gets no gradient would be dead weight."""
    model = make(form, dropout=0.0)
    out = model(batch(32), everything(32))
    loss = F.cross_entropy(out.logits, torch.arange(32) % CLASSES) + out.stream_logits.square().sum()
    loss.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not dead


@forms
def test_permuting_streams_permutes_the_weights_and_nothing_else(form):
    model, x, present = make(form).eval(), batch(), everything()
    present[0, 2] = present[1, 0] = False
    order = [2, 0, 1]
    names = [list(DIMS)[i] for i in order]
    other = make(form, seed=5, dims={name: DIMS[name] for name in names}).eval()
    other.load_state_dict(_permuted(model.state_dict(), order, width=8))
    a, b = model(x, present), other({name: x[name] for name in names}, present[:, order])
    assert torch.allclose(a.logits, b.logits, atol=1e-6)
    if a.weights.shape[1]:
        assert torch.allclose(a.weights[:, order], b.weights, atol=1e-6)


def _permuted(state, order, width):
    """Parameters of the same model with its streams in another order: new stream i is old stream order[i]."""
    found = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head in ("project", "opinions"):
            old, _, leaf = rest.partition(".")
            found[f"{head}.{order.index(int(old))}.{leaf}"] = value
        elif head in ("prior", "stream_code"):
            found[key] = value[order]
        elif key == "attention.1.weight":  # baseline: the concatenation of all streams comes in
            found[key] = value.view(value.shape[0], -1, width)[:, order].flatten(1)
        elif head == "score" and value.shape[0] == len(order):  # baseline: one output a stream
            found[key] = value[order]
        elif key == "classify.weight" and value.shape[1] > width:  # residual concat: fused, then each stream
            blocks = value.view(value.shape[0], -1, width)
            found[key] = torch.cat([blocks[:, :1], blocks[:, 1:][:, order]], dim=1).flatten(1)
        else:
            found[key] = value
    return found


def test_attention_and_residuals_off_leave_weights_sum_and_classifier():
    model = fusion.build("ecmf", DIMS, CLASSES, width=8, attention=False, residual="none")
    model.eval()
    x, present = batch(), everything()
    own = torch.stack([F.gelu(layer(z)) for layer, z in zip(model.project, x.values(), strict=True)], 1)
    weights = (model.score(own.tanh()).squeeze(-1) + 10 * model.prior).softmax(1)
    expected = model.classify((weights[..., None] * own).sum(1))
    out = model(x, present)
    assert torch.allclose(out.logits, expected, atol=1e-6) and torch.allclose(out.weights, weights, atol=1e-6)


def test_attention_lets_one_stream_change_the_weights_between_two_others():
    x = batch()
    changed = x | {"text": x["text"] + 1}
    for attention in (True, False):
        model = fusion.build("ecmf", DIMS, CLASSES, width=8, attention=attention).eval()
        a, b = model(x, everything()).weights, model(changed, everything()).weights
        same = torch.allclose(a[:, 0] / a[:, 1], b[:, 0] / b[:, 1], atol=1e-5)
        assert same is not attention


@pytest.mark.parametrize("form", [form for form in FORMS if form != "ecmf without attention"])
def test_fits_a_problem_that_needs_two_streams_together(form):
    """XOR of the signs of two streams: no sum of per-stream opinions solves it, a fusion must.

    ECMF without attention is not here: its streams meet only in the softmax weights, so it need not be able to.
    """
    torch.manual_seed(0)
    x = {"face": torch.randn(256, 2), "audio": torch.randn(256, 2)}
    labels = ((x["face"][:, 0] > 0) ^ (x["audio"][:, 0] > 0)).long()
    name, options = FORMS[form]
    model = fusion.build(name, {"face": 2, "audio": 2}, 2, width=32, dropout=0.0, **options)
    if hasattr(model, "drop_input"):
        model.drop_input.p = 0.0
    optimiser, present = torch.optim.Adam(model.parameters(), lr=1e-2), torch.ones(256, 2, dtype=torch.bool)
    for _ in range(200):
        logits = model(x, present).logits
        optimiser.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
    assert (logits.argmax(1) == labels).float().mean() > 0.95


def test_masked_softmax_is_softmax_over_what_is_there():
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0]]).bool()
    got = fusion.masked_softmax(scores, present)
    assert torch.allclose(got[0], scores[0].softmax(0))
    assert torch.allclose(got[1, [0, 2]], scores[1, [0, 2]].softmax(0)) and got[1, 1] == 0
    assert (got[2] == 0).all()


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ecfm", {}, "choose from ecmf"),
        ("ecmf", {"residual": "both"}, "none, stream, concat"),
        ("ecmf", {"heads": 3}, "not a multiple"),
        ("concat", {"heads": 2}, "heads"),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, told):
    with pytest.raises(ValueError, match=told):
        fusion.build(name, DIMS, CLASSES, **options)


def test_features_that_are_not_handed_over_are_named():
    with pytest.raises(KeyError, match="text"):
        make("ecmf")({"face": torch.zeros(1, 5), "audio": torch.zeros(1, 7)}, everything(1))
